"""The commands about base images: what they print, and how they end."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from tiny_bases import Bench, failing

from distgate.base_images.store import RefusedBase
from distgate.cli.images import format_age
from distgate.process import Completed, run


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "images", tmp_path / "repository")


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A store with one base."""
    scratch = tmp_path_factory.mktemp("stocked")
    bench = Bench(scratch / "images", scratch / "repository")
    bench.store.base(bench.definition())
    return bench


def images(bench: Bench, *words: str, **settings: str) -> Completed:
    own = f"from distgate.cli.main import main; main({['images', *words]!r})"
    env = {"DISTGATE_IMAGE_STORE": str(bench.root), "DISTGATE_GUESTS_DIR": str(bench.root / "guests")}
    env |= {f"DISTGATE_{name}": value for name, value in settings.items()}
    return run([sys.executable, "-c", own], timeout=60, env=env, allowed=range(256), split_errors=True)


def refused(bench: Bench) -> str:
    """The identity of a base that failed its qualification."""
    bench.guests.said = failing()
    with pytest.raises(RefusedBase):
        bench.store.refresh(bench.definition("f42"))
    return next(entry.identity for entry in bench.store.listing().entries if entry.refused)


def test_list_shows_age_size_lease_holders_and_qualification(bench: Bench) -> None:
    base = bench.store.base(bench.definition())
    other = refused(bench)
    (bench.root / "bases/odd").mkdir()
    with bench.store.lease(base.identity, "run-9"):
        told = images(bench, "list")
    assert told.returncode == 0
    lines = {line.split()[0]: line for line in told.output.splitlines() if line.strip()}
    for words in ("cloud", "f41 (current)", " s ", "KiB", "qualified", "run-9 (process "):
        assert words in lines[base.identity]
    assert "refused: units failed: sshd.socket" in lines[other]
    assert "not readable: " in told.errors
    assert "2 base images take" in told.errors


def test_list_as_json_is_one_object_on_standard_output(bench: Bench) -> None:
    base = bench.store.base(bench.definition())
    other = refused(bench)
    (bench.root / "bases/odd").mkdir()
    with bench.store.lease(base.identity, "run-9"):
        told = json.loads(images(bench, "list", "--json").output)
    assert told["root"] == str(bench.root)
    assert told["size"] >= sum(one["size"] for one in told["bases"])
    assert [Path(one["path"]).name for one in told["unreadable"]] == ["odd"]
    known = {one["identity"]: one for one in told["bases"]}
    assert known[base.identity]["current"] is True
    assert known[base.identity]["status"] == "qualified"
    assert [one["name"] for one in known[base.identity]["leases"]] == ["run-9"]
    assert known[other]["status"] == "refused"
    assert known[other]["qualification"]["reasons"] == ["units failed: sshd.socket"]


def test_prune_says_what_went_and_why_the_rest_stays(bench: Bench) -> None:
    old = bench.store.base(bench.definition())
    bench.publish("second")
    new = bench.store.refresh(bench.definition())
    tried = images(bench, "prune", "--limit", "1M", "--dry-run")
    assert f"{old.identity}  would be removed" in tried.output
    assert old.path.exists()
    told = images(bench, "prune", "--limit", "1M")
    assert told.returncode == 0
    assert f"{old.identity}  removed" in told.output
    assert "the current one of f41" in told.output
    assert "the limit is 1.0 MiB" in told.errors
    assert (old.path.exists(), new.path.exists()) == (False, True)
    left = json.loads(images(bench, "prune", "--json").output)
    assert (left["removed"], left["within_limit"]) == ([], True)


def test_the_bases_of_a_branch_that_has_ended_go_when_nobody_leases_them(bench: Bench) -> None:
    ended, other = (bench.store.base(bench.definition(branch)) for branch in ("f40", "f41"))
    with bench.store.lease(ended.identity, "run-9"):
        assert "leased by run-9" in images(bench, "prune", "--ended", "f40").output
    told = images(bench, "prune", "--ended", "f40")
    assert re.search(rf"{ended.identity}  removed .*its branch has ended", told.output)
    assert (ended.path.exists(), other.path.exists()) == (False, True)


def test_qualify_tells_what_is_remembered_and_ends_with_2_for_a_refused_base(bench: Bench) -> None:
    base = bench.store.base(bench.definition())
    told = images(bench, "qualify", base.identity[:6])
    assert (told.returncode, "qualified" in told.output) == (0, True)
    other = refused(bench)
    told = images(bench, "qualify", "--branch", "f42", "--json")
    assert told.returncode == 2
    assert [one["identity"] for one in json.loads(told.output)["bases"]] == [other]
    assert told.errors.startswith(f"distgate: base image {other} (cloud, f42) failed its qualification")
    assert f"hint: not the package's fault; distgate images qualify {other} --again" in told.errors
    assert "nothing" not in images(bench, "qualify").output


WRONG: list[tuple[list[str], dict[str, str], str]] = [
    (["prune", "--limit", "much"], {}, "'much' is no size"),
    (["prune", "--ended", "f99"], {}, "no base image of branch f99"),
    (["qualify", "ffff"], {}, "no base image in"),
    (["qualify", "ffff", "--branch", "f41"], {}, "which base images?"),
    (["qualify", "--branch", "f99"], {}, "no base image of branch f99"),
    (["refresh", "--branch", "f19"], {}, "no cloud image for branch f19"),
    (["refresh", "--branch", "f41", "--kickstart", "/no/such.ks"], {}, "no kickstart /no/such.ks"),
    (["list"], {"IMAGE_STORE": "/no/such"}, "there is no image store /no/such"),
    (["list"], {"IMAGE_STORE_LIMIT": "much"}, "the setting DISTGATE_IMAGE_STORE_LIMIT is wrong: 'much' is no size"),
]


@pytest.mark.parametrize(("words", "settings", "sentence"), WRONG, ids=[" ".join(case[0]) for case in WRONG])
def test_a_wrong_call_is_one_sentence_and_a_hint(
    stocked: Bench, words: list[str], settings: dict[str, str], sentence: str
) -> None:
    told = images(stocked, *words, **settings)
    assert told.returncode == 2
    assert told.output == ""
    assert sentence in told.errors
    assert "hint: " in told.errors
    assert "Traceback" not in told.errors


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (100, "100 s"), (300, "5 min"), (10000, "3 h"), (1e6, "12 d")]
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert format_age(seconds) == text
