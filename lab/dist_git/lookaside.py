"""The lookaside cache beside dist-git: source files addressed by name and checksum, as ``fedpkg`` knows them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path, PurePosixPath

from distgate.errors import ConfigurationError
from distgate.files import draft_of


def relative_path(namespace: str, package: str, filename: str, hash_type: str, digest: str) -> PurePosixPath:
    """Where a source file lies below ``/repo/pkgs``: the scheme of src.fedoraproject.org, hash type in lower case."""
    return PurePosixPath(namespace, package, filename, hash_type.lower(), digest, filename)


def lookaside_address(dist_git: str) -> str:
    """The address of a source file at the lab's dist-git, with the parts in braces that a client fills in."""
    return f"{dist_git}/repo/pkgs/{{namespace}}/{{repo}}/{{file}}/{{hashtype}}/{{hash}}/{{file}}"


def upload(root: Path, package: str, source: Path, *, filename: str = "", namespace: str = "rpms") -> str:
    """Put ``source`` into the cache below ``root`` and return its line for the ``sources`` file.

    ``filename`` is the name that the spec uses, when it differs from the file's own. Uploading the same
    content twice is no error. Raises ConfigurationError for a name that is not one path component.
    """
    name = filename or source.name
    if not name or name != PurePosixPath(name).name or set(name) & set(" )"):
        raise ConfigurationError(f"{name!r} cannot be the name of a source file")
    digest = hashlib.sha512(source.read_bytes()).hexdigest()
    target = root / relative_path(namespace, package, name, "sha512", digest)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(target) as draft:
            shutil.copyfile(source, draft)
    return f"SHA512 ({name}) = {digest}\n"
