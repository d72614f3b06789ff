"""The package repositories that a treefile names: read from .repo files beside it, written for rpm-ostree."""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Mapping
from pathlib import Path

from distgate.errors import ConfigurationError
from distgate.ostree.treefile import Treefile
from distgate.rpm.transaction import RepositorySource

_ADDRESSES = ("baseurl", "mirrorlist", "metalink")


def repositories_of(treefile: Treefile, elsewhere: Mapping[str, str] | None = None) -> tuple[RepositorySource, ...]:
    """The repositories of a treefile; ``elsewhere`` gives URLs or directories by name, which come first.

    ``metalink+URL`` and ``mirrorlist+URL`` name a list of mirrors. Raises ConfigurationError for a name that is
    nowhere, and for a .repo file that is none.
    """
    sources = _beside(treefile.path.parent)
    sources |= {name: RepositorySource.at(name, address) for name, address in (elsewhere or {}).items()}
    missing = [name for name in treefile.repositories if name not in sources]
    if missing:
        raise ConfigurationError(
            f"treefile {treefile.path}: no repository is called {', '.join(missing)}",
            hint="a .repo file beside the treefile, or the block OSTree repository, says where it is",
        )
    return tuple(sources[name] for name in treefile.repositories)


def repo_text(sources: Iterable[RepositorySource]) -> str:
    """The .repo file that says where ``sources`` are."""
    return "\n".join("".join(f"{line}\n" for line in _section(source)) for source in sources)


def read_repo_file(path: Path) -> dict[str, RepositorySource]:
    """The repositories in one .repo file by name. Raises ConfigurationError."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
        return {name: _source(path, name, parser[name]) for name in parser.sections()}
    except (OSError, UnicodeDecodeError, configparser.Error, ValueError) as error:
        raise ConfigurationError(f"{path} is no .repo file: {error}") from None


def _beside(directory: Path) -> dict[str, RepositorySource]:
    sources: dict[str, RepositorySource] = {}
    for path in sorted(directory.glob("*.repo")):
        sources |= read_repo_file(path)
    return sources


def _source(path: Path, name: str, section: configparser.SectionProxy) -> RepositorySource:
    addresses = {key: section.get(key, "") for key in _ADDRESSES}
    if not any(addresses.values()):
        raise ConfigurationError(f"{path}: repository {name} has no address", hint=f"one of {', '.join(_ADDRESSES)}")
    return RepositorySource(
        name,
        **addresses,
        priority=section.getint("priority", 99),
        cost=section.getint("cost", 1000),
        excluded=tuple(section.get("excludepkgs", "").replace(",", " ").split()),
    )


def _section(source: RepositorySource) -> Iterable[str]:
    yield f"[{source.name}]"
    yield f"name={source.name}"
    for key in _ADDRESSES:
        if address := getattr(source, key):
            yield f"{key}={address}"
    yield from (f"priority={source.priority}", f"cost={source.cost}", "enabled=1", "gpgcheck=0")
    if source.excluded:
        yield f"excludepkgs={' '.join(source.excluded)}"
