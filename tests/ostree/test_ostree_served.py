"""A branch's repository is served as plain files; clients pull, upgrade by the delta, and check signatures."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiny_trees import REF, Packages, composed

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.ostree.repository import SigningKey
from distgate.process import ProcessFailed, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="installing into a directory takes root")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return Packages.built(tmp_path_factory.mktemp("packages"))


@dataclass
class Web:
    """An http server of a directory, and the paths that were asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            served.asked.append(self.path)

        def log_error(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    served = Web(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served
    server.shutdown()


@dataclass(frozen=True)
class Client:
    """A machine's own repository with one remote."""

    path: Path

    @classmethod
    def of(cls, path: Path, url: str, *options: str) -> Client:
        run(["ostree", "init", f"--repo={path}", "--mode=bare-user"], timeout=60)
        run(["ostree", "remote", "add", f"--repo={path}", *options, "origin", url, REF], timeout=60)
        return cls(path)

    def pull(self) -> str:
        """Pull the ref, and what it points to then."""
        run(["ostree", "pull", f"--repo={self.path}", "origin"], timeout=60)
        return run(["ostree", "rev-parse", f"--repo={self.path}", f"origin:{REF}"], timeout=60).output.strip()


def test_a_client_pulls_a_tree_and_upgrades_by_the_static_delta(tmp_path: Path, packages: Packages, web: Web) -> None:
    trees, first = packages.branch(tmp_path / "f41")
    client = Client.of(tmp_path / "client", f"{web.url}/f41/ostree", "--no-gpg-verify")
    assert client.pull() == first.rev

    second = composed(trees, packages, "tool-3.0")
    web.asked.clear()
    assert client.pull() == second.rev
    fetched = [path.rpartition("/")[2] for path in web.asked if "/deltas/" in path]
    assert fetched == ["superblock", "0"]
    # Which the delta brings as well: ostree may ask for an object before it has unpacked the delta.
    assert len([path for path in web.asked if path.endswith(".filez")]) < 2
    checked_out = tmp_path / "tree"
    run(["ostree", "checkout", "-U", f"--repo={client.path}", second.rev, checked_out], timeout=60)
    assert (checked_out / "usr/share/tool").is_dir()
    assert os.readlink(checked_out / "home") == "var/home"


def test_a_client_follows_a_withdrawal(tmp_path: Path, packages: Packages, web: Web) -> None:
    trees, good = packages.branch(tmp_path / "f41")
    client = Client.of(tmp_path / "client", f"{web.url}/f41/ostree", "--no-gpg-verify")
    bad = composed(trees, packages, "tool-3.0", accepted=False)
    assert client.pull() == bad.rev
    trees.withdraw(bad)
    assert Client.of(tmp_path / "other", f"{web.url}/f41/ostree", "--no-gpg-verify").pull() == good.rev


@pytest.fixture
def key() -> Iterator[SigningKey]:
    # In a short path: the agent's socket lies there.
    home = Path(tempfile.mkdtemp(prefix="gpg-"))
    home.chmod(0o700)
    words = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
    run([*words, "--quick-generate-key", "distgate tests <tests@localhost>", "rsa2048", "sign"], timeout=120)
    said = run([*words, "--list-secret-keys", "--with-colons"], timeout=60).output
    identity = next(line.split(":")[9] for line in said.splitlines() if line.startswith("fpr:"))
    run([*words, "--output", home / "public.gpg", "--export", identity], timeout=60)
    yield SigningKey("gpg", identity, home)
    run(["gpgconf", "--homedir", home, "--kill", "all"], timeout=60)
    shutil.rmtree(home, ignore_errors=True)


def test_a_client_that_asks_for_signatures_gets_signed_commits_and_summaries(
    tmp_path: Path, packages: Packages, web: Web, key: SigningKey
) -> None:
    assert key.home
    trees, unsigned = packages.branch(tmp_path / "f41")
    options = (f"--gpg-import={key.home / 'public.gpg'}", "--set=gpg-verify=true", "--set=gpg-verify-summary=true")
    client = Client.of(tmp_path / "client", f"{web.url}/f41/ostree", *options)
    with pytest.raises(ProcessFailed) as refused:
        client.pull()
    assert "GPG" in refused.value.evidence
    assert not unsigned.signed

    signing, _ = packages.branch(tmp_path / "f42", signing=key)
    signed = composed(signing, packages, "tool-3.0")
    assert signed.signed
    client = Client.of(tmp_path / "other", f"{web.url}/f42/ostree", *options)
    assert client.pull() == signed.rev
    signing.withdraw(signed)  # nothing to withdraw: it was accepted
    assert client.pull() == signed.rev
    assert trees.head() == unsigned.rev


NOBODYS = SigningKey("gpg", "0123456789ABCDEF", Path("/nonexistent"))
BAD_KEYS: tuple[tuple[str, SigningKey, type[DistgateError], str], ...] = (
    ("a key that nobody has", NOBODYS, InfrastructureError, "signed"),
    ("a file that is not there", SigningKey("ed25519", "/nonexistent"), ConfigurationError, "ed25519"),
)


@pytest.mark.parametrize(
    ("wrong", "kind", "words"), [case[1:] for case in BAD_KEYS], ids=[case[0] for case in BAD_KEYS]
)
def test_what_cannot_be_signed_is_not_published(
    tmp_path: Path, packages: Packages, wrong: SigningKey, kind: type[DistgateError], words: str
) -> None:
    trees, good = packages.branch(tmp_path / "f41", signing=wrong)
    with pytest.raises(kind, match=words):
        composed(trees, packages, "tool-3.0")
    assert trees.head() == good.rev
