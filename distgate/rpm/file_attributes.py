"""Extended attributes that no transaction sets: SELinux labels as the image's own policy says, and file capabilities
where the mount cannot carry them.

A host without SELinux lets rpm label nothing, so whatever was changed is labelled afterwards.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.files import walk
from distgate.mounts.root import LATE_ATTRIBUTES, InstallRoot
from distgate.process import run
from distgate.rpm.dnf import Dnf

LABEL = "security.selinux"
CAPABILITY = "security.capability"
_WOULD = re.compile(r"^Would relabel (.*) from .* to (\S+)$")


@dataclass(frozen=True)
class Attribute:
    """An extended attribute that the file ``path`` (below the root) is to have."""

    path: Path
    name: str
    value: bytes


def policy_of(root: Path) -> Path | None:
    """The file_contexts of the SELinux policy that an image is to boot with; None when it has none, or is told not
    to use it."""
    configuration = root / "etc/selinux/config"
    if configuration.is_symlink() or not configuration.is_file():
        return None
    options = dict(
        re.findall(r"^\s*(SELINUX|SELINUXTYPE)=(\w+)", configuration.read_text(errors="replace"), re.MULTILINE)
    )
    contexts = root / f"etc/selinux/{options.get('SELINUXTYPE', 'targeted')}/contexts/files/file_contexts"
    return contexts if options.get("SELINUX") != "disabled" and contexts.is_file() else None


def clock_of(root: Path) -> int:
    """The time that the root's file system gives to a change made now, in nanoseconds; FUSE knows whole seconds."""
    stamp = root / ".distgate-stamp"
    stamp.touch()
    try:
        return int(stamp.lstat().st_ctime) * 10**9
    finally:
        stamp.unlink()


def labels(root: Path, policy: Path, since: int, bwrap: Sequence[str]) -> list[Attribute]:
    """The labels, by ``policy``, of everything that changed since ``since`` (as ``clock_of`` returned it)."""
    changed = {str(path) for path in _changed(root, since)}
    if not changed:
        return []
    setfiles = run(
        [*bwrap, "setfiles", "-n", "-v", "-F", "-m", "-r", root, "-f", "-", policy],
        timeout=600,
        stdin="".join(f"{path}\n" for path in sorted(changed)),
        error=InfrastructureError,
        hint="is policycoreutils installed?",
    )
    contexts = {match[1]: match[2] for match in map(_WOULD.match, setfiles.output.splitlines()) if match}
    return [
        Attribute(Path(path), LABEL, contexts[path].encode() + b"\0") for path in sorted(changed & contexts.keys())
    ]


def capabilities(dnf: Dnf, packages: Sequence[str], scratch: Path) -> Iterator[Attribute]:
    """The file capabilities in the headers of ``packages``, in the form in which the kernel keeps them."""
    listed = dnf.rpm("-q", "--qf", "[%{FILENAMES}\\t%{FILECAPS}\\n]", *packages) if packages else ""
    model = scratch / "capabilities"
    for path, _, text in (line.partition("\t") for line in listed.splitlines()):
        if text.strip(" =") in ("", "(none)"):
            continue
        model.touch()
        run(["setcap", text.strip(), model], timeout=10, error=InfrastructureError)
        yield Attribute(dnf.installroot.root / path.lstrip("/"), CAPABILITY, os.getxattr(model, CAPABILITY))
        model.unlink()


def apply(installroot: InstallRoot, attributes: Iterable[Attribute]) -> None:
    """Set ``attributes``, now or when the root is unmounted. No process may be changing the root meanwhile."""
    if installroot.binary_attributes:
        for attribute in attributes:
            os.setxattr(attribute.path, attribute.name, attribute.value, follow_symlinks=False)
    else:
        dump = "".join(_dumped(installroot.root, attribute) for attribute in attributes)
        if dump:
            (installroot.root / LATE_ATTRIBUTES).write_text(dump)


def _changed(root: Path, since: int) -> Iterator[Path]:
    """Without crossing into other file systems or following links: these names may be meant to harm us."""
    device = root.lstat().st_dev
    for entry in walk(root, lambda entry: entry.status.st_dev == device):
        if entry.status.st_ctime_ns < since:
            continue
        path = root / entry.path
        # A directory in which something was made has changed too; it keeps the label it has.
        if "\n" not in str(path) and not (entry.is_directory and _is_labelled(path)):
            yield path


def _is_labelled(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, LABEL, follow_symlinks=False))
    except OSError:
        return False


def _dumped(root: Path, attribute: Attribute) -> str:
    name = re.sub(r"[^\x21-\x5b\x5d-\x7e]", lambda match: _octal(match[0]), str(attribute.path.relative_to(root)))
    return f"# file: {name}\n{attribute.name}=0s{base64.b64encode(attribute.value).decode()}\n\n"


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
