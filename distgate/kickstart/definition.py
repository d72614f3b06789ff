"""What an image definition asks for: a kickstart, read by pykickstart into frozen records or refused when broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pykickstart.constants import KS_SCRIPT_POST

import kickstarts
from distgate.errors import ConfigurationError
from distgate.kickstart.parser import broken_at, parse
from distgate.kickstart.text import UNNAMED, Line, read_lines
from distgate.pipelines import RAWHIDE

#: The tree of our own definitions.
HOME = Path(kickstarts.__path__[0]).resolve()
Kind = Literal["cloud", "atomic"]


@dataclass(frozen=True)
class PackageSource:
    """One ``repo`` line; exactly one of the addresses is set."""

    name: str
    baseurl: str = ""
    mirrorlist: str = ""
    metalink: str = ""
    cost: int | None = None
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class PostScript:
    """One ``%post`` section: ``line`` is where its body starts, ``fatal`` that its failure ends the compose."""

    body: str
    interpreter: str = "/bin/sh"
    line: int = 0
    fatal: bool = False
    in_chroot: bool = True


@dataclass(frozen=True)
class OstreeSource:
    """The ``ostreesetup`` line: the commit at the head of ``ref`` is deployed as ``osname``, from ``remote``."""

    osname: str
    remote: str
    url: str
    ref: str


@dataclass(frozen=True)
class Kickstart:
    """The part of a kickstart that a compose follows.

    ``root_size`` is the size of ``part /`` in MiB (None: not said), ``boot_arguments`` is the bootloader's
    ``--append``, ``root_keys`` are the ``sshkey`` lines of root, ``ostree`` is what is deployed in place of packages.
    """

    sources: tuple[PackageSource, ...] = ()
    groups: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    excluded_groups: tuple[str, ...] = ()
    weak_dependencies: bool = True
    post: tuple[PostScript, ...] = ()
    boot_arguments: str = ""
    root_size: int | None = None
    hostname: str = ""
    root_keys: tuple[str, ...] = ()
    ostree: OstreeSource | None = None

    @property
    def requests(self) -> tuple[str, ...]:
        """What to ask a package manager for: ``@group`` and package names, each once."""
        return (*(f"@{group}" for group in self.groups), *self.packages)


def definition_for(branch: str, kind: Kind = "cloud") -> Path:
    """Our kickstart of that kind for a dist-git branch; rawhide, main and master are one.

    Raises ConfigurationError for a branch without one, with the branches that have one.
    """
    name = "rawhide" if branch in RAWHIDE else branch
    definitions = {file.stem: file for file in sorted((HOME / kind).glob("*.ks"))}
    if name in definitions:
        return definitions[name]
    raise ConfigurationError(
        f"there is no {kind} image for branch {branch}",
        hint=f"there is one for {', '.join(definitions) or 'no branch'}; add kickstarts/{kind}/BRANCH.ks",
    )


def flatten(path: Path) -> str:
    """The kickstart as one text without includes, every other line as it was written.

    Includes are relative to their file and stay in the definition's tree: ``kickstarts/`` for ours, the
    directory of ``path`` for others. Raises ConfigurationError, naming file and line, for what cannot be included.
    """
    return "".join(line.text for line in _lines(path))


def read_kickstart(path: Path, syntax: str = "") -> Kickstart:
    """Read a kickstart and the files it includes, as ``flatten`` does.

    ``syntax`` is a release such as "F41" (default: the newest that pykickstart knows). Raises
    ConfigurationError, naming file and line, for what pykickstart refuses and for what no compose could follow.
    """
    lines = _lines(path)
    text = "".join(line.text for line in lines)
    return _understood(parse(text, path.name, syntax=syntax, origin=lines), path.name, lines)


def read_text(text: str, name: str = UNNAMED, syntax: str = "") -> Kickstart:
    """Read a flattened kickstart, such as an edited one; errors call it ``name``. Raises as read_kickstart does."""
    return _understood(parse(text, name, syntax=syntax), name, ())


def _lines(path: Path) -> tuple[Line, ...]:
    if not path.is_file():
        raise ConfigurationError(f"there is no kickstart {path}")
    shipped = path.resolve().is_relative_to(HOME)
    return read_lines(path, HOME if shipped else path.parent)


def _understood(handler: Any, name: str, origin: Sequence[Line]) -> Kickstart:
    sources = tuple(_source(repo, name, origin) for repo in handler.repo.repoList)
    _refuse_twice(handler.repo.repoList, name, origin)
    chosen = handler.packages
    return Kickstart(
        sources=sources,
        groups=_groups(chosen),
        packages=tuple(dict.fromkeys(chosen.packageList)),
        excluded=tuple(dict.fromkeys(chosen.excludedList)),
        excluded_groups=tuple(group.name for group in chosen.excludedGroupList),
        weak_dependencies=not chosen.excludeWeakdeps,
        post=tuple(_script(script) for script in handler.scripts if script.type == KS_SCRIPT_POST),
        boot_arguments=(handler.bootloader.appendLine or "").strip(),
        root_size=_root_size(handler.partition.partitions),
        hostname=next((entry.hostname for entry in handler.network.network if entry.hostname), ""),
        root_keys=tuple(entry.key for entry in handler.sshkey.sshUserList if entry.username == "root"),
        ostree=_ostree(handler.ostreesetup),
    )


def _ostree(command: Any) -> OstreeSource | None:
    return OstreeSource(command.osname, command.remote, command.url, command.ref) if command.seen else None


def _source(repo: Any, name: str, origin: Sequence[Line]) -> PackageSource:
    if not (repo.baseurl or repo.mirrorlist or repo.metalink):
        text = f"repo {repo.name} has no --baseurl, --mirrorlist or --metalink"
        raise broken_at(repo.lineno, name, text, origin)
    return PackageSource(
        name=repo.name,
        baseurl=repo.baseurl or "",
        mirrorlist=repo.mirrorlist or "",
        metalink=repo.metalink or "",
        cost=repo.cost,
        excluded=tuple(repo.excludepkgs or ()),
    )


def _refuse_twice(repositories: list[Any], name: str, origin: Sequence[Line]) -> None:
    seen: set[str] = set()
    for repo in repositories:
        if repo.name in seen:
            raise broken_at(repo.lineno, name, f"repo {repo.name} is there twice", origin)
        seen.add(repo.name)


def _groups(chosen: Any) -> tuple[str, ...]:
    environment = (f"^{chosen.environment}",) if chosen.environment else ()
    # Like the installer: @core comes with every %packages section that does not say --nocore.
    names = (
        *environment,
        *(() if chosen.nocore or not chosen.seen else ("core",)),
        *(g.name for g in chosen.groupList),
    )
    return tuple(dict.fromkeys(names))


def _script(script: Any) -> PostScript:
    return PostScript(
        body=script.script,
        interpreter=script.interp,
        line=(script.lineno or 0) + 1,
        fatal=bool(script.errorOnFail),
        in_chroot=bool(script.inChroot),
    )


def _root_size(partitions: list[Any]) -> int | None:
    return next((int(entry.size) for entry in partitions if entry.mountpoint == "/" and entry.size), None)
