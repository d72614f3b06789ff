"""The hub stand-in answers as a real hub 1.35 was recorded to answer, and loses nothing when it is restarted."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import koji
import koji.util
import koji.xmlrpcplus
import pytest
from koji_world import KojiWorld, koji_world, spec

from distgate.builds.koji import KojiClient, KojiProfile
from distgate.errors import InfrastructureError, PackageError
from distgate.process import spawn
from distgate.waiting import wait_for

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/koji/hub-recorded.json").read_text())
PATIENCE = 120.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[KojiWorld]:
    with koji_world(tmp_path_factory.mktemp("hub"), cache) as running:
        yield running


@pytest.fixture(scope="module")
def session(world: KojiWorld) -> Any:
    opened = koji.ClientSession(world.profile.server, {"user": "koji", "password": "koji", "timeout": 20})
    opened.login()
    return opened


@pytest.fixture(scope="module")
def built(world: KojiWorld) -> int:
    """A scratch build that is CLOSED."""
    task_id = world.client().submit(world.commit(spec(header="")), "f41", "x86_64")
    world.client().wait(task_id, PATIENCE, print)
    return task_id


@pytest.fixture(scope="module")
def failed(world: KojiWorld) -> int:
    task_id = world.client().submit(world.commit(spec("exit 1", header="")), "f41", "x86_64")
    with pytest.raises(PackageError):
        world.client().wait(task_id, PATIENCE, print)
    return task_id


@pytest.fixture(scope="module")
def canceled(world: KojiWorld) -> int:
    task_id = world.client().submit(world.commit(spec("sleep 600")), "f41", "x86_64")
    world.client().cancel(task_id)
    return task_id


def shape(value: Any) -> Any:
    """An answer without its particulars: the same keys and the same kinds of values."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return type(value).__name__


# recorded answer, call and its arguments; "task", "srpm" and "arch" stand for task IDs
SAME_SHAPE: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("getAPIVersion", "getAPIVersion", [], {}),
    ("getKojiVersion", "getKojiVersion", [], {}),
    ("getLoggedInUser", "getLoggedInUser", [], {}),
    ("getBuildTarget f41", "getBuildTarget", ["f41"], {}),
    ("getBuildTarget nosuch", "getBuildTarget", ["nosuch"], {}),
    ("getTaskInfo CLOSED", "getTaskInfo", ["task"], {"request": True}),
    ("getTaskInfo ASSIGNED", "getTaskInfo", ["canceled"], {}),
    ("getTaskInfo FAILED", "getTaskInfo", ["failed"], {}),
    ("getTaskChildren", "getTaskChildren", ["task"], {"request": True}),
    ("getTaskInfo unknown", "getTaskInfo", [99999], {}),
    ("getTaskChildren unknown", "getTaskChildren", [99999], {}),
    ("listTaskOutput unknown", "listTaskOutput", [99999], {}),
    ("listTaskOutput parent", "listTaskOutput", ["task"], {}),
    ("listTaskOutput parent stat", "listTaskOutput", ["task"], {"stat": True}),
    ("listTaskOutput parent all_volumes", "listTaskOutput", ["task"], {"all_volumes": True}),
    ("getTaskResult raise_fault=False", "getTaskResult", ["failed"], {"raise_fault": False}),
    ("getTaskResult arch", "getTaskResult", ["arch"], {}),
]


@pytest.mark.parametrize(("recorded", "method", "words", "named"), SAME_SHAPE, ids=[case[0] for case in SAME_SHAPE])
def test_an_answer_has_the_recorded_shape(
    session: Any,
    built: int,
    failed: int,
    canceled: int,
    recorded: str,
    method: str,
    words: list[Any],
    named: dict[str, Any],
) -> None:
    ids = {"task": built, "srpm": built + 1, "arch": built + 2, "failed": failed, "canceled": canceled}
    answer = getattr(session, method)(*(ids.get(word, word) for word in words), **named)
    expected = shape(RECORDED[recorded])
    found = shape(answer)
    if recorded == "getTaskInfo ASSIGNED":  # times and hosts come and go with the state
        expected, found = set(expected), set(found)
    if recorded == "getTaskResult arch":  # the recorded one was driven by hand and kept neither SRPM nor logs
        found |= {"srpms": [], "logs": []}
    assert found == expected


def test_descendents_are_listed_by_task_as_recorded(session: Any, built: int) -> None:
    answer = session.getTaskDescendents(built, request=True)
    theirs = RECORDED["getTaskDescendents"]
    assert list(answer) == [str(built), str(built + 1), str(built + 2)]
    assert shape(list(answer.values())) == shape(list(theirs.values()))
    labels = [(task["method"], task["arch"], task["label"], task["priority"]) for task in answer[str(built)]]
    assert labels == [(task["method"], task["arch"], task["label"], task["priority"]) for task in theirs["7"]]


@pytest.mark.parametrize("named", [{"stat": True}, {"all_volumes": True}], ids=["stat", "all_volumes"])
def test_each_file_is_listed_as_recorded(session: Any, built: int, named: dict[str, bool]) -> None:
    answer = session.listTaskOutput(built + 2, **named)
    (key,) = named
    theirs = RECORDED[f"listTaskOutput arch {key}"]
    logs = {"build.log", "root.log", "state.log"}
    assert logs <= set(answer)
    assert shape(answer["build.log"]) == shape(theirs["build.log"])


def test_the_build_request_is_labelled_by_the_client_as_recorded(session: Any, built: int) -> None:
    info = session.getTaskInfo(built, request=True)
    rev = info["request"][0].split("#")[1]
    assert koji.taskLabel(info) == f"build (f41, /rpms/tiny.git:{rev})"


# recorded fault, call and arguments
FAULTS: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("getTaskResult FAILED", "getTaskResult", ["failed"], {}),
    ("getTaskResult CANCELED", "getTaskResult", ["canceled"], {}),
    ("getTaskInfo unknown strict", "getTaskInfo", [99999], {"strict": True}),
    ("no such method", "noSuchMethod", [], {}),
    ("build anonymous", "build", ["git+http://x/rpms/a.git#b", "f41"], {}),
    ("bad password", "login", ["kojiadmin", "wrong"], {}),
]


@pytest.mark.parametrize(("recorded", "method", "words", "named"), FAULTS, ids=[case[0] for case in FAULTS])
def test_a_refusal_is_the_recorded_fault(
    world: KojiWorld,
    failed: int,
    canceled: int,
    recorded: str,
    method: str,
    words: list[Any],
    named: dict[str, Any],
) -> None:
    anonymous = koji.ClientSession(world.profile.server, {"timeout": 20})
    ids = {"failed": failed, "canceled": canceled}
    with pytest.raises(koji.GenericError) as refused:
        anonymous.callMethod(method, *(ids.get(word, word) for word in words), **named)
    theirs = RECORDED[recorded]
    assert f"koji.{type(refused.value).__name__}" == theirs["exception"]
    assert refused.value.faultCode == theirs["faultCode"]
    text = theirs["text"].removeprefix(f"{theirs['exception']}: ").replace("Task 11", f"Task {canceled}")
    assert str(refused.value) == text


def test_a_client_whose_session_has_expired_logs_in_again(world: KojiWorld) -> None:
    opened = koji.ClientSession(world.profile.server, {"user": "koji", "password": "koji", "timeout": 20})
    opened.login()
    old = dict(opened.sinfo)
    koji.ClientSession(world.profile.server, {"timeout": 20}, sinfo=old).logout()
    assert opened.getLoggedInUser()["name"] == "koji"
    assert opened.sinfo != old


def test_a_multicall_answers_every_call_with_a_result_or_a_fault(session: Any, built: int, failed: int) -> None:
    with session.multicall() as many:
        states = [many.getTaskInfo(built), many.getTaskInfo(failed)]
        unknown = many.getTaskInfo(99999, strict=True)
    assert [call.result["state"] for call in states] == RECORDED["multicall"]
    with pytest.raises(koji.GenericError, match="query returned no rows"):
        unknown.result  # noqa: B018


def test_a_file_can_be_read_in_pieces(session: Any, built: int) -> None:
    whole = session.downloadTaskOutput(built + 2, "build.log")
    assert session.downloadTaskOutput(built + 2, "build.log", offset=5, size=20) == whole[5:25]
    assert session.downloadTaskOutput(built + 2, "build.log", offset=-10) == whole[-10:]
    with pytest.raises(koji.GenericError, match="no file"):
        session.downloadTaskOutput(built + 2, "../../../../tasks/1.json")


def raw_upload(session: Any, name: str, chunk: bytes, offset: int, **options: Any) -> Any:
    return session.callMethod("rawUpload", chunk, offset, options.pop("path", "cli-build/here"), name, **options)


def test_chunks_are_written_where_they_belong_and_what_arrived_is_told(session: Any) -> None:
    first = raw_upload(session, "a.src.rpm", b"one", 0, overwrite=True)
    assert first == {"size": 3, "fileverify": "adler32", "offset": 0, "hexdigest": adler32(b"one")}
    raw_upload(session, "a.src.rpm", b"two!", 3)
    again = raw_upload(session, "a.src.rpm", b"two!", 3)  # whose answer was lost
    assert again["offset"] == 3
    known = session.checkUpload("cli-build/here", "a.src.rpm", verify="sha256")
    assert (known["size"], known["hexdigest"]) == (7, hashlib.sha256(b"onetwo!").hexdigest())
    tail = session.checkUpload("cli-build/here", "a.src.rpm", verify="adler32", tail=4)
    assert (tail["sumlength"], tail["hexdigest"]) == (4, adler32(b"two!"))
    assert session.checkUpload("cli-build/here", "b.src.rpm") is None


def adler32(content: bytes) -> str:
    return str(koji.util.adler32_constructor(content).hexdigest())


# name and directory, offset, options, a part of the refusal
REFUSED_UPLOADS: list[tuple[str, str, int, dict[str, Any], str]] = [
    ("../x", "cli-build/here", 0, {}, "Invalid upload filename"),
    (".x", "cli-build/here", 0, {}, "Invalid upload filename"),
    ("x", "../there", 0, {}, "Invalid upload directory"),
    ("x", "/tmp", 0, {}, "Invalid upload directory"),
    ("x", "cli-build/../tasks/1/1", 0, {}, "Invalid upload directory"),
    ("there", "cli-build/here", 0, {}, "upload path exists"),
    ("there", "cli-build/here", 1, {}, "Incorrect upload length"),
    ("there", "cli-build/here", 0, {"overwrite": True, "verify": "crc32"}, "Unsupported verify type"),
]


@pytest.mark.parametrize(("name", "path", "offset", "options", "words"), REFUSED_UPLOADS)
def test_an_upload_out_of_place_is_refused(
    session: Any, name: str, path: str, offset: int, options: dict[str, Any], words: str
) -> None:
    raw_upload(session, "there", b"some bytes", 0, overwrite=True)
    with pytest.raises(koji.GenericError, match=words):
        raw_upload(session, name, b"x", offset, path=path, **options)


def test_an_upload_needs_a_login(world: KojiWorld) -> None:
    answer = httpx.post(
        f"{world.profile.server}?filename=x&filepath=cli-build/here",
        headers={"Content-Type": "application/octet-stream"},
        content=b"x",
    )
    with pytest.raises(koji.xmlrpcplus.Fault, match="you must be logged in"):
        koji.xmlrpcplus.loads(answer.text)


def test_a_source_package_that_nobody_uploaded_fails_the_task(session: Any) -> None:
    task_id = session.build("cli-build/nowhere/x.src.rpm", "f41", {"scratch": True})
    wait_for("the task's end", lambda: session.getTaskInfo(task_id)["state"] == 5, PATIENCE)
    with pytest.raises(koji.BuildError, match="Input SRPM file missing"):
        session.getTaskResult(task_id)


# target, options, text of the fault that the task ends with
ACCEPTED_AND_FAILED = [
    ("f99", {"scratch": True}, "unknown build target: f99"),
    ("f41", {"arch_override": "x86_64"}, "arch_override is only allowed for scratch builds"),
]


@pytest.mark.parametrize(("target", "options", "words"), ACCEPTED_AND_FAILED)
def test_some_builds_are_accepted_and_fail_in_their_task(
    world: KojiWorld, session: Any, target: str, options: dict[str, Any], words: str
) -> None:
    task_id = session.build(world.commit(spec()), target, options)
    wait_for("the task's end", lambda: session.getTaskInfo(task_id)["state"] == 5, PATIENCE)
    with pytest.raises(koji.GenericError, match=words):
        session.getTaskResult(task_id)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("git+http://elsewhere.example/rpms/a.git#{0}", "is not in the list of allowed SCMs"),
        ("svn://elsewhere.example/rpms/a#{0}", "Invalid SCM URL"),
        ("{1}/rpms/nosuch.git#{0}", "Error running GIT.HTTP command \"git clone"),
        ("{1}/rpms/tiny.git#{0}", "Error running GIT.HTTP command \"git -C"),
    ],
)  # fmt: skip
def test_sources_that_cannot_be_checked_out_fail_the_task(
    world: KojiWorld, session: Any, built: int, source: str, words: str
) -> None:
    task_id = session.build(source.format("a" * 40, f"git+{world.dist_git.url}"), "f41", {"scratch": True})
    wait_for("the task's end", lambda: session.getTaskInfo(task_id)["state"] == 5, PATIENCE)
    with pytest.raises(koji.GenericError, match=words):
        session.getTaskResult(task_id)


class Process:
    """The hub as an own process, as the lab runs it."""

    def __init__(self, state: Path, cache: Path, dist_git: str, log: Path) -> None:
        words = ["--state", str(state), "--cache", str(cache), "--dist-git", dist_git]
        log.write_text("")
        self.child: subprocess.Popen[bytes] = spawn([sys.executable, "-m", "lab.koji.hub", *words], log_to=log)
        self.url = wait_for(
            "the hub's address",
            lambda: next((line for line in log.read_text().splitlines() if line.startswith("http://")), None),
            PATIENCE,
        )

    def client(self) -> KojiClient:
        profile = KojiProfile(f"{self.url}/kojihub", f"{self.url}/kojifiles", "password", "koji", "koji")
        return KojiClient(profile)

    def end(self, number: int) -> None:
        self.child.send_signal(number)
        self.child.wait(PATIENCE)


def sleeping(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in path.read_bytes().decode("utf-8", "replace").split("\0"):
                found.append(path.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: signal.Signals(number).name)
def test_a_hub_that_ends_takes_its_builds_along_and_remembers_the_rest(
    world: KojiWorld, cache: Path, tmp_path: Path, number: signal.Signals
) -> None:
    word = str(86420 + number)
    hub = Process(tmp_path / "hub", cache, world.dist_git.url, tmp_path / "hub.log")
    done = hub.client().submit(world.commit(spec()), "f41", "x86_64")
    hub.client().wait(done, PATIENCE, print)
    interrupted = hub.client().submit(world.commit(spec(f"sleep {word} & sleep {word}")), "f41", "x86_64")
    wait_for("the build script", lambda: sleeping(word), PATIENCE)
    hub.end(number)
    wait_for("the end of the build", lambda: not sleeping(word), PATIENCE)

    again = Process(tmp_path / "hub", cache, world.dist_git.url, tmp_path / "hub.log")
    try:
        assert again.client().tree(done).state == "CLOSED"
        assert any(path.suffix == ".rpm" for path in again.client().download(done, tmp_path / "room", "x86_64"))
        if number == signal.SIGKILL:
            with pytest.raises(InfrastructureError, match="the hub was restarted"):
                again.client().wait(interrupted, PATIENCE, print)
        else:
            assert again.client().tree(interrupted).state == "CANCELED"
    finally:
        again.end(signal.SIGTERM)
    assert not list((tmp_path / "hub" / "building").iterdir())
