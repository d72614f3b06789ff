"""A base image is built once, qualified before anybody uses it, and replaced only by one that is qualified."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_bases
from tiny_bases import EMULATED, OFFLINE, SAID, Bench, TinyBuilder, failing

from distgate.base_images.store import BaseStore, RefusedBase
from distgate.errors import ConfigurationError, InfrastructureError, PackageError, TimedOut
from distgate.guests.accelerator import Accelerator
from distgate.images.base import read_base
from distgate.waiting import wait_for


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "images", tmp_path / "repository")


def test_the_first_request_builds_and_qualifies_and_the_next_one_finds_it(bench: Bench) -> None:
    progress_lines: list[str] = []
    base = bench.store.base(bench.definition(), progress_lines.append)
    assert bench.store.base(bench.definition()) == base
    assert len(bench.builder.builds) == bench.guests.boots == 1
    assert [line.split()[0] for line in progress_lines[:1]] == ["base"]
    assert progress_lines[-1].startswith(f"base image {base.identity} (cloud, f41) is qualified")


def test_an_entry_holds_image_record_kickstart_log_and_qualification(bench: Bench) -> None:
    base = bench.store.base(bench.definition())
    entry = bench.root / "bases" / base.identity
    assert base.path == entry / "base.qcow2"
    record = json.loads((entry / "base.json").read_text())
    assert read_base(entry / "base.json") == base
    assert base.repositories == (str(bench.repository),)
    assert record["size"] == base.path.stat().st_blocks * 512
    assert record["steps"][0] == {"name": "install", "seconds": 1.5}
    assert (entry / "kickstart.ks").read_text() == bench.definition().kickstart
    assert (entry / "build.log").read_text() == "cloud-f41 of 41\n"
    assert json.loads((entry / "qualification.json").read_text())["accelerator"] == "tcg"
    assert bench.store.find(base.identity[:4]).facts.packages == OFFLINE
    assert base.path.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("change", ["branch", "kickstart", "repository"])
def test_another_branch_kickstart_or_repository_content_is_another_base(bench: Bench, change: str) -> None:
    first = bench.store.refresh(bench.definition())
    assert bench.store.refresh(bench.definition()) == first
    if change == "repository":
        bench.publish("second")
    changed = {"branch": {"branch": "f42"}, "kickstart": {"kickstart": "%packages\n%end\n"}}.get(change, {})
    assert bench.store.refresh(bench.definition(**changed)).identity != first.identity
    assert len(bench.builder.builds) == 2


def test_a_refresh_takes_effect_only_when_the_new_base_is_qualified(bench: Bench) -> None:
    old = bench.store.base(bench.definition())
    bench.publish("second")
    bench.guests.said = failing()
    with pytest.raises(RefusedBase):
        bench.store.refresh(bench.definition())
    assert bench.store.base(bench.definition()) == old
    bench.publish("third")
    bench.guests.said = SAID
    new = bench.store.refresh(bench.definition())
    assert bench.store.base(bench.definition()) == new != old
    assert old.path.exists()


def test_repositories_that_go_back_make_the_old_base_the_current_one_again(bench: Bench) -> None:
    first = bench.store.base(bench.definition())
    for content in ("second", "first"):
        bench.publish(content)
        bench.store.refresh(bench.definition())
    assert bench.store.base(bench.definition()) == first
    assert bench.store.listing().current["f41", "cloud"].identity == first.identity
    assert len(bench.builder.builds) == 2


def test_a_base_that_fails_its_qualification_is_named_never_used_and_not_built_again(bench: Bench) -> None:
    bench.guests.said = failing()
    for _ in range(2):
        with pytest.raises(RefusedBase, match=r"[0-9a-f]{16} \(cloud, f41\) failed .*sshd\.socket") as refused:
            bench.store.base(bench.definition())
        assert refused.value.blame == "infrastructure"
        assert not isinstance(refused.value, InfrastructureError), "a stage would be tried again in vain"
        assert "distgate images qualify" in refused.value.hint
    assert len(bench.builder.builds) == bench.guests.boots == 1


def test_a_refused_base_can_be_tried_again_and_serves_when_it_passes(bench: Bench) -> None:
    bench.guests.said = failing()
    with pytest.raises(RefusedBase):
        bench.store.base(bench.definition())
    identity = bench.store.listing().entries[0].identity
    left = bench.root / "bases" / identity / "qualification/guest-1.qcow2"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    bench.guests.said = SAID
    assert not bench.store.qualify(identity).passed
    assert left.exists()
    assert bench.store.qualify(identity, again=True).passed
    assert not left.exists(), "what a killed qualification left"
    assert bench.store.base(bench.definition()).identity == identity
    assert len(bench.builder.builds) == 1


def test_a_base_that_was_refused_under_another_accelerator_is_booted_again(bench: Bench) -> None:
    bench.accelerator = Accelerator("kvm", "it ran a boot sector", 0.01)
    bench.guests.said = failing()
    with pytest.raises(RefusedBase):
        bench.store.base(bench.definition())
    bench.accelerator, bench.guests.said = EMULATED, SAID
    assert bench.store.base(bench.definition()).path.exists()
    assert (len(bench.builder.builds), bench.guests.boots) == (1, 2)


def test_a_host_that_cannot_boot_guests_says_nothing_of_the_base(bench: Bench) -> None:
    bench.guests.refused = InfrastructureError("libvirt did not start the guest")
    with pytest.raises(InfrastructureError, match="libvirt"):
        bench.store.base(bench.definition())
    assert bench.store.listing().entries[0].qualification is None
    bench.guests.refused = None
    assert bench.store.base(bench.definition()).path.exists()
    assert len(bench.builder.builds) == 1


FAULTS = [
    (
        PackageError("nothing provides glibc", evidence="log"),
        InfrastructureError,
        "cannot be built: nothing provides",
    ),
    (TimedOut("imagefactory showed no progress"), InfrastructureError, "no progress"),
    (ConfigurationError("unknown command frob"), ConfigurationError, "frob"),
]


@pytest.mark.parametrize(("fault", "kind", "words"), FAULTS)
def test_a_build_that_fails_leaves_nothing_and_blames_no_package(
    bench: Bench, fault: InfrastructureError, kind: type[Exception], words: str
) -> None:
    bench.builder.fault = fault
    with pytest.raises(kind, match=words):
        bench.store.base(bench.definition())
    assert list((bench.root / "bases").iterdir()) == []
    bench.builder.fault = None
    assert bench.store.base(bench.definition()).path.exists()


def test_whoever_waited_for_a_build_that_failed_does_not_repeat_it(bench: Bench) -> None:
    bench.builder = TinyBuilder(bench.builder.notes, gated=True, fault=TimedOut("no progress"))
    ends: list[str] = []
    waits = threading.Event()

    def ask(progress: Callable[[str], None]) -> None:
        with pytest.raises(InfrastructureError) as failed:
            bench.store.base(bench.definition(), progress)
        ends.append(failed.value.message)

    builder = threading.Thread(target=ask, args=(print,))
    builder.start()
    wait_for("the build", lambda: bool(bench.builder.builds), 30)
    waiter = threading.Thread(target=ask, args=(lambda text: waits.set() if "waiting" in text else None,))
    waiter.start()
    assert waits.wait(30)
    (bench.repository / "go").touch()
    builder.join()
    waiter.join()
    assert ends == ["no progress"] * 2
    assert len(bench.builder.builds) == 1


@pytest.mark.parametrize("trouble", ["repository away", "build fails", "refused", "another renews it"])
def test_a_base_past_its_age_serves_on_while_no_newer_one_can_be_had(bench: Bench, trouble: str) -> None:
    old = bench.store.base(bench.definition())
    bench.max_age = 0
    bench.publish("second")
    progress_lines: list[str] = []
    if trouble == "repository away":
        (bench.repository / "repodata/repomd.xml").unlink()
    elif trouble == "build fails":
        bench.builder.fault = TimedOut("no progress")
    elif trouble == "refused":
        bench.guests.said = failing()
    with renewed_by_another(bench) if trouble == "another renews it" else noone():
        assert bench.store.base(bench.definition(), progress_lines.append) == old
        assert bench.store.base(bench.definition(), progress_lines.append) == old
    assert len(bench.builder.builds) <= 2
    assert any("serves" in text or "stays in use" in text for text in progress_lines)


def test_a_base_past_its_age_is_renewed_when_the_repositories_have_changed(bench: Bench) -> None:
    old = bench.store.base(bench.definition())
    bench.max_age = 0
    assert bench.store.base(bench.definition()) == old
    bench.publish("second")
    assert bench.store.base(bench.definition()) != old


def test_a_store_without_a_builder_says_so(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="without a builder"):
        BaseStore(bench.root, 1 << 30).base(bench.definition())


@contextmanager
def noone() -> Iterator[None]:
    yield


@contextmanager
def renewed_by_another(bench: Bench) -> Iterator[None]:
    with worker(bench, "--refresh"):
        wait_for("the other's build", lambda: len(bench.builder.builds) == 2, 30)
        yield


@contextmanager
def worker(bench: Bench, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that asks for the same base; it builds, if it has to, until there is a file ``go``."""
    words = [sys.executable, tiny_bases.__file__, bench.root, bench.repository, *options]
    started = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def told(process: subprocess.Popen[str], beginning: str) -> str:
    """The first line of a worker that begins so."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith(beginning)).strip()


def test_processes_that_ask_at_once_for_a_missing_base_build_it_once_and_say_whom_they_wait_for(
    bench: Bench,
) -> None:
    with worker(bench) as first:
        told(first, "base image")
        with worker(bench) as second, worker(bench) as third:
            wait_for("the build", lambda: bool(bench.builder.builds), 30)
            for waiter in (second, third):
                assert f"(process {first.pid}, since" in told(waiter, "waiting for base image")
            (bench.repository / "go").touch()
            assert len({told(process, "leased") for process in (second, third)}) == 1
    assert bench.builder.builds == [str(first.pid)]


def test_a_builder_killed_by_kill_9_leaves_its_place_to_the_next_and_no_half_entry(bench: Bench) -> None:
    with worker(bench) as first, worker(bench) as second:
        wait_for("the build", lambda: bool(bench.builder.builds), 30)
        builder, waiter = (first, second) if bench.builder.builds == [str(first.pid)] else (second, first)
        told(waiter, "waiting for base image")
        builder.send_signal(signal.SIGKILL)
        builder.wait()
        assert bench.store.listing().entries == ()
        (bench.repository / "go").touch()
        identity = told(waiter, "leased").split()[-1]
    assert bench.builder.builds == [str(builder.pid), str(waiter.pid)]
    assert [path.name for path in (bench.root / "bases").iterdir()] == [identity]


def test_a_base_whose_builder_died_before_it_was_qualified_is_qualified_by_the_next(bench: Bench) -> None:
    base = bench.store.base(bench.definition())
    (base.path.parent / "qualification.json").unlink()
    assert bench.store.base(bench.definition()) == base
    assert bench.guests.boots == 2
    assert len(bench.builder.builds) == 1
