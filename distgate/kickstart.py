"""What an image definition asks for: a kickstart, read by pykickstart into frozen records or refused when broken."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pykickstart.constants import KS_SCRIPT_POST
from pykickstart.errors import KickstartError
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion, stringToVersion

from distgate.errors import ConfigurationError


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
class Kickstart:
    """The part of a kickstart that a compose follows.

    ``root_size`` is the size of ``part /`` in MiB (None: not said), ``boot_arguments`` is the bootloader's
    ``--append``, ``root_keys`` are the ``sshkey`` lines of root.
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

    @property
    def requests(self) -> tuple[str, ...]:
        """What to ask a package manager for: ``@group`` and package names, each once."""
        return (*(f"@{group}" for group in self.groups), *self.packages)

    def with_source(self, source: PackageSource) -> Kickstart:
        """The same definition with ``source`` in place of the one of that name, or added at the end."""
        if any(known.name == source.name for known in self.sources):
            changed = tuple(source if known.name == source.name else known for known in self.sources)
            return replace(self, sources=changed)
        return replace(self, sources=(*self.sources, source))

    def with_packages(self, names: Iterable[str]) -> Kickstart:
        """The same definition that also asks for ``names``, whether it excluded them or not."""
        added = tuple(dict.fromkeys(names))
        packages = (*self.packages, *(name for name in added if name not in self.packages))
        return replace(self, packages=packages, excluded=tuple(n for n in self.excluded if n not in added))

    def with_root_key(self, key: str) -> Kickstart:
        """The same definition that also lets the holder of the public ``key`` in as root."""
        return replace(self, root_keys=tuple(dict.fromkeys((*self.root_keys, key.strip()))))


def read_kickstart(path: Path, syntax: str = "") -> Kickstart:
    """Read a kickstart and the files it includes (relative to it).

    ``syntax`` is a release such as "F41" (default: the newest that pykickstart knows). Raises
    ConfigurationError, naming file and line, for what pykickstart refuses and for what no compose could follow.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no kickstart {path}")
    handler = _parse(path, syntax)
    sources = tuple(_source(path, repo) for repo in handler.repo.repoList)
    _refuse_twice(
        path, [(source.name, repo.lineno) for source, repo in zip(sources, handler.repo.repoList, strict=True)]
    )
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
    )


def _parse(path: Path, syntax: str) -> Any:
    try:
        handler = makeVersion(stringToVersion(syntax)) if syntax else makeVersion()
        parser = KickstartParser(handler)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated commands are the author's business
            parser.readKickstart(str(path))
    except KickstartError as error:
        raise _broken(path, error.lineno, error.message or str(error)) from None
    except ValueError as error:
        # shlex's complaint about quotes: pykickstart adds no line number.
        raise _broken(path, _line_of(path, parser._line), str(error)) from None
    return handler


def _line_of(path: Path, text: str) -> int:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.strip() == text.strip()), 0)


def _broken(path: Path, line: int | None, text: str) -> ConfigurationError:
    where = f", line {line}" if line else ""
    return ConfigurationError(
        f"{path.name}{where}: {text.strip()}", hint=f"ksvalidator {path.name} tells the same", evidence=str(path)
    )


def _source(path: Path, repo: Any) -> PackageSource:
    if not (repo.baseurl or repo.mirrorlist or repo.metalink):
        raise _broken(path, repo.lineno, f"repo {repo.name} has no --baseurl, --mirrorlist or --metalink")
    return PackageSource(
        name=repo.name,
        baseurl=repo.baseurl or "",
        mirrorlist=repo.mirrorlist or "",
        metalink=repo.metalink or "",
        cost=repo.cost,
        excluded=tuple(repo.excludepkgs or ()),
    )


def _refuse_twice(path: Path, named: list[tuple[str, int]]) -> None:
    seen: set[str] = set()
    for name, line in named:
        if name in seen:
            raise _broken(path, line, f"repo {name} is there twice")
        seen.add(name)


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
