"""Files and directories: what readers see while others write, what a walk meets, and what a removal leaves."""

import errno
import json
import multiprocessing
import os
import resource
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import disk_usage, draft_of, remove_tree, tail_of, walk, write_whole
from distgate.records import read_record, write_record

WRITES = 500
SIZE = 20_000


def write_often(path: Path, letter: str) -> None:
    for _ in range(WRITES):
        write_whole(path, letter * SIZE)


def in_processes(*targets: tuple[Callable[..., None], tuple[object, ...]]) -> list[multiprocessing.Process]:
    processes = [multiprocessing.get_context("fork").Process(target=target, args=words) for target, words in targets]
    for process in processes:
        process.start()
    return processes


def test_readers_see_a_whole_file_while_several_processes_write_it_and_no_write_fails(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    write_whole(path, "a" * SIZE)
    writers = in_processes(*((write_often, (path, letter)) for letter in "abc"))
    reads = 0
    while any(writer.is_alive() for writer in writers):
        content = path.read_text()
        assert content in ("a" * SIZE, "b" * SIZE, "c" * SIZE)
        reads += 1
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert reads > 10
    assert os.listdir(tmp_path) == ["health.json"]


def write_beyond_the_limit(path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        write_whole(path, "b" * SIZE)
    except OSError as error:
        os._exit(error.errno or 0)


def test_a_write_that_fails_is_told_and_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_whole(path, "old")
    (writer,) = in_processes((write_beyond_the_limit, (path,)))
    writer.join()
    assert writer.exitcode == errno.EFBIG
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_file_has_the_permissions_that_were_asked_for(tmp_path: Path) -> None:
    write_whole(tmp_path / "secret", b"\0", mode=0o600)
    write_whole(tmp_path / "list", "x\n", mode=0o664)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("secret", "list")] == [0o600, 0o664]


def test_a_link_takes_the_place_of_another_in_one_step(tmp_path: Path) -> None:
    for target in ("first", "second"):
        with draft_of(tmp_path / "latest") as link:
            link.symlink_to(target)
        assert os.readlink(tmp_path / "latest") == target
    assert os.listdir(tmp_path) == ["latest"]


@dataclass(frozen=True)
class Disk:
    path: Path
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Machine:
    name: str
    disks: tuple[Disk, ...]
    owners: dict[str, Disk]


MACHINE = Machine("gränd\udc80", (Disk(Path("/a"), (1, 2)),), {"root": Disk(Path("b"))})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "machine.json", MACHINE)
    assert read_record(tmp_path / "machine.json", Machine) == MACHINE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"disks": [{"path": "/a", "parts": ["x"]}]}, "the field disks.0.parts.0 is wrong: "),
        ({"name": None}, "the field name is wrong: "),
        ({"owners": 5}, "the field owners is wrong: "),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "machine.json"
    write_record(path, MACHINE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change | {"new": "of a later version"}))
    with pytest.raises(InfrastructureError, match=f"^{path}: {message}"):
        read_record(path, Machine, raises=InfrastructureError)


@pytest.mark.parametrize("text", ["", '{"name": "x', "[" * 100_000], ids=["empty", "cut off", "nested"])
def test_what_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"^{path} is no JSON"):
        read_record(path, Machine)


def dig(top: Path, depth: int, name: str = "d") -> None:
    """A chain of directories that no path reaches the end of, with a file in the last one."""
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


@pytest.mark.parametrize(("depth", "name"), [(5000, "d"), (300, "long" * 60)], ids=["many", "long"])
def test_a_tree_of_any_depth_is_walked_and_removed(tmp_path: Path, depth: int, name: str) -> None:
    dig(tmp_path / "deep", depth, name)
    entries = 0
    for entry in walk(tmp_path / "deep"):
        entries += 1
        assert entry.is_directory or (entry.name, len(entry.above)) == ("last", depth)
    assert entries == depth + 1
    assert disk_usage(tmp_path / "deep") > 0
    remove_tree(tmp_path / "deep")
    assert os.listdir(tmp_path) == []


def test_a_walk_goes_by_names_follows_no_link_and_enters_what_it_is_told_to(tmp_path: Path) -> None:
    for name in ("b/x", "a/y", "a/z/file", "skipped/file"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).write_text(name)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    (tmp_path / "top/link").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "top/pipe")
    paths = [str(entry.path) for entry in walk(tmp_path / "top", lambda entry: entry.name != "skipped")]
    assert paths == ["a", "b", "link", "pipe", "skipped", "a/y", "a/z", "a/z/file", "b/x"]
    assert [entry.name for entry in walk(tmp_path / "top") if entry.is_file] == ["y", "file", "x", "file"]


def test_a_removal_follows_no_link_and_is_told_what_it_could_not_remove(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").touch()
    (tmp_path / "top/inner").mkdir(parents=True)
    (tmp_path / "top/inner/link").symlink_to(tmp_path / "outside")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    remove_tree(tmp_path / "top")
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "link")
    with pytest.raises(FileNotFoundError):
        remove_tree(tmp_path / "gone")
    remove_tree(tmp_path / "gone", ignore_errors=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "outside", "precious"]


def remove_as_nobody(top: Path) -> None:
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    remove_tree(top)


def test_a_removal_opens_what_its_owner_may_not_read_or_write(tmp_path: Path) -> None:
    (tmp_path / "top/a/b").mkdir(parents=True)
    (tmp_path / "top/a/b/file").touch()
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, *((65534, 65534) if os.geteuid() == 0 else (-1, -1)))
    for path, mode in ((tmp_path / "top/a/b", 0), (tmp_path / "top/a", 0o500), (tmp_path / "top", 0o400)):
        path.chmod(mode)
    for path in tmp_path.parents[:3]:
        path.chmod(path.stat().st_mode | 0o011)
    (remover,) = in_processes((remove_as_nobody, (tmp_path / "top",)))
    remover.join()
    assert remover.exitcode == 0
    assert os.listdir(tmp_path) == []


def test_the_tail_of_what_is_no_regular_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"begin\xff end")
    (tmp_path / "link").symlink_to("log")
    os.mkfifo(tmp_path / "pipe")
    assert [tail_of(tmp_path / name, 5) for name in ("log", "link", "pipe", "gone")] == [
        "\N{REPLACEMENT CHARACTER} end",
        "",
        "",
        "",
    ]
