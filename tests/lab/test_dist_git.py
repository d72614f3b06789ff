"""dist-git in the lab: real pushes, the production hook's messages, and files that are served and never run."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from distgate.errors import ConfigurationError
from distgate.process import ProcessFailed
from lab.dist_git.git_receive import TOPIC, announce, receive_body
from lab.dist_git.lookaside import upload
from lab.dist_git.repository import Author, create_branch, create_repository, git, install_hook, push
from lab.dist_git.server import DistGitServer

EXAMPLES = Path(__file__).parents[1] / "data" / "messages"
NOTHING = "0" * 40
ANN = Author("ann", "Ann Packager", "ann@example.test")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = create_repository(tmp_path / "dist-git", "tiny")
    push(made, "rawhide", {"tiny.spec": "Name: tiny\n", "sources": ""}, "Import", author=ANN)
    create_branch(made, "f41", "rawhide")
    return made


@pytest.fixture
def server(tmp_path: Path, repository: Path) -> Iterator[DistGitServer]:
    (tmp_path / "artifacts" / "run 1").mkdir(parents=True)
    with DistGitServer(tmp_path / "dist-git", tmp_path / "artifacts") as running:
        yield running


def announced(repository: Path, branch: str, old: str, new: str) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    announce(repository, branch, old, new, "ann", lambda topic, body: said.append({"topic": topic, **body["commit"]}))
    return said


def keys(value: Any) -> Any:
    return {key: keys(each) for key, each in value.items() if key != "files"} if isinstance(value, dict) else None


def test_the_body_has_the_fields_of_the_production_hooks(repository: Path) -> None:
    path = next(EXAMPLES.rglob("*git.receive.php-simplepie.json"))
    theirs = json.loads(path.read_text())["msg"]
    files = {"tiny.spec": "Name: tiny\nVersion: 2\n", "a.patch": "x\ny\n"}
    rev = push(repository, "f41", files, "Two\n\nMore.", author=ANN)
    ours = receive_body(repository, "f41", rev, "ann")
    assert keys(ours) == keys(theirs)
    commit = ours["commit"]
    assert commit["stats"] == {
        "files": {
            "a.patch": {"additions": 2, "deletions": 0, "lines": 2},
            "tiny.spec": {"additions": 1, "deletions": 0, "lines": 1},
        },
        "total": {"additions": 3, "deletions": 0, "lines": 3, "files": 2},
    }
    expected = {"namespace": "rpms", "repo": "tiny", "branch": "f41", "rev": rev, "agent": "ann", "seen": False}
    expected |= {"name": "Ann Packager", "email": "ann@example.test", "summary": "Two", "message": "Two\n\nMore."}
    assert expected.items() <= commit.items()
    assert commit["path"].endswith("/repositories/rpms/tiny.git")


def test_a_push_is_one_message_per_commit_oldest_first(repository: Path) -> None:
    old = git("-C", repository, "rev-parse", "f41")
    revs = [push(repository, "f41", {"n": str(number)}, f"Change {number}") for number in (1, 2, 3)]
    said = announced(repository, "f41", old, revs[-1])
    assert [commit["rev"] for commit in said] == revs
    assert {commit["topic"] for commit in said} == {TOPIC}


def test_a_new_branch_sends_its_whole_history_and_says_what_was_seen(repository: Path) -> None:
    rev = push(repository, "f42", {"n": "1"}, "Branch", start="rawhide")
    assert [commit["seen"] for commit in announced(repository, "f42", NOTHING, rev)] == [True, False]


def test_a_deleted_branch_sends_nothing(repository: Path) -> None:
    assert announced(repository, "f41", git("-C", repository, "rev-parse", "f41"), NOTHING) == []


def test_a_persons_git_push_is_announced_by_the_hook(repository: Path, tmp_path: Path) -> None:
    install_hook(repository, {"url": f"file://{tmp_path / 'said.jsonl'}"})
    clone = tmp_path / "clone"
    git("clone", "--quiet", "--branch", "f41", repository, clone)
    (clone / "new").write_text("x")
    git("add", "new", cwd=clone)
    who = ("-c", "user.name=Bob", "-c", "user.email=bob@example.test")
    git(*who, "commit", "--quiet", "-m", "By hand", cwd=clone)
    git("push", "--quiet", "origin", "f41", cwd=clone, env={"GL_USER": "bob"})
    (line,) = (tmp_path / "said.jsonl").read_text().splitlines()
    body = json.loads(line)["body"]["commit"]
    assert (body["username"], body["name"], body["summary"]) == ("bob", "Bob", "By hand")
    assert body["rev"] == git("rev-parse", "HEAD", cwd=clone)


def test_a_push_whose_message_cannot_be_sent_is_in_all_the_same(repository: Path) -> None:
    install_hook(repository, {"url": "amqp://127.0.0.1:9/%2F"})
    rev = push(repository, "f41", {"n": "1"}, "While the broker is away")
    assert git("-C", repository, "rev-parse", "f41") == rev


def test_a_push_can_remove_files_but_not_leave_the_repository(repository: Path) -> None:
    rev = push(repository, "f41", {"sources": None, "tests/tests.yml": b"---\n"}, "Move")
    assert git("-C", repository, "ls-tree", "-r", "--name-only", rev).split() == ["tests/tests.yml", "tiny.spec"]
    for name in ("../out", ".git/config"):
        with pytest.raises(ConfigurationError, match="not a file of the repository"):
            push(repository, "f41", {name: "x"}, "Out")


@pytest.mark.parametrize("address", ["/rpms/tiny.git", "/rpms/tiny"])
def test_git_reads_over_http(server: DistGitServer, tmp_path: Path, address: str) -> None:
    git("clone", "--quiet", "--depth=1", server.url + address, tmp_path / "clone")
    assert (tmp_path / "clone" / "tiny.spec").read_text() == "Name: tiny\n"


def test_nobody_pushes_over_http(server: DistGitServer, tmp_path: Path) -> None:
    git("clone", "--quiet", f"{server.url}/rpms/tiny.git", tmp_path / "clone")
    with pytest.raises(ProcessFailed) as refused:
        git("push", "origin", "HEAD:refs/heads/x", cwd=tmp_path / "clone")
    assert "403" in refused.value.evidence


def test_the_lookaside_has_the_real_url_scheme(server: DistGitServer, tmp_path: Path) -> None:
    source = tmp_path / "tiny-1.tar.gz"
    source.write_bytes(b"\0\1\2")
    line = upload(server.root / "lookaside", "tiny", source)
    digest = line.split(" = ")[1].strip()
    assert line == f"SHA512 (tiny-1.tar.gz) = {digest}\n"
    url = f"{server.url}/repo/pkgs/rpms/tiny/tiny-1.tar.gz/sha512/{digest}/tiny-1.tar.gz"
    assert httpx.get(url).content == b"\0\1\2"
    assert httpx.get(url.replace(digest, "0" * 128)).status_code == 404


# file, its content type when served
TYPES = [
    ("build.log", "text/plain; charset=utf-8"),
    ("results.yml", "text/plain; charset=utf-8"),
    ("facts.json", "text/plain; charset=utf-8"),
    ("page.html", "text/plain; charset=utf-8"),
    ("README", "text/plain; charset=utf-8"),
    ("screen.png", "image/png"),
    ("disk.qcow2", "application/octet-stream"),
]


@pytest.mark.parametrize(("name", "content_type"), TYPES)
def test_artifacts_are_shown_and_never_run(server: DistGitServer, name: str, content_type: str) -> None:
    (server.artifacts / "run 1" / name).write_text("<script>é</script>")
    answer = httpx.get(f"{server.url}/artifacts/run%201/{name}")
    assert answer.headers["content-type"] == content_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.decode() == "<script>é</script>"
    head = httpx.head(f"{server.url}/artifacts/run%201/{name}")
    assert (head.content, head.headers["content-length"]) == (b"", "19")


def test_a_directory_is_listed(server: DistGitServer) -> None:
    (server.artifacts / "run 1" / "a<b>.log").write_text("x")
    answer = httpx.get(f"{server.url}/artifacts/run%201", follow_redirects=True)
    assert '<a href="a%3Cb%3E.log">a&lt;b&gt;.log</a>' in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/artifacts/../dist-git/repositories/rpms/tiny.git/HEAD",
        "/artifacts/%2e%2e/dist-git/repositories/rpms/tiny.git/HEAD",
        "/artifacts/link/passwd",
        "/artifacts//etc/passwd",
        "/repo/pkgs/../repositories/rpms/tiny.git/HEAD",
        "/rpms/../../artifacts/info/refs",
        "/nothing",
    ],
)
def test_nothing_outside_is_served(server: DistGitServer, path: str) -> None:
    (server.artifacts / "link").symlink_to("/etc")
    with pytest.raises(urllib.error.HTTPError) as refused:  # httpx would tidy the path up
        urllib.request.urlopen(server.url + path)
    assert refused.value.code in (403, 404, 500)
    refused.value.close()
