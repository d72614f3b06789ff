"""What a store of base images keeps and what it lets go: leases, the size limit, the full disk, odd entries."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_bases
from small_disk import small_disk
from tiny_bases import MIB, SAID, Bench, failing

from distgate.base_images.entries import read_entry
from distgate.base_images.store import BaseStore, RefusedBase
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import disk_usage
from distgate.images.base import BaseImage
from distgate.locks import Gone, LockOwner, leases


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "images", tmp_path / "repository")


def generations(bench: Bench, count: int) -> list[BaseImage]:
    """As many bases of one branch, the oldest first: the last is the current one."""
    made = []
    for number in range(count):
        bench.publish(f"content {number}")
        made.append(bench.store.refresh(bench.definition()))
        for stamp in ("used", "confirmed"):
            os.utime(made[-1].path.parent / stamp, (1000 + number, 1000 + number))
    return made


def left(bench: Bench) -> set[str]:
    return {entry.identity for entry in bench.store.listing().entries}


def test_a_prune_takes_what_was_used_longest_ago_until_the_limit_is_kept(bench: Bench) -> None:
    oldest, middle, current = generations(bench, 3)
    os.utime(oldest.path.parent / "used", (5000, 5000))  # somebody asked for it since
    one = bench.store.find(current.identity).size
    pruned = bench.store.prune(int(2.5 * one))
    assert [removal.identity for removal in pruned.removed] == [middle.identity]
    assert left(bench) == {oldest.identity, current.identity}
    assert pruned.within_limit
    assert pruned.before - pruned.after >= one
    assert pruned.after == disk_usage(bench.root / "bases")


def test_the_limit_counts_blocks_of_the_disk_and_not_lengths_of_files(bench: Bench) -> None:
    (base,) = generations(bench, 1)
    sparse = base.path.parent / "sparse"
    with sparse.open("wb") as stream:
        stream.truncate(1 << 40)
    assert bench.store.find(base.identity).size < 4 * MIB


def test_the_current_base_of_each_branch_and_kind_survives_any_limit(bench: Bench) -> None:
    first, current = generations(bench, 2)
    other = bench.store.refresh(bench.definition("f42"))
    pruned = bench.store.prune(0)
    assert {removal.identity for removal in pruned.removed} == {first.identity}
    assert left(bench) == {current.identity, other.identity}
    assert not pruned.within_limit
    assert pruned.kept[other.identity] == "the current one of f42"


def test_a_refused_base_is_kept_in_mind_until_there_is_a_newer_one(bench: Bench) -> None:
    current = bench.store.base(bench.definition())
    bench.publish("second")
    bench.guests.said = failing()
    with pytest.raises(RefusedBase):
        bench.store.refresh(bench.definition())
    assert bench.store.prune(0).removed == ()
    bench.publish("third")
    bench.guests.said = SAID
    newest = bench.store.refresh(bench.definition())
    assert len(bench.store.prune(0).removed) == 2
    assert left(bench) == {newest.identity}
    assert not current.path.exists()


def test_a_dry_run_names_what_would_go_and_removes_nothing(bench: Bench) -> None:
    bases = generations(bench, 3)
    pruned = bench.store.prune(0, dry_run=True)
    assert [removal.identity for removal in pruned.removed] == [base.identity for base in bases[:2]]
    assert left(bench) == {base.identity for base in bases}
    assert pruned.after < pruned.before


def test_a_build_makes_room_for_itself(bench: Bench) -> None:
    oldest, _middle = generations(bench, 2)
    bench.limit = int(2.5 * bench.store.find(oldest.identity).size)
    bench.publish("next")
    newest = bench.store.refresh(bench.definition())
    assert not oldest.path.exists()
    assert newest.path.exists()


def test_a_leased_base_survives_a_prune_and_its_holder_is_named(bench: Bench) -> None:
    old, _current = generations(bench, 2)
    with bench.store.lease(old.identity, "run-12") as base, bench.store.lease(old.identity, "run-13"):
        assert base == old
        holders = leases(old.path.parent)
        assert [(holder.name, holder.pid) for holder in holders] == [("run-12", os.getpid()), ("run-13", os.getpid())]
        for dry_run in (True, False):
            pruned = bench.store.prune(0, dry_run=dry_run)
            assert pruned.removed == ()
            assert "leased by run-12 (process" in pruned.kept[old.identity]
    assert leases(old.path.parent) == ()
    assert [removal.identity for removal in bench.store.prune(0).removed] == [old.identity]


@contextmanager
def another_holder(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, tiny_bases.__file__, str(bench.root), str(bench.repository), "--stay"]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert any(line.startswith("leased") for line in holder.stdout)
        yield holder
    finally:
        holder.kill()
        holder.wait()


def test_the_lease_of_a_holder_killed_by_kill_9_is_over(bench: Bench) -> None:
    (old,) = generations(bench, 1)
    with another_holder(bench) as holder:
        bench.publish("next")
        bench.store.refresh(bench.definition())
        assert [(one.name, one.pid) for one in leases(old.path.parent)] == [("run-7", holder.pid)]
        assert bench.store.prune(0).removed == ()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert leases(old.path.parent) == ()
    assert [removal.identity for removal in bench.store.prune(0).removed] == [old.identity]


def test_lines_of_the_dead_are_swept_by_the_next_lease(bench: Bench) -> None:
    (base,) = generations(bench, 1)
    with another_holder(bench) as holder:
        holder.kill()
        holder.wait()
        lines = base.path.parent / "leases"
        assert len(list(lines.iterdir())) == 1
        with bench.store.lease(base.identity, "run-8"):
            assert [path.name.split("-")[0] for path in lines.iterdir()] == [str(os.getpid())]
    assert list(lines.iterdir()) == []


def test_what_was_removed_cannot_be_leased_and_is_told_apart_from_what_never_was(bench: Bench) -> None:
    old, _current = generations(bench, 2)
    bench.store.prune(0)
    with pytest.raises(Gone, match="removed before"), bench.store.lease(old.identity, "run-1"):
        pass
    with pytest.raises(ConfigurationError, match="no base image"):
        bench.store.find("ffff")


def test_what_killed_builders_and_pruners_left_is_cleared_away_and_living_ones_are_not(bench: Bench) -> None:
    generations(bench, 1)
    bases = bench.root / "bases"
    for name in (".making-0123456789abcdef", ".removing-0123456789abcdef-00000000", ".making-fedcba9876543210"):
        (bases / name).mkdir()
        (bases / name / "base.qcow2").write_bytes(b"x" * MIB)
    with bench.store._locked("fedcba9876543210", "base", print):
        bench.store.prune()
    assert [path.name for path in bases.glob(".*")] == [".making-fedcba9876543210"]


ODD: list[tuple[str, Callable[[Path], object], str]] = [
    ("no record", lambda entry: (entry / "base.json").unlink(), "there is no base.json"),
    ("half a record", lambda entry: (entry / "base.json").write_text('{"identity": '), "no readable base image"),
    ("no object", lambda entry: (entry / "base.json").write_text("[]"), "no readable base image"),
    (
        "a field gone",
        lambda entry: (entry / "base.json").write_text('{"path": "/x"}'),
        "field identity is wrong",
    ),
    ("binary", lambda entry: (entry / "base.json").write_bytes(b"\xff\x00"), "no readable base image"),
    (
        "odd qualification",
        lambda entry: (entry / "qualification.json").write_text("{}"),
        "field passed is wrong",
    ),
    ("no image", lambda entry: (entry / "base.qcow2").unlink(), "there is no base.qcow2"),
]


@pytest.mark.parametrize(("odd", "spoil", "words"), ODD, ids=[case[0] for case in ODD])
def test_an_entry_that_cannot_be_read_hides_no_other_and_is_pruned(
    bench: Bench, odd: str, spoil: Callable[[Path], object], words: str
) -> None:
    spoilt, current = generations(bench, 2)
    spoil(spoilt.path.parent)
    listing = bench.store.listing()
    assert [entry.identity for entry in listing.entries] == [current.identity]
    assert words in listing.odd[0].problem
    assert [removal.identity for removal in bench.store.prune().removed] == [spoilt.identity]


def test_a_stranger_in_the_store_is_told_and_left_alone(bench: Bench) -> None:
    (base,) = generations(bench, 1)
    (bench.root / "bases/notes.txt").write_text("mine")
    (bench.root / "bases/old").mkdir()
    assert [odd.directory.name for odd in bench.store.listing().odd] == ["notes.txt", "old"]
    bench.store.prune(0)
    assert (bench.root / "bases/notes.txt").exists()
    assert left(bench) == {base.identity}


def named_from_the_root(record: dict[str, str], base: BaseImage) -> None:
    """Make a record what it was before the store could be mounted elsewhere."""
    record |= {"path": str(base.path), "ssh_key": str(base.ssh_key)}


def own_key(store: Path) -> Path:
    return store / "ssh/id_ed25519"


@pytest.mark.parametrize("old", [False, True], ids=["today's record", "an old record"])
@pytest.mark.parametrize("kept", [True, False], ids=["the store's key", "a key elsewhere"])
def test_a_store_can_have_another_name_for_somebody_else(bench: Bench, tmp_path: Path, old: bool, kept: bool) -> None:
    key = own_key(bench.root) if kept else tmp_path / "site/key"
    workshop = bench.store.tools
    assert workshop
    store = replace(bench.store, tools=replace(workshop, ssh_key=key))
    base = store.base(bench.definition())
    written = base.path.with_name("base.json")
    record = json.loads(written.read_text())
    assert f"{bench.root}/" not in written.read_text()
    if old:
        named_from_the_root(record, base)
        written.write_text(json.dumps(record))
    assert store.find(base.identity).base == base
    elsewhere = bench.root.with_name("elsewhere")
    bench.root.rename(elsewhere)
    entry = elsewhere / "bases" / base.identity
    there = replace(base, path=entry / "base.qcow2", ssh_key=own_key(elsewhere) if kept else key)
    assert BaseStore(elsewhere, 1 << 30).base(bench.definition()) == there
    assert read_entry(entry).qualified


def test_a_record_that_names_another_image_is_not_believed(bench: Bench) -> None:
    (base,) = generations(bench, 1)
    written = base.path.with_name("base.json")
    written.write_text(written.read_text().replace('"base.qcow2"', '"other.qcow2"'))
    with pytest.raises(InfrastructureError, match=r"its record says .*/other\.qcow2"):
        read_entry(base.path.parent)


def test_a_holder_s_line_that_is_no_record_is_no_holder() -> None:
    assert LockOwner.parse('{"name": "run-1"') is LockOwner.parse("[]") is LockOwner.parse("{}") is None


@pytest.fixture(name="small_disk")
def disk_of_eight_mib(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "size=8m") as mounted:
        yield mounted


def test_a_disk_that_fills_while_building_is_named_with_what_is_missing(small_disk: Path, tmp_path: Path) -> None:
    bench = Bench(small_disk / "images", tmp_path / "repository")
    generations(bench, 1)
    bench.builder.size = 32 * MIB
    bench.publish("large")
    with pytest.raises(
        InfrastructureError, match=f"the disk of the image store {small_disk}/images is too full"
    ) as e:
        bench.store.refresh(bench.definition())
    assert "of it were written" in e.value.message
    assert [path.name for path in (bench.root / "bases").iterdir()] == list(left(bench))
    assert "prune" in e.value.hint


def test_a_build_that_cannot_fit_is_refused_before_it_begins(small_disk: Path, tmp_path: Path) -> None:
    bench = Bench(small_disk / "images", tmp_path / "repository")
    bench.builder.size = 6 * MIB
    generations(bench, 1)
    (small_disk / "ballast").write_bytes(b"x" * 3 * MIB)
    bench.publish("next")
    with pytest.raises(InfrastructureError, match=r"only 1\.[0-9] MiB are free, [0-9.]+ MiB are missing"):
        bench.store.refresh(bench.definition())
    assert len(bench.builder.builds) == 1
    assert shutil.disk_usage(small_disk).free > MIB


def test_a_build_makes_room_on_a_disk_that_others_fill(small_disk: Path, tmp_path: Path) -> None:
    bench = Bench(small_disk / "images", tmp_path / "repository")
    bench.builder.size = 4 * MIB
    old, current = generations(bench, 2)
    (small_disk / "ballast").write_bytes(b"x" * int(2.5 * MIB))
    bench.publish("next")
    assert bench.store.refresh(bench.definition()).path.exists()
    assert (old.path.exists(), current.path.exists()) == (False, True)
