"""Package lists: what people wrote stays, what a refresh wrote is replaced, and readers see one or the other."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distgate.changes.package_lists import BEGIN, END, branches_refreshed, list_for, lists_in, refreshed, write_list
from distgate.errors import ConfigurationError, InfrastructureError

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
BLOCK = f"{BEGIN}\n# 2026-11-22T04:00:00+00:00, f44.yaml\nacl\nbash\n{END}\n"


def write(directory: Path, branch: str = "f44", names: tuple[str, ...] = ("bash", "acl", "bash")) -> Path:
    return write_list(directory, branch, names, "f44.yaml", NOW).path


# what the list was, what it is afterwards
REWRITES: list[tuple[str, str, str]] = [
    ("hand-written alone", "dos2unix\n", f"dos2unix\n{BLOCK}"),
    ("no newline at its end", "dos2unix", f"dos2unix\n{BLOCK}"),
    ("empty", "", BLOCK),
    ("refreshed before", f"{BEGIN}\n# long ago\nzlib\n{END}\n", BLOCK),
    (
        "lines on both sides",
        f"# ours\nvim*  # all of vim\n\n{BEGIN}\nzlib\n{END}\n\nmesa\n",
        f"# ours\nvim*  # all of vim\n\n{BLOCK}\nmesa\n",
    ),
    ("refreshed to the same", BLOCK, BLOCK),
]


@pytest.mark.parametrize(("before", "after"), [case[1:] for case in REWRITES], ids=[case[0] for case in REWRITES])
def test_what_people_wrote_stays_and_what_a_refresh_wrote_is_replaced(
    tmp_path: Path, before: str, after: str
) -> None:
    (tmp_path / "f44.txt").write_text(before)
    assert write(tmp_path).read_text() == after
    assert [path.name for path in tmp_path.iterdir()] == ["f44.txt"]


def test_the_first_refresh_makes_the_list_and_says_what_may_be_written_there(tmp_path: Path) -> None:
    path = write(tmp_path / "lists")
    assert path == tmp_path / "lists/f44.txt"
    assert path.read_text().endswith(BLOCK)
    assert path.stat().st_mode & 0o777 == 0o644
    found = list_for(tmp_path / "lists", "f44")
    assert found is not None
    assert found.patterns == ("acl", "bash")
    assert refreshed(found) == "2026-11-22T04:00:00+00:00, f44.yaml"


@pytest.mark.parametrize(
    "text",
    [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"],
    ids=["only its beginning", "only its end", "turned round", "two beginnings", "two blocks"],
)
def test_a_list_whose_marks_are_no_pair_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "f44.txt").write_text(text)
    with pytest.raises(ConfigurationError, match="not one pair"):
        write(tmp_path)
    assert (tmp_path / "f44.txt").read_text() == text


@pytest.mark.parametrize("name", ["rawhide", "main", "master"])
def test_rawhides_list_is_refreshed_under_the_name_that_it_has(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.txt").write_text("dos2unix\n")
    assert write(tmp_path, "rawhide").name == f"{name}.txt"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_list_that_is_a_link_stays_one_and_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("dos2unix\n")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "f44.txt").symlink_to("real")
    assert write(tmp_path).is_symlink()
    assert (tmp_path / "real").read_text() == f"dos2unix\n{BLOCK}"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


def test_a_list_that_cannot_be_written_is_infrastructure_and_stays(tmp_path: Path) -> None:
    (tmp_path / "f44.txt").mkdir()
    with pytest.raises(InfrastructureError, match="cannot write the package list"):
        write(tmp_path)
    (tmp_path / "f45.txt").write_bytes(b"\xff")
    with pytest.raises(InfrastructureError, match=r"f45\.txt"):
        write(tmp_path, "f45")


def test_every_list_is_found_with_what_it_says_of_itself(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "f43.txt").write_text("bash\n")
    (tmp_path / ".f45.txt.draft").write_text("half")
    (tmp_path / "notes.md").write_text("no list")
    found = lists_in(tmp_path)
    assert {branch: bool(refreshed(one)) for branch, one in found.items()} == {"f43": False, "f44": True}
    assert branches_refreshed(tmp_path) == ("f44",)
    assert lists_in(tmp_path / "none") == {}


def test_who_reads_while_it_is_refreshed_sees_a_whole_list(tmp_path: Path) -> None:
    sets = [tuple(f"{word}{number}" for number in range(2000)) for word in ("one", "two")]
    write(tmp_path, names=sets[0])
    done = threading.Event()

    def refresh() -> None:
        for number in range(40):
            write(tmp_path, names=sets[number % 2])
        done.set()

    writer = threading.Thread(target=refresh)
    writer.start()
    looks = 0
    while not done.is_set() or not looks:
        found = list_for(tmp_path, "f44")
        assert found is not None
        assert set(found.patterns) in [set(one) for one in sets]
        looks += 1
    writer.join()
    assert os.listdir(tmp_path) == ["f44.txt"]
