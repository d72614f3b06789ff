"""Treefiles: rpm-ostree's recipe of an OSTree commit, read as rpm-ostree reads it.

What both composers follow becomes a field; every other key of rpm-ostree's is kept by name in ``beyond``, for the
composer that follows rpm-ostree's own reading, and refused by the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kickstarts
from distgate.errors import ConfigurationError
from distgate.pipelines import RAWHIDE
from distgate.untrusted_yaml import Unreadable, read_yaml

HOME = Path(kickstarts.__path__[0]) / "trees"
BASEARCH = "x86_64"
#: As deep as rpm-ostree follows includes.
_DEPTH = 50

_WORDS = ("ref", "automatic-version-prefix", "default-target", "boot-location", "postprocess-script")
_FLAGS = ("recommends", "tmp-is-dir", "container", "selinux", "machineid-compat")
_LISTS = ("repos", "packages", f"packages-{BASEARCH}", "exclude-packages", "units", "postprocess", "remove-files")
_INCLUDES = ("include", "arch-include")
#: Of no meaning where all users and groups are in /etc.
_USERS = ("etc-group-members",)
#: Spellings of before 2017, which rpm-ostree still reads.
_OLD = {
    old: old.replace("_", "-")
    for old in ("automatic_version_prefix", "default_target", "boot_location", "gpg_key", "initramfs_args")
}
#: Keys that rpm-ostree follows and the dnf composer does not.
BEYOND = frozenset(
    {
        *("edition", "metadata", "gpg-key", "ignore-devices", "ima", "install-langs"),
        *("mutate-os-release", "documentation", "repo-packages", "ostree-layers", "ostree-override-layers"),
        *("container-cmd", "bootstrap_packages", "initramfs-args", "rpmdb", "rpmdb-normalize"),
        *("selinux-label-version", "cliwrap", "cliwrap-binaries", "readonly-executables", "remove-from-packages"),
        *("preserve-passwd", "check-passwd", "check-groups", "ignore-removed-users", "ignore-removed-groups"),
        *("automatic-version-suffix", "add-commit-metadata", "conditional-include", "add-files"),
        *("platform-module", "variables", "repo_metadata", "lockfile-repos", "repovars", "opt-usrlocal"),
        *("no-initramfs", "sysusers", "advisories-metadata"),
    }
)


@dataclass(frozen=True)
class Treefile:
    """What one tree is made of, its includes folded in.

    ``repositories`` are names of ``.repo`` sections; ``release`` is what ``$releasever`` means there. ``scripts`` run
    in the tree, in their order, once the packages are installed. A tree that is not ``bootable`` needs no kernel.
    ``beyond`` names the keys that rpm-ostree alone follows.
    """

    path: Path
    packages: tuple[str, ...]
    ref: str = ""
    release: str = ""
    version_prefix: str = ""
    repositories: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    recommends: bool = True
    units: tuple[str, ...] = ()
    default_target: str = ""
    scripts: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    tmp_is_dir: bool = False
    bootable: bool = True
    selinux: bool = True
    empty_machine_id: bool = True
    beyond: tuple[str, ...] = ()


def treefile_for(branch: str) -> Path:
    """Our treefile for a dist-git branch; rawhide, main and master are one.

    Raises ConfigurationError for a branch without one, with the branches that have one.
    """
    name = "rawhide" if branch in RAWHIDE else branch
    treefiles = {file.stem: file for file in sorted(HOME.glob("*.yaml")) if file.stem != "lab"}
    if name in treefiles:
        return treefiles[name]
    raise ConfigurationError(
        f"there is no treefile for branch {branch}",
        hint=f"there is one for {', '.join(treefiles) or 'no branch'}; add kickstarts/trees/BRANCH.yaml",
    )


def release_of(branch: str) -> str:
    """What ``$releasever`` means on a branch unless its treefile says so: 44 for f44, rawhide for Rawhide."""
    if branch in RAWHIDE:
        return "rawhide"
    return branch[1:] if re.fullmatch(r"f\d+", branch) else branch


def read_treefile(path: Path, release: str = "") -> Treefile:
    """The tree that ``path`` and its includes describe; ``release`` counts when they name none.

    Raises ConfigurationError that names the file and the key for what rpm-ostree would refuse, too.
    """
    whole = _read(path, set(), 0)
    release = str(whole.get("releasever", release))
    variables = {"releasever": release, "basearch": BASEARCH}
    prefix = _filled(path, "automatic-version-prefix", whole.get("automatic-version-prefix", release), variables)
    if "<date:" in prefix:
        raise _refused(path, "automatic-version-prefix", "has a date; versions count up from the parent's")
    if not release and ("$" in prefix or not prefix):
        raise _refused(path, "releasever", "is missing")
    container = whole.get("container", False)
    script = whole.get("postprocess-script")
    return Treefile(
        path=path,
        packages=_packages([*whole.get("packages", ()), *whole.get(f"packages-{BASEARCH}", ())]),
        ref=_filled(path, "ref", whole.get("ref", ""), variables),
        release=release,
        version_prefix=prefix,
        repositories=tuple(dict.fromkeys(whole.get("repos", ()))),
        excluded=tuple(dict.fromkeys(whole.get("exclude-packages", ()))),
        recommends=whole.get("recommends", True),
        units=tuple(dict.fromkeys(whole.get("units", ()))),
        default_target=whole.get("default-target", ""),
        scripts=(*whole.get("postprocess", ()), *((_script(path, Path(script)),) if script else ())),
        removed=tuple(whole.get("remove-files", ())),
        tmp_is_dir=whole.get("tmp-is-dir", container),
        bootable=not container,
        selinux=whole.get("selinux", not container),
        empty_machine_id=whole.get("machineid-compat", True),
        beyond=tuple(sorted(key for key in whole if key in BEYOND or _is_beyond(key, whole[key]))),
    )


def _read(path: Path, seen: set[Path], depth: int) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigurationError(f"treefile {path}: included more than once, which rpm-ostree refuses")
    if depth > _DEPTH:
        raise ConfigurationError(f"treefile {path}: includes are nested more than {_DEPTH} deep")
    seen.add(path.resolve())
    try:
        document = read_yaml(path)
    except Unreadable as error:
        raise ConfigurationError(f"treefile {path}: {error}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"treefile {path}: is no mapping of keys to values")
    whole = dict(_checked(path, document))
    for name in [*_names(path, "include", whole.pop("include", [])), *_for_this_arch(path, whole)]:
        _merge(whole, _read(path.parent / name, seen, depth + 1))
    return whole


def _merge(whole: dict[str, Any], included: Mapping[str, Any]) -> None:
    """Included lists come first, included single values give way; as rpm-ostree merges, one include at a time."""
    for key, value in included.items():
        if isinstance(value, list):
            whole[key] = [*value, *whole.get(key, ())]
        elif isinstance(value, dict):
            whole[key] = value | whole.get(key, {})
        else:
            whole.setdefault(key, value)


def _checked(path: Path, document: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for written, value in document.items():
        key = _OLD.get(written, str(written))
        if wrong := _wrong(key, value):
            raise _refused(path, key, wrong)
        yield key, str(path.parent / value) if key == "postprocess-script" else value


def _wrong(key: str, value: Any) -> str:
    """Why rpm-ostree would refuse this value of this key, in words; empty when it would not."""
    if key == "releasever":
        return (
            "" if isinstance(value, str | int) and not isinstance(value, bool) else "is neither a word nor a number"
        )
    if key in _WORDS:
        return "" if isinstance(value, str) else "is no text"
    if key in _FLAGS:
        return "" if isinstance(value, bool) else "is neither true nor false"
    if key in (*_LISTS, *_USERS) or key.startswith("packages-"):
        texts = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
        return "" if texts else "is no list of texts"
    return "" if key in BEYOND or key in _INCLUDES else "is no key of a treefile"


def _names(path: Path, key: str, value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _refused(path, key, "names no file, and no list of files")
    return names


def _for_this_arch(path: Path, whole: dict[str, Any]) -> list[str]:
    by_arch = whole.pop("arch-include", {})
    if not isinstance(by_arch, dict):
        raise _refused(path, "arch-include", "is no mapping of architectures to files")
    return _names(path, "arch-include", by_arch.get(BASEARCH, []))


def _is_beyond(key: str, value: Any) -> bool:
    return key == "boot-location" and value != "modules"


def _packages(entries: list[str]) -> tuple[str, ...]:
    # Words are packages each, but for what stands in single quotes: 'podman >= 4.1'
    names = [[entry[1:-1]] if re.fullmatch(r"'.*'", entry.strip()) else entry.split() for entry in entries]
    return tuple(sorted({name for some in names for name in some}))


def _filled(path: Path, key: str, text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise _refused(path, key, f"asks for ${{{match[1]}}}, which is not known")
        return variables[match[1]]

    return re.sub(r"\$\{(\w+)\}", value, text)


def _script(path: Path, script: Path) -> str:
    try:
        return script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, "postprocess-script", f"cannot be read: {error}") from None


def _refused(path: Path, key: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"treefile {path}: {key} {why}", hint="docs/ostree.md lists what is understood")
