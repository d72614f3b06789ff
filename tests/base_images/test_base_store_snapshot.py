"""The state of the repositories: it changes when one of them does, and a repository that is away is named."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from distgate.base_images.definition import InstallSource, Kind, snapshot_of, sources_of
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.kickstart.definition import definition_for, flatten
from distgate.rpm.transaction import RepositorySource

METALINK = """<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files><file name="repomd.xml">
  <mm0:timestamp>1700000000</mm0:timestamp>
  <verification><hash type="md5">d41d8cd98f00b204e9800998ecf8427e</hash>
   <hash type="sha256">{newest}</hash></verification>
  <mm0:alternates><mm0:alternate><verification><hash type="sha256">{older}</hash></verification></mm0:alternate>
  </mm0:alternates>
  <resources maxconnections="1"><url protocol="https" type="https">https://mirror.example/repomd.xml</url></resources>
 </file></files>
</metalink>
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What the server serves: a repository, lists of mirrors, a tree of OSTree."""
    site = tmp_path / "site"
    publish(site, "first")
    return site


@pytest.fixture
def url(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    (site / "mirrors").write_text(f"# a list\n\n{address}/gone/\n{address}/repo/\n")
    yield address
    server.shutdown()
    server.server_close()


def publish(site: Path, content: str) -> None:
    for directory in ("repo/repodata", "tree/refs/heads/fedora"):
        (site / directory).mkdir(parents=True, exist_ok=True)
    (site / "repo/repodata/repomd.xml").write_text(content)
    newest = hashlib.sha256(content.encode()).hexdigest()
    (site / "metalink").write_text(METALINK.format(newest=newest, older="0" * 64))
    (site / "tree/refs/heads/fedora/atomic").write_text(f"{newest}\n")


KINDS: list[tuple[Kind, str, str]] = [
    ("baseurl", "repo", ""),
    ("baseurl", "repo/", ""),
    ("mirrorlist", "mirrors", ""),
    ("metalink", "metalink", ""),
    ("ostree", "tree", "fedora/atomic"),
]


@pytest.mark.parametrize(("kind", "path", "ref"), KINDS)
def test_a_snapshot_changes_when_the_content_does_and_not_otherwise(
    site: Path, url: str, kind: Kind, path: str, ref: str
) -> None:
    source = InstallSource("tiny", kind, f"{url}/{path}", ref)
    first = snapshot_of([source])
    assert snapshot_of([source]) == first
    publish(site, "second")
    assert snapshot_of([source]) != first


def test_one_content_is_one_snapshot_however_it_is_reached(site: Path, url: str) -> None:
    ways = [InstallSource("tiny", kind, f"{url}/{path}", ref) for kind, path, ref in KINDS]
    ways.append(InstallSource("tiny", "baseurl", (site / "repo").as_uri()))
    assert len({snapshot_of([way]) for way in ways}) == 1


AWAY: list[tuple[Kind, str, str]] = [
    ("baseurl", "nothing", "HTTP status 404"),
    ("mirrorlist", "gone/mirrors", "HTTP status 404"),
    ("mirrorlist", "empty", "it lists no mirror"),
    ("metalink", "repo/repodata/repomd.xml", "it is no metalink"),
    ("metalink", "hashless", "no SHA-256 of repomd.xml"),
    ("metalink", "bomb", "it is no metalink"),
    ("ostree", "nothing", "HTTP status 404"),
]


@pytest.mark.parametrize(("kind", "path", "words"), AWAY)
def test_a_repository_that_is_away_or_says_nonsense_is_named(
    site: Path, url: str, kind: Kind, path: str, words: str
) -> None:
    (site / "empty").touch()
    (site / "hashless").write_text(METALINK.format(newest="?", older="0" * 64))
    (site / "bomb").write_text('<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')
    with pytest.raises(InfrastructureError, match=rf"the repository tiny .* is away: {url}/{path}.*{words}"):
        snapshot_of([InstallSource("tiny", kind, f"{url}/{path}", "fedora/atomic")])


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/repo", "file:///no/such/repo", "gopher://x/", "http://[/"])
def test_an_address_nobody_answers_at_is_infrastructure(address: str) -> None:
    with pytest.raises(InfrastructureError, match="is away"):
        snapshot_of([InstallSource("tiny", "baseurl", address)])


def test_the_sources_of_a_kickstart_are_its_url_its_repos_and_its_tree() -> None:
    found = sources_of(
        "url --mirrorlist=http://m/$releasever\n"
        "repo --name=updates --metalink=http://l/$releasever\n"
        "repo --name=own --baseurl=file:///srv/repo\n"
        "ostreesetup --osname=fedora --url=http://t/ --ref=f/41\n",
        "41",
    )
    assert [(one.name, one.kind, one.place, one.ref) for one in found] == [
        ("install", "mirrorlist", "mirrorlist+http://m/41", ""),
        ("updates", "metalink", "metalink+http://l/41", ""),
        ("own", "baseurl", "/srv/repo", ""),
        ("fedora", "ostree", "ostree+http://t/", "f/41"),
    ]


@pytest.mark.parametrize("kind", ["baseurl", "mirrorlist", "metalink"])
def test_the_place_of_a_source_leads_a_transaction_to_the_same_packages(kind: Kind) -> None:
    place = InstallSource("tiny", kind, "http://m/list?a=b+c").place
    assert asdict(RepositorySource.at("tiny", place))[kind] == "http://m/list?a=b+c"


@pytest.mark.parametrize(
    ("text", "words"), [("lang C.UTF-8\n", "names no repository"), ("frobnicate\n", "Unknown command: frobnicate")]
)
def test_a_text_that_names_no_repository_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        sources_of(text, "41")


@pytest.mark.parametrize("branch", ["rawhide", "f44"])
def test_the_sources_of_our_own_definitions_are_mirrors_without_variables(branch: str) -> None:
    found = sources_of(flatten(definition_for(branch)), branch.removeprefix("f"))
    assert found
    assert not any("$" in one.address for one in found)
