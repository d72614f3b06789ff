"""Edits of a kickstart, text to text: the packages under test, an OSTree to deploy, a key to log in with.

An edit touches the lines it means and keeps every other byte. What goes in is checked by a grammar first; what
comes out is read again by pykickstart and has to mean the same as before, but for what was asked.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterable
from dataclasses import replace

from distgate.errors import ConfigurationError, DistgateError, PackageError
from distgate.kickstart.meaning import Meaning, Packages, Script, difference, meaning_of, ostree_of, repository_of
from distgate.kickstart.text import Outline, Section, outline
from distgate.rpm.nevra import Nevra

#: The name of the repository that holds the packages under test.
REPOSITORY = "distgate-under-test"

_NAME = r"[A-Za-z0-9_][A-Za-z0-9+._-]*"
_VERSION = r"[A-Za-z0-9+._~^]+"
_GRAMMARS = {
    "package name": _NAME,
    "version": _VERSION,
    "release": _VERSION,
    "architecture": r"[a-z0-9_]+",
    # No user and password (an edited kickstart is published), nothing that a shell, shlex or dnf would expand.
    "URL": r"(https?://[A-Za-z0-9.-]+(:[0-9]+)?|http://\[[0-9a-f:]+\](:[0-9]+)?|file://)/[A-Za-z0-9._~%:/+=&?,^-]*"
    r"|https?://[A-Za-z0-9.-]+(:[0-9]+)?",
    "name of a remote": r"[A-Za-z0-9_][A-Za-z0-9._-]*",
    "name of an operating system": r"[A-Za-z0-9_][A-Za-z0-9._-]*",
    "ref": r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*",
    "public ssh key": r"(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}( [A-Za-z0-9@._-]+)?",
}
_SHOWN = 80


def with_packages_under_test(text: str, repository_url: str, names: Iterable[str | Nevra], cost: int = 1) -> str:
    """The flattened kickstart that also installs ``names`` from ``repository_url``.

    One ``repo`` line and the packages at the end of ``%packages`` are added; a line there that excludes one of them
    goes. A plain name asks the installer for the best build of that name, where ``cost`` (dnf's default is 1000)
    only settles a tie between equal builds; a Nevra asks for that very build, even when a repository has a newer
    one, and takes the place of a line with the plain name. Raises PackageError for a name that no package can have,
    ConfigurationError for a definition or an address that cannot be used.
    """
    url = _valid("URL", repository_url)
    specs = {_spec(name): name for name in names}
    if not specs:
        raise ConfigurationError("no package was named that the image shall hold")
    if cost < 1:
        raise ConfigurationError(f"the cost of a repository is a positive number, not {cost}")
    before = meaning_of(text)
    _refuse_known_repository(before)
    plan = outline(text)
    section = _packages_section(plan)
    lines = list(plan.lines)
    ending = _ending(lines[section.first])
    added = [spec for spec in specs if spec not in before.packages.names]
    lines[section.last] = "".join(f"{spec}{ending}" for spec in added) + lines[section.last]
    dropped = _drop_specs(lines, section, specs.values())
    line = f"repo --name={REPOSITORY} --baseurl={url} --cost={cost}{ending}"
    _insert_command(lines, plan, line, after=("url", "repo"))
    expected = replace(
        before,
        repositories=(*before.repositories, repository_of(REPOSITORY, url, cost)),
        packages=before.packages.changed(added, dropped),
    )
    return _proven("".join(lines), expected)


def with_ostree(text: str, url: str, remote: str, osname: str, ref: str) -> str:
    """The flattened kickstart that deploys ``ref`` of the OSTree repository at ``url`` as ``osname``.

    The line ``ostreesetup`` is replaced, or added; ``%packages`` goes, as packages come with the tree; a ``%post`` at
    the end leaves ``remote`` in the host, for its upgrades. Commits of a pipeline are not signed, so neither line
    asks for signatures. Raises ConfigurationError for a definition or a value that cannot be used.
    """
    _valid("URL", url)
    _valid("name of a remote", remote)
    _valid("name of an operating system", osname)
    _valid("ref", ref)
    before = meaning_of(text)
    plan = outline(text)
    lines = list(plan.lines)
    ending = _ending(lines[0]) if lines else "\n"
    line = f"ostreesetup --nogpg --osname={osname} --remote={remote} --url={url} --ref={ref}{ending}"
    for section in plan.named("%packages"):
        lines[section.first : section.last + 1] = [""] * (section.last + 1 - section.first)
    _set_command(lines, plan, "ostreesetup", line)
    body = _remote_script(remote, url, ending)
    rest = _terminated("".join(lines), ending)
    after = f"{rest}{ending}%post --erroronfail{ending}{body}%end{ending}"
    script = Script("%post", body.replace("\r\n", "\n"), "/bin/sh", fatal=True, in_chroot=True, log="")
    expected = replace(
        before, ostree=ostree_of(osname, remote, url, ref), packages=Packages(), scripts=(*before.scripts, script)
    )
    return _proven(after, expected)


def with_root_key(text: str, key: str) -> str:
    """The flattened kickstart whose machine also lets the owner of the public ssh ``key`` in as root.

    Raises ConfigurationError for a definition or a key that cannot be used.
    """
    _valid("public ssh key", key.strip())
    before = meaning_of(text)
    if key.strip() in before.root_keys:
        return text
    plan = outline(text)
    lines = list(plan.lines)
    ending = _ending(lines[0]) if lines else "\n"
    _insert_command(lines, plan, f'sshkey --username=root "{key.strip()}"{ending}', after=("rootpw", "sshkey"))
    return _proven("".join(lines), replace(before, root_keys=(*before.root_keys, key.strip())))


def _spec(name: str | Nevra) -> str:
    if isinstance(name, str):
        return _valid("package name", name, PackageError)
    _valid("package name", name.name, PackageError)
    _valid("version", name.version, PackageError)
    _valid("release", name.release, PackageError)
    _valid("architecture", name.arch, PackageError)
    return str(name)


def _valid(kind: str, value: str, error: type[DistgateError] = ConfigurationError) -> str:
    if re.fullmatch(_GRAMMARS[kind], value, re.ASCII):
        return value
    excerpt = repr(value[:_SHOWN])
    raise error(f"{excerpt} is no {kind} that a kickstart can hold", hint="nothing was written")


def _refuse_known_repository(before: Meaning) -> None:
    if any(dict(repository).get("name") == REPOSITORY for repository in before.repositories):
        raise ConfigurationError(
            f"the kickstart has a repository {REPOSITORY} already",
            hint="edit the definition, not what was edited before",
        )


def _packages_section(plan: Outline) -> Section:
    sections = plan.named("%packages")
    if not sections:
        raise ConfigurationError("the kickstart has no %packages section", hint="an image of packages lists some")
    if len(sections) > 1:
        numbers = " and ".join(str(section.first + 1) for section in sections)
        raise ConfigurationError(
            f"the kickstart has {len(sections)} %packages sections, in lines {numbers}",
            hint="write one, and include lists of packages in it: the options of the last one would hold for all",
        )
    return sections[0]


def _drop_specs(lines: list[str], section: Section, named: Iterable[str | Nevra]) -> tuple[str, ...]:
    """Blank the lines of the section that stand against what is asked for; what they said."""
    replaced = {spec for name in named for spec in _replaced_by(name)}
    names = {name if isinstance(name, str) else name.name for name in named}
    dropped = []
    for index in range(section.first + 1, section.last):
        entry = lines[index].partition("#")[0].strip()
        _refuse_glob(entry, names, index + 1)
        if entry in replaced:
            lines[index] = ""
            dropped.append(entry)
    return tuple(dropped)


def _replaced_by(name: str | Nevra) -> tuple[str, ...]:
    if isinstance(name, str):
        return (f"-{name}",)
    plain = (name.name, f"{name.name}.{name.arch}")
    return (*plain, *(f"-{spec}" for spec in (*plain, str(name))))


def _refuse_glob(spec: str, names: set[str], number: int) -> None:
    if not spec.startswith("-") or not re.search(r"[*?\[]", spec):
        return
    hit = sorted(name for name in names if fnmatch.fnmatchcase(name, spec[1:]))
    if hit:
        raise ConfigurationError(
            f"line {number} of the kickstart excludes {spec[1:]}, and so {hit[0]}, which is under test",
            hint="name the packages that the image shall not have",
        )


def _insert_command(lines: list[str], plan: Outline, line: str, after: tuple[str, ...]) -> None:
    """Put ``line`` below the last command of the names ``after``, or where the first section starts."""
    earlier = [command.index for command in plan.commands if command.name in after]
    if earlier:
        lines[earlier[-1]] = _terminated(lines[earlier[-1]], _ending(line)) + line
    elif plan.sections:
        first = plan.sections[0].first
        lines[first] = line + lines[first]
    else:
        lines.append(_terminated(lines.pop() if lines else "", _ending(line)) + line)


def _set_command(lines: list[str], plan: Outline, name: str, line: str) -> None:
    """Put ``line`` in the place of the command ``name``; of several the last counts, and the others go."""
    earlier = [command.index for command in plan.commands if command.name == name]
    if not earlier:
        _insert_command(lines, plan, line, after=())
        return
    for index in earlier:
        lines[index] = ""
    lines[earlier[-1]] = line


def _remote_script(remote: str, url: str, ending: str) -> str:
    name, address = shlex.quote(remote), shlex.quote(url)
    steps = (
        "set -eu",
        f"ostree remote delete --if-exists {name}",
        f"ostree remote add --set=gpg-verify=false {name} {address}",
    )
    return "".join(f"{step}{ending}" for step in steps)


def _ending(line: str) -> str:
    return "\r\n" if line.endswith("\r\n") else "\n"


def _terminated(text: str, ending: str) -> str:
    return text if not text or text.endswith(("\n", "\r")) else text + ending


def _proven(after: str, expected: Meaning) -> str:
    """``after``, when it means what is expected and nothing else: the guard behind the grammars."""
    changed = difference(expected, meaning_of(after))
    if changed:
        raise ConfigurationError(f"the edit would change the kickstart's {changed} beyond what was asked for")
    return after
