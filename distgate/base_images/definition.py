"""What a base image is made from: a kickstart and the state of the repositories that it installs from.

The state is one checksum, which changes when any repository does: its metadata is named and checksummed by its
``repomd.xml``; a metalink says that file's checksum itself, and a tree of OSTree is one commit. The identity of a
base image follows from both.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import httpx

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.kickstart.parser import parse
from distgate.kickstart.text import kickstart_hash

#: Seconds for one answer, and the most bytes that any of these small files may have.
ANSWER_SECONDS = 30.0
LARGEST = 16 << 20
#: Mirrors of a list that are tried before the repository counts as away.
MIRRORS_TRIED = 5

_METALINK = "{http://www.metalinker.org/}"
_CHECKSUM = re.compile(r"[0-9a-f]{64}")

Kind = Literal["baseurl", "mirrorlist", "metalink", "ostree"]


@dataclass(frozen=True)
class InstallSource:
    """A repository that a kickstart installs from: ``address`` is a URL; an ``ostree`` one also has its ``ref``."""

    name: str
    kind: Kind
    address: str
    ref: str = ""

    @property
    def place(self) -> str:
        """What RepositorySource.at takes: a directory of this host or a URL, with ``metalink+`` or ``mirrorlist+``
        before one of those."""
        if self.kind != "baseurl":
            return f"{self.kind}+{self.address}"
        address = urlsplit(self.address)
        return unquote(address.path) if address.scheme == "file" else self.address


def sources_of(kickstart: str, release: str) -> tuple[InstallSource, ...]:
    """The sources that a flattened kickstart names by ``url``, ``repo`` and ``ostreesetup``.

    ``$releasever`` and ``$basearch`` are filled in. Raises ConfigurationError when it is no kickstart or names none.
    """
    handler = parse(kickstart)
    named = [_of_command("install", handler.url), *(_of_command(repo.name, repo) for repo in handler.repo.repoList)]
    tree = handler.ostreesetup
    if tree.url:
        named.append(InstallSource(tree.osname or "ostree", "ostree", tree.url, tree.ref))
    sources = tuple(_filled_in(source, release) for source in named if source)
    if not sources:
        raise ConfigurationError("the kickstart names no repository to install from", hint="it needs url or repo")
    return sources


def snapshot_of(sources: Sequence[InstallSource]) -> str:
    """The checksum, 64 hex digits, over what every source holds now.

    Raises InfrastructureError, naming the source and its address, when one is away or says nonsense.
    """
    digest = hashlib.sha256()
    with httpx.Client(timeout=ANSWER_SECONDS, follow_redirects=True) as client:
        for source in sources:
            digest.update(f"{_state(client, source)}\n".encode())
    return digest.hexdigest()


def _of_command(name: str, command: Any) -> InstallSource | None:
    address = getattr(command, "url", "") or getattr(command, "baseurl", "")
    if address:
        return InstallSource(name, "baseurl", address)
    if command.mirrorlist:
        return InstallSource(name, "mirrorlist", command.mirrorlist)
    return InstallSource(name, "metalink", command.metalink) if command.metalink else None


def _filled_in(source: InstallSource, release: str) -> InstallSource:
    address = source.address.replace("$releasever", release).replace("$basearch", platform.machine())
    return InstallSource(source.name, source.kind, address, source.ref)


def _state(client: httpx.Client, source: InstallSource) -> str:
    if source.kind == "ostree":
        return _read(client, source, f"{source.address.rstrip('/')}/refs/heads/{source.ref}").decode().strip()
    if source.kind == "metalink":
        return _metalinked(source, _read(client, source, source.address))
    if source.kind == "mirrorlist":
        return _first_of(client, source, _read(client, source, source.address).decode("utf-8", "replace"))
    return _repomd(client, source, source.address)


def _repomd(client: httpx.Client, source: InstallSource, base: str) -> str:
    return hashlib.sha256(_read(client, source, f"{base.rstrip('/')}/repodata/repomd.xml")).hexdigest()


def _first_of(client: httpx.Client, source: InstallSource, listed: str) -> str:
    mirrors = [line.strip() for line in listed.splitlines() if line.strip() and not line.startswith("#")]
    last = _away(source, source.address, "it lists no mirror")
    for mirror in mirrors[:MIRRORS_TRIED]:
        try:
            return _repomd(client, source, mirror)
        except InfrastructureError as error:
            last = error
    raise last


def _metalinked(source: InstallSource, text: bytes) -> str:
    """The checksum of the newest repomd.xml: the alternates, further below, are those of slower mirrors."""
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise _away(source, source.address, "it is no metalink")  # entities could be made to grow for ever
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - without a document type there are no entities
    except ElementTree.ParseError as error:
        raise _away(source, source.address, f"it is no metalink: {error}") from error
    for file in root.iter(f"{_METALINK}file"):
        for checksum in file.findall(f"{_METALINK}verification/{_METALINK}hash[@type='sha256']"):
            value = (checksum.text or "").strip().lower()
            if file.get("name") == "repomd.xml" and _CHECKSUM.fullmatch(value):
                return value
    raise _away(source, source.address, "its metalink has no SHA-256 of repomd.xml")


def _read(client: httpx.Client, source: InstallSource, address: str) -> bytes:
    try:  # ValueError: an address that is none
        if urlsplit(address).scheme == "file":
            return Path(unquote(urlsplit(address).path)).read_bytes()[:LARGEST]
        with client.stream("GET", address) as answer:
            answer.raise_for_status()
            return _body(answer, source, address)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        reason = (
            f"HTTP status {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else str(error)
        )
        raise _away(source, address, reason or type(error).__name__) from error


def _body(answer: httpx.Response, source: InstallSource, address: str) -> bytes:
    body = bytearray()
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > LARGEST:
            raise _away(source, address, f"it is larger than {LARGEST >> 20} MiB")
    return bytes(body)


def _away(source: InstallSource, address: str, reason: str) -> InfrastructureError:
    return InfrastructureError(
        f"the repository {source.name} of the kickstart is away: {address}: {reason}",
        hint="the base image is as old as it is until the repository is back",
    )


@dataclass(frozen=True)
class BaseDefinition:
    """The kickstart, flattened, of one kind of image (``name``: cloud, atomic) for one branch of release
    ``release`` ("rawhide", "44")."""

    branch: str
    release: str
    kickstart: str
    name: str = "cloud"

    @property
    def kickstart_hash(self) -> str:
        """The SHA-256 of the kickstart."""
        return kickstart_hash(self.kickstart)

    @property
    def sources(self) -> tuple[InstallSource, ...]:
        """What it is installed from. ConfigurationError when that cannot be told."""
        return sources_of(self.kickstart, self.release)

    def snapshot(self) -> str:
        """The checksum over what its repositories hold now. InfrastructureError when one is away."""
        return snapshot_of(self.sources)

    def identity(self, snapshot: str) -> str:
        """Sixteen hex digits for this definition and a state of its repositories."""
        parts = "\n".join((self.branch, self.kickstart_hash, snapshot))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]
