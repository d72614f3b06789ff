"""The kickstart of an installed image names the compose, and nothing is installed that is not at the ref's head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from distgate.atomic.guest import check_served
from distgate.atomic.image_methods import InstalledImage
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.kickstart.base import BuiltImage
from distgate.kickstart.definition import OstreeSource, definition_for, read_text
from distgate.kickstart.parser import parse
from distgate.ostree.base import ComposedTree
from distgate.steps import Progress

#: Of each branch; the newest that pykickstart knows where there is none.
SYNTAX = {"rawhide": "", "f43": "F43", "f44": "F44", "f45": "F45"}
REV = "a1" * 32
TREE = ComposedTree("fedora/f43/x86_64/atomic-host", REV, "43.2", None, (), (), (), "dnf", 0)
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJustAnExample0000000000000000000000000000 tests"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key.pub").write_text(f"{PUBLIC}\n")
    return tmp_path / "key"


class NeverBuilds:
    """An ImageBuilder that must not be asked."""

    def build(
        self,
        kickstart: str,
        name: str,
        release: str,
        into: Path,
        timeout: float,
        progress: Progress = lambda _line: None,
    ) -> BuiltImage:
        raise AssertionError("nothing was to be built")


def installed(branch: str) -> InstalledImage:
    return InstalledImage(NeverBuilds(), definition_for(branch, "atomic"), branch, 1)


@pytest.mark.parametrize("branch", SYNTAX)
def test_the_edited_kickstart_of_a_branch_deploys_the_compose_and_lets_the_key_in(branch: str, key: Path) -> None:
    text = installed(branch).text(TREE, "http://trees.example.org/f43/ostree", key)
    parse(text, syntax=SYNTAX[branch], strict=True)
    definition = read_text(text, syntax=SYNTAX[branch])
    assert definition.ostree == OstreeSource(
        "fedora-atomic", "fedora-atomic", "http://trees.example.org/f43/ostree", TREE.ref
    )
    assert definition.requests == ()
    assert PUBLIC in definition.root_keys


def test_an_address_that_no_kickstart_can_hold_is_refused(key: Path) -> None:
    with pytest.raises(ConfigurationError, match="no URL"):
        installed("f43").text(TREE, "http://trees.example.org/$(id)", key)


@contextmanager
def repository(place: Path, head: str | None) -> Iterator[str]:
    """The URL of a repository whose ref is ``head``, served over http."""
    if head:
        ref = place / "refs/heads" / TREE.ref
        ref.parent.mkdir(parents=True)
        ref.write_text(f"{head}\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(place)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


#: What the ref is, and the words of the refusal.
HEADS = (("b2" * 32, "serves b2b2b2b2b2b2 as fedora/f43/x86_64/atomic-host, not a1a1a1a1a1a1"), (None, "answers 404"))


@pytest.mark.parametrize(("head", "words"), HEADS)
def test_an_installer_is_not_started_for_a_compose_that_it_would_not_find(
    head: str | None, words: str, key: Path, tmp_path: Path
) -> None:
    with repository(tmp_path, head) as url, pytest.raises(InfrastructureError, match=words):
        installed("f43").make(tmp_path, TREE, url, key, tmp_path / "image.qcow2")


def test_a_compose_at_the_head_is_served_and_one_behind_a_closed_port_is_not(tmp_path: Path) -> None:
    with repository(tmp_path, REV) as url:
        check_served(url, TREE)
    with pytest.raises(InfrastructureError, match=f"the repository {url} does not answer"):
        check_served(url, TREE)
