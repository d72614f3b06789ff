"""A scratch build through the koji library, against a hub that speaks koji's own XML-RPC and really builds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from koji_world import KojiWorld, koji_world, spec

from distgate.builds.base import BuildHub, BuildTask, TaskLost
from distgate.builds.koji import UPLOAD_CHUNK, last_line, was_cancelled
from distgate.errors import Cancelled, ConfigurationError, DistgateError, InfrastructureError, PackageError, TimedOut
from distgate.rpm.nevra import read_rpms
from distgate.waiting import wait_for

PATIENCE = 120.0
#: Seconds that no build lasts; this session's own, for others may run on the same machine.
FOREVER = 1_000_000 + os.getpid()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[KojiWorld]:
    with koji_world(tmp_path_factory.mktemp("koji"), cache) as running:
        yield running


def silent(_: str) -> None:
    """Nobody watches."""


def running(argument: str) -> list[str]:
    """The processes that have this word on their command line."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argument in words:
            lines.append(" ".join(words))
    return lines


def build(world: KojiWorld, text: str, **files: str) -> tuple[int, BuildTask]:
    client: BuildHub = world.client()
    task_id = client.submit(world.commit(text, files), "f41", "x86_64")
    return task_id, client.wait(task_id, PATIENCE, silent)


def test_a_commit_becomes_rpms_with_their_logs(world: KojiWorld, tmp_path: Path) -> None:
    seen: list[str] = []
    client = world.client()
    task_id = client.submit(world.commit(spec()), "f41", "x86_64")
    tree = client.wait(task_id, PATIENCE, seen.append)

    assert [(child.method, child.arch, child.state) for child in tree.children] == [
        ("buildSRPMFromSCM", "noarch", "CLOSED"),
        ("buildArch", "noarch", "CLOSED"),
    ]
    assert seen[-1].strip().endswith("CLOSED")
    assert any("OPEN" in line for line in seen)
    files = {path.name: path for path in client.download(task_id, tmp_path / "room", "x86_64")}
    assert set(files) == {
        "tiny-1.2-3.fc41.noarch.rpm",
        "tiny-1.2-3.fc41.src.rpm",
        *(f"{log}.noarch.log" for log in ("build", "root", "state")),
        *(f"{log}.srpm.log" for log in ("build", "checkout", "root", "state")),
    }
    assert sorted(path.name for path in (tmp_path / "room").iterdir()) == sorted(files)
    (binary,) = read_rpms([files["tiny-1.2-3.fc41.noarch.rpm"]])
    assert binary.nevra.source_rpm == "tiny-1.2-3.fc41.src.rpm"


def test_the_target_decides_the_dist_tag(world: KojiWorld, tmp_path: Path) -> None:
    client = world.client()
    task_id = client.submit(world.commit(spec()), "rawhide", "x86_64")
    client.wait(task_id, PATIENCE, silent)
    names = [path.name for path in client.download(task_id, tmp_path, "x86_64")]
    assert "tiny-1.2-3.fc44.noarch.rpm" in names


def test_a_package_for_an_architecture_is_built_for_it(world: KojiWorld, tmp_path: Path) -> None:
    task_id, tree = build(world, spec(header="", release="%autorelease"))
    assert tree.children[1].arch == "x86_64"
    names = [path.name for path in world.client().download(task_id, tmp_path, "x86_64")]
    assert "tiny-1.2-1.fc41.x86_64.rpm" in names


# what the build script does, text of the error, text of the evidence
FAILURES = [
    ("exit 7", "see build.log", "Bad exit status"),
    ("echo > /dev/tcp/127.0.0.1/{port}", "see build.log", "Connection refused"),  # where dist-git listens
    ("test $(id -u) = 0", "see build.log", "Bad exit status"),
    ("touch /usr/bin/planted", "see build.log", "Read-only file system"),
    ("ls /proc | grep -c '^[0-9]' | (read n; test $n -gt 20)", "see build.log", "Bad exit status"),
]


@pytest.mark.parametrize(("script", "message", "evidence"), FAILURES)
def test_a_build_that_fails_is_the_packages_fault_and_shows_its_log(
    world: KojiWorld, script: str, message: str, evidence: str
) -> None:
    with pytest.raises(PackageError) as failed:
        build(world, spec(script.replace("{port}", str(world.dist_git.server_address[1]))))
    assert "buildArch (noarch) failed: BuildError: error building package (arch noarch)" in failed.value.message
    assert message in failed.value.message
    assert evidence in failed.value.evidence


def test_a_builder_that_cannot_clone_is_not_the_packages_fault(world: KojiWorld) -> None:
    client = world.client()
    task_id = client.submit(f"git+{world.dist_git.url}/rpms/nosuch.git#{'a' * 40}", "f41", "x86_64")
    with pytest.raises(TaskLost, match='command "git clone') as failed:
        client.wait(task_id, PATIENCE, silent)
    assert "not found" in failed.value.evidence


def test_the_logs_of_a_failed_build_can_be_downloaded(world: KojiWorld, tmp_path: Path) -> None:
    client = world.client()
    task_id = client.submit(world.commit(spec("exit 1")), "f41", "x86_64")
    with pytest.raises(PackageError):
        client.wait(task_id, PATIENCE, silent)
    names = {path.name for path in client.download(task_id, tmp_path, "x86_64")}
    assert {"build.noarch.log", "root.noarch.log", "checkout.srpm.log"} <= names


def test_a_missing_build_requirement_is_told_in_the_solvers_words(world: KojiWorld) -> None:
    with pytest.raises(PackageError, match=r"mock exited with status 30; see root\.log") as failed:
        build(world, spec(header="BuildArch: noarch\nBuildRequires: nosuch-devel >= 3"))
    assert "No match for argument: nosuch-devel >= 3" in failed.value.evidence
    assert "No matching package to install: 'nosuch-devel >= 3'" in failed.value.evidence


def test_a_source_with_another_checksum_is_refused(world: KojiWorld) -> None:
    with pytest.raises(PackageError, match="fedpkg sources") as failed:
        build(world, spec(), sources=f"SHA512 (tiny.tar.gz) = {'0' * 128}\n")
    assert "could not download" in failed.value.evidence

    digest = "1" * 128
    path = world.root / "lookaside/rpms/tiny/tiny.tar.gz/sha512" / digest / "tiny.tar.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not what was promised")
    with pytest.raises(PackageError, match="fedpkg sources") as failed:
        build(world, spec(), sources=f"SHA512 (tiny.tar.gz) = {digest}\n")
    assert "invalid checksum" in failed.value.evidence


def test_an_uploaded_source_package_is_built_for_the_distribution_of_its_target(
    world: KojiWorld, tmp_path: Path
) -> None:
    client: BuildHub = world.client()
    task_id = client.submit_srpm(world.source_package(spec(), tmp_path), "f41", "x86_64")
    tree = client.wait(task_id, PATIENCE, silent)
    assert [(child.method, child.arch, child.state) for child in tree.children] == [
        ("rebuildSRPM", "noarch", "CLOSED"),
        ("buildArch", "noarch", "CLOSED"),
    ]
    files = {path.name: path for path in client.download(task_id, tmp_path / "room", "x86_64")}
    assert set(files) == {
        "tiny-1.2-3.fc41.noarch.rpm",
        "tiny-1.2-3.fc41.src.rpm",
        *(f"{log}.{label}.log" for log in ("build", "root", "state") for label in ("noarch", "srpm")),
    }


def test_the_build_of_an_uploaded_package_can_fail_like_any_other(world: KojiWorld, tmp_path: Path) -> None:
    client = world.client()
    task_id = client.submit_srpm(world.source_package(spec("exit 7"), tmp_path), "f41", "x86_64")
    with pytest.raises(PackageError, match=r"buildArch \(noarch\) failed"):
        client.wait(task_id, PATIENCE, silent)


@pytest.fixture
def large(world: KojiWorld, tmp_path: Path) -> Path:
    """A source package of some chunks that no compression makes smaller."""
    (tmp_path / "SOURCES").mkdir()
    (tmp_path / "SOURCES/noise").write_bytes(os.urandom(3 * UPLOAD_CHUNK))
    return world.source_package(spec(header="BuildArch: noarch\nSource0: noise"), tmp_path)


def uploads(world: KojiWorld) -> set[Path]:
    return set((world.root / "koji/kojifiles/work").glob("cli-build/*/*.rpm"))


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_an_upload_that_is_cut_off_goes_on(world: KojiWorld, large: Path, times: int) -> None:
    client = world.client(retries=3)
    world.fault("cut", times)
    assert client.wait(client.submit_srpm(large, "f41", "x86_64"), PATIENCE, silent).state == "CLOSED"
    assert large.read_bytes() in [path.read_bytes() for path in uploads(world)]


# how the upload goes wrong, how often, a part of the error
LOST = [
    ("cut", 100, "cannot reach the hub"),
    ("corrupt", 1, "upload checksum failed"),
    ("offline", 1, "is not ready: database outage"),
]


@pytest.mark.parametrize(("fault", "times", "words"), LOST)
def test_nothing_is_built_of_an_upload_that_did_not_arrive(
    world: KojiWorld, large: Path, fault: str, times: int, words: str
) -> None:
    before = len(world.hub.builds.tasks())
    world.fault(fault, times)
    try:
        with pytest.raises(InfrastructureError, match=words):
            world.client().submit_srpm(large, "f41", "x86_64")
    finally:
        world.fault(fault, 0)
    assert len(world.hub.builds.tasks()) == before


def test_an_upload_for_an_unknown_target_is_refused_before_it_begins(world: KojiWorld, large: Path) -> None:
    before = uploads(world)
    with pytest.raises(ConfigurationError, match="no build target 'f99'"):
        world.client().submit_srpm(large, "f99", "x86_64")
    assert uploads(world) == before


@pytest.mark.parametrize(("target", "tag"), [("f41", ".fc41"), ("rawhide", ".fc44"), ("f43-candidate", ".fc43")])
def test_the_distributions_tag_is_that_of_the_targets_build_root(world: KojiWorld, target: str, tag: str) -> None:
    assert world.client().dist_tag(target) == tag


def test_an_unknown_target_is_refused_before_anything_is_submitted(world: KojiWorld) -> None:
    with pytest.raises(ConfigurationError, match="no build target 'f99'") as refused:
        world.client().submit(world.commit(spec()), "f99", "x86_64")
    assert "list-targets" in refused.value.hint


# what differs in the profile, the class of the error and a part of its text
REFUSALS: list[tuple[dict[str, object], type[DistgateError], str]] = [
    ({"password": "wrong"}, ConfigurationError, "refused us: invalid username or password"),
    ({"auth": "none"}, ConfigurationError, "you must be logged in"),
    ({"auth": "ssl", "cert": "/nonexistent.pem"}, ConfigurationError, r"cannot read /nonexistent\.pem"),
    ({"serverca": "/nonexistent.pem"}, ConfigurationError, r"cannot read /nonexistent\.pem"),
    ({"auth": "gssapi", "keytab": "/nonexistent.keytab"}, ConfigurationError, "cannot read"),
    ({"auth": "gssapi"}, ConfigurationError, "gssapi auth failed"),
    (
        {"server": "http://127.0.0.1:9/kojihub"},
        InfrastructureError,
        r"cannot reach the hub \S+: Connection refused \(",
    ),
]


@pytest.mark.parametrize(("changes", "kind", "words"), REFUSALS)
def test_who_is_to_blame_for_a_refused_submission(
    world: KojiWorld, changes: dict[str, object], kind: type[DistgateError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        world.client(**changes).submit(world.commit(spec()), "f41", "x86_64")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("offline", "is not ready: database outage"),
        ("error", "500 Server Error"),
        ("drop", "cannot reach the hub"),
    ],
)
def test_a_hub_in_trouble_is_infrastructure(world: KojiWorld, fault: str, words: str) -> None:
    world.fault(fault, 6)
    try:
        with pytest.raises(InfrastructureError, match=words):
            world.client().tree(1)
    finally:
        world.fault(fault, 0)


def test_a_wait_sits_out_a_hub_that_is_away_for_a_while(world: KojiWorld) -> None:
    seen: list[str] = []
    client = world.client()
    task_id = client.submit(world.commit(spec("sleep 1")), "f41", "x86_64")
    world.fault("offline", 4)
    assert client.wait(task_id, PATIENCE, seen.append).state == "CLOSED"
    assert any("the hub cannot be reached" in line for line in seen)


def test_a_wait_gives_up_on_a_hub_that_stays_away(world: KojiWorld) -> None:
    world.fault("offline", 100_000)
    try:
        with pytest.raises(InfrastructureError, match="outage"):
            world.client(patience=0.3).wait(1, PATIENCE, silent)
    finally:
        world.fault("offline", 0)


def test_a_build_that_takes_too_long_is_cancelled_with_its_processes(world: KojiWorld) -> None:
    client = world.client()
    task_id = client.submit(world.commit(spec(f"sleep {FOREVER}1 & sleep {FOREVER}1")), "f41", "x86_64")
    wait_for("the build script", lambda: running(f"{FOREVER}1"), PATIENCE)
    with pytest.raises(TimedOut, match=f"Koji task {task_id}") as late:
        client.wait(task_id, 0.5, silent)
    assert "buildArch (noarch) OPEN" in late.value.evidence
    assert client.tree(task_id).state == "CANCELED"
    wait_for("the end of its processes", lambda: not running(f"{FOREVER}1"), PATIENCE)


def test_somebody_elses_cancellation_ends_the_wait(world: KojiWorld) -> None:
    client = world.client()
    task_id = client.submit(world.commit(spec(f"sleep {FOREVER}2")), "f41", "x86_64")
    wait_for("the build script", lambda: running(f"{FOREVER}2"), PATIENCE)
    threading.Timer(0.5, client.cancel, [task_id]).start()
    with pytest.raises(Cancelled, match="was canceled"):
        client.wait(task_id, PATIENCE, silent)


def test_the_cancellation_of_a_part_is_nobodys_fault_although_the_build_then_fails(world: KojiWorld) -> None:
    client = world.client()
    task_id = client.submit(world.commit(spec(f"sleep {FOREVER}3")), "f41", "x86_64")
    wait_for("the build script", lambda: running(f"{FOREVER}3"), PATIENCE)
    client.cancel(client.tree(task_id).children[-1].task_id)
    with pytest.raises(Cancelled, match=f"Koji task {task_id} was canceled"):
        client.wait(task_id, PATIENCE, silent)
    assert client.tree(task_id).state == "FAILED"
    wait_for("the end of its processes", lambda: not running(f"{FOREVER}3"), PATIENCE)


def test_downloads_fall_back_on_the_hub_when_the_files_are_not_served(world: KojiWorld, tmp_path: Path) -> None:
    task_id, _ = build(world, spec())
    client = world.client(topurl="http://127.0.0.1:9/kojifiles")
    by_call = {path.name: path.read_bytes() for path in client.download(task_id, tmp_path / "call", "x86_64")}
    by_http = {path.name: path.read_bytes() for path in world.client().download(task_id, tmp_path / "http", "x86_64")}
    assert by_call == by_http
    assert len(by_call["tiny-1.2-3.fc41.noarch.rpm"]) > 1000


def test_an_unknown_task_is_a_wrong_call(world: KojiWorld) -> None:
    with pytest.raises(ConfigurationError, match="has no task 99999"):
        world.client().wait(99999, PATIENCE, silent)


def task(task_id: int, state: str, *children: BuildTask) -> BuildTask:
    return BuildTask(task_id, "buildArch", "x86_64", state, children)


@pytest.mark.parametrize(
    ("tree", "cancelled"),
    [
        (task(1, "CANCELED"), True),
        (task(1, "CANCELED", task(2, "CLOSED"), task(3, "CANCELED")), True),
        (task(1, "FAILED", task(2, "CLOSED"), task(3, "CANCELED")), True),
        (task(1, "FAILED", task(2, "FAILED"), task(3, "CANCELED")), False),
        (task(1, "FAILED", task(2, "FAILED", task(3, "CANCELED"))), True),
        (task(1, "FAILED", task(2, "CLOSED")), False),
        (task(1, "FAILED"), False),
    ],
)
def test_a_build_of_which_a_part_was_cancelled_is_not_the_packages_fault(tree: BuildTask, cancelled: bool) -> None:
    assert was_cancelled(tree) is cancelled


# what a hub may put into a fault, and what a person gets to read
FAULTS = [
    ("BuildError: error building package", "BuildError: error building package"),
    ("koji.GenericError: Task 11 is canceled\n", "Task 11 is canceled"),
    ("<class 'koji.ActionNotAllowed'>: policy violation", "policy violation"),
    ('Traceback (most recent call last):\n  File "hub.py", line 3\nkoji.BuildError: no such tag\n', "no such tag"),
    ("two lines\nof text", "two lines\nof text"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "shown"), FAULTS)
def test_of_a_traceback_only_the_last_line_is_shown(text: str, shown: str) -> None:
    assert last_line(text) == shown


def test_a_hub_with_extended_fault_messages_is_quoted_by_its_last_line(world: KojiWorld, tmp_path: Path) -> None:
    world.fault("traceback", 1)
    with pytest.raises(InfrastructureError, match="answered: query returned no rows"):
        world.client().download(99999, tmp_path, "x86_64")
