"""The sources of a package that are not in its repository: fetched from the lookaside cache, each file checked."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from distgate.errors import InfrastructureError, PackageError
from distgate.waiting import Deadline

#: How Fedora addresses a source file; the parts in braces are filled in.
FEDORA = "https://src.fedoraproject.org/repo/pkgs/{namespace}/{repo}/{file}/{hashtype}/{hash}/{file}"
_LINE = re.compile(r"(?P<kind>MD5|SHA256|SHA512) \((?P<file>[^()/ ]+)\) = (?P<hash>[0-9a-f]+)")
_OLD_LINE = re.compile(r"(?P<hash>[0-9a-f]{32})  ?\*?(?P<file>[^()/ ]+)")
_DIGITS = {"md5": 32, "sha256": 64, "sha512": 128}
_LISTING = 1 << 20
_GONE = (404, 410)


@dataclass(frozen=True)
class Source:
    """One line of a ``sources`` file; ``kind`` is md5, sha256 or sha512."""

    file: str
    kind: str
    digest: str


@dataclass(frozen=True)
class Lookaside:
    """A lookaside cache: ``address`` is that of a file, with {namespace}, {repo}, {file}, {hashtype} and {hash}.

    An md5 file is also looked for without the part {hashtype}, as addresses had it before there were other kinds.
    ``limit`` is in bytes, for all sources of one package; ``timeout`` in seconds, likewise.
    """

    address: str = FEDORA
    timeout: float = 1800.0
    limit: int = 4 << 30

    def fetch(self, listing: Path, namespace: str, repo: str, into: Path) -> tuple[Source, ...]:
        """Put the files that the ``sources`` file ``listing`` names into ``into`` and return its lines.

        A ``listing`` that does not exist names none. A file of the same name in ``into`` is replaced. Raises
        PackageError for a line that cannot be read, a file that was never uploaded and more than ``limit`` bytes,
        InfrastructureError when the cache cannot be read in time or has something else under a checksum.
        """
        sources = read_sources(listing)
        deadline, remaining = Deadline(self.timeout), self.limit
        # A tar.gz is the file, not its encoding: what arrives is what was uploaded.
        plain = {"Accept-Encoding": "identity"}
        with httpx.Client(timeout=60.0, follow_redirects=True, headers=plain) as client:
            for source in sources:
                remaining -= self._fetch(client, source, namespace, repo, into, deadline, remaining)
        return sources

    def _fetch(
        self,
        client: httpx.Client,
        source: Source,
        namespace: str,
        repo: str,
        into: Path,
        deadline: Deadline,
        limit: int,
    ) -> int:
        target = into / source.file
        if target.is_dir() and not target.is_symlink():
            raise PackageError(f"the repository has a directory where the source {source.file} belongs")
        with tempfile.TemporaryDirectory(prefix=".source-", dir=into) as private:
            partial = Path(private) / "file"
            for address in self._addresses(source, namespace, repo):
                if _download(client, address, source, partial, deadline, limit):
                    # Also over a link, whose target is not ours to write to.
                    return partial.replace(target).stat().st_size
        raise PackageError(
            f"the lookaside cache has no {source.file} with the {source.kind} {source.digest}",
            hint="was it uploaded, by `fedpkg new-sources`?",
        )

    def _addresses(self, source: Source, namespace: str, repo: str) -> Iterator[str]:
        parts = {"namespace": namespace, "repo": repo, "file": quote(source.file), "hash": source.digest}
        yield self.address.format(**parts, hashtype=source.kind)
        if source.kind == "md5" and "{hashtype}/" in self.address:
            yield self.address.replace("{hashtype}/", "").format(**parts)


def read_sources(listing: Path) -> tuple[Source, ...]:
    """The lines of a ``sources`` file, in their order. Raises PackageError for one that cannot be read."""
    if listing.is_symlink() or (listing.exists() and not listing.is_file()):
        raise PackageError("what is called sources is no regular file")
    if not listing.exists():
        return ()
    with listing.open("rb") as stream:
        text = stream.read(_LISTING).decode("utf-8", "replace")
    return tuple(_read(line.strip()) for line in text.splitlines() if line.strip())


def _read(line: str) -> Source:
    fields = _LINE.fullmatch(line) or _OLD_LINE.fullmatch(line)
    kind = fields.groupdict().get("kind", "MD5").lower() if fields else ""
    if not fields or fields["file"].startswith(".") or len(fields["hash"]) != _DIGITS[kind]:
        raise PackageError(
            "a line of the file sources cannot be read", hint="SHA512 (FILE) = DIGITS", evidence=line[:500]
        )
    return Source(fields["file"], kind, fields["hash"])


def _download(client: httpx.Client, address: str, source: Source, into: Path, deadline: Deadline, limit: int) -> bool:
    """Fetch ``source`` to ``into``, checked by its digest; False when it is not at ``address``."""
    digest, size = hashlib.new(source.kind, usedforsecurity=False), 0
    try:
        with client.stream("GET", address) as answer, into.open("wb") as stream:
            if answer.status_code in _GONE:
                return False
            answer.raise_for_status()
            for chunk in answer.iter_raw():
                size += len(chunk)
                if size > limit:
                    raise PackageError(f"the sources are too large: {source.file} does not fit any more")
                if deadline.passed:
                    raise InfrastructureError(f"the sources did not arrive within {deadline.seconds:g} s")
                digest.update(chunk)
                stream.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InfrastructureError(f"cannot fetch {address}: {error}", hint="is the lookaside cache up?") from error
    if digest.hexdigest() != source.digest:
        raise InfrastructureError(
            f"the lookaside cache sent something else for {source.file}: its {source.kind} is {digest.hexdigest()}",
            evidence=address,
        )
    return True
