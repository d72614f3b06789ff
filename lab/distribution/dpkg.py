"""What dpkg knows about an installed root, as records: names, versions, dependencies and files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError

_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class DebPackage:
    """One installed package. ``depends`` holds one tuple of alternatives for each comma of Debian's fields;
    ``files`` are dpkg's own paths (from before the /usr merge), directories included."""

    name: str
    version: str
    architecture: str
    summary: str
    depends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]
    files: tuple[str, ...]


def installed(root: Path) -> dict[str, DebPackage]:
    """The configured packages of ``root`` by name. Raises InfrastructureError when one of them has no file list."""
    status = (root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    records = (_fields(block) for block in status.split("\n\n") if block.strip())
    packages = [_package(root, record) for record in records if record.get("Status") == "install ok installed"]
    return {package.name: package for package in packages}


def rpm_version(version: str) -> tuple[str, str]:
    """Version and release of an RPM for a Debian version; the epoch is dropped, "-" becomes "."."""
    upstream, _, revision = version.split(":", 1)[-1].rpartition("-")
    if not upstream:
        upstream, revision = revision, "1"
    return _rpm_word(upstream), _rpm_word(revision)


def _rpm_word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+~^]", ".", text).strip(".") or "0"


def _fields(block: str) -> dict[str, str]:
    lines = (line for line in block.splitlines() if not line.startswith((" ", "\t")))
    return {key: value.strip() for key, separator, value in (line.partition(":") for line in lines) if separator}


def _package(root: Path, fields: dict[str, str]) -> DebPackage:
    depends = [fields.get(field, "") for field in ("Pre-Depends", "Depends")]
    return DebPackage(
        name=fields["Package"],
        version=fields["Version"],
        architecture=fields["Architecture"],
        summary=fields.get("Description", fields["Package"]),
        depends=tuple(_names(clause, "|") for field in depends for clause in field.split(",") if clause.strip()),
        provides=_names(fields.get("Provides", ""), ","),
        files=_files(root, fields["Package"], fields["Architecture"]),
    )


def _names(text: str, separator: str) -> tuple[str, ...]:
    matches = (_NAME.match(name.strip()) for name in text.split(separator))
    return tuple(match[0] for match in matches if match)


def _files(root: Path, name: str, architecture: str) -> tuple[str, ...]:
    for stem in (name, f"{name}:{architecture}"):
        listing = root / f"var/lib/dpkg/info/{stem}.list"
        if os.path.lexists(listing):
            lines = listing.read_text(encoding="utf-8").splitlines()
            return tuple(line for line in lines if line not in ("", "/."))
    raise InfrastructureError(
        f"dpkg lists no files of {name}", hint="the Debian root is incomplete: remove the cache"
    )
