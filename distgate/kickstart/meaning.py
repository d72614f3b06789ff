"""What a flattened kickstart means to pykickstart, as a record that two texts can be compared by."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from pykickstart import constants

from distgate.kickstart.parser import parse

#: Scripts by the name of their section, as pykickstart numbers them.
_SCRIPTS = {
    constants.KS_SCRIPT_PRE: "%pre",
    constants.KS_SCRIPT_POST: "%post",
    constants.KS_SCRIPT_TRACEBACK: "%traceback",
    constants.KS_SCRIPT_PREINSTALL: "%pre-install",
    constants.KS_SCRIPT_ONERROR: "%onerror",
}
#: Separate from the other commands, because an edit may change them.
_OWN_FIELDS = ("repo", "ostreesetup", "sshkey")

Options = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Script:
    """A script section: ``body`` is the text that ``interpreter`` gets, ``log`` a path in the guest or empty."""

    section: str
    body: str
    interpreter: str
    fatal: bool
    in_chroot: bool
    log: str


@dataclass(frozen=True)
class Packages:
    """What ``%packages`` asks for; ``options`` are those of its header, its groups and what else it holds."""

    names: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()
    options: Options = ()

    def changed(self, added: Iterable[str], dropped: Iterable[str]) -> Packages:
        """The same with ``added`` names and without the lines ``dropped`` (``name`` or ``-name``)."""
        without = frozenset(dropped)
        return replace(
            self,
            names=(self.names - without) | frozenset(added),
            excluded=self.excluded - {line[1:] for line in without if line.startswith("-")},
        )


@dataclass(frozen=True)
class Meaning:
    """Everything that pykickstart understood, but for comments and the order of packages."""

    commands: Options = ()
    repositories: tuple[Options, ...] = ()
    ostree: Options = ()
    root_keys: tuple[str, ...] = ()
    other_keys: tuple[str, ...] = ()
    packages: Packages = Packages()
    scripts: tuple[Script, ...] = ()
    other_sections: tuple[str, ...] = ()


def meaning_of(text: str) -> Meaning:
    """What the text means. Raises ConfigurationError for what ksvalidator would refuse."""
    handler = parse(text, strict=True)
    root_keys, others = _keys(handler.sshkey.sshUserList)
    return Meaning(
        commands=_commands(handler),
        repositories=tuple(_options(repo) for repo in handler.repo.repoList),
        ostree=_ostree(handler.ostreesetup),
        root_keys=root_keys,
        other_keys=others,
        packages=_packages(handler.packages),
        scripts=tuple(_script(script) for script in handler.scripts),
        other_sections=(*handler._null_section_strings, *(str(certificate) for certificate in handler.certificates)),
    )


def difference(expected: Meaning, actual: Meaning) -> str:
    """What is not as expected, in words ("scripts, packages"); empty when all is."""
    names = [item.name for item in fields(Meaning) if getattr(expected, item.name) != getattr(actual, item.name)]
    return ", ".join(name.replace("_", " ") for name in names)


def repository_of(name: str, baseurl: str, cost: int) -> Options:
    """How a ``repo`` line with these three options, and no others, is understood."""
    return (("baseurl", baseurl), ("cost", str(cost)), ("name", name))


def ostree_of(osname: str, remote: str, url: str, ref: str) -> Options:
    """How an ``ostreesetup`` line with these options and ``--nogpg`` is understood."""
    return (("nogpg", "True"), ("osname", osname), ("ref", ref), ("remote", remote), ("url", url))


def _commands(handler: Any) -> Options:
    # A record without the edited commands; several names may stand for one object (part, partition).
    commands = {name: command for name, command in handler.commands.items() if name not in _OWN_FIELDS and command}
    return tuple((name, str(command)) for name, command in sorted(commands.items()))


def _options(data: Any) -> Options:
    options = {name: value for name, value in vars(data).items() if name != "lineno" and value}
    return tuple((name, str(value)) for name, value in sorted(options.items()))


def _ostree(command: Any) -> Options:
    if not command.seen:
        return ()
    names = ("nogpg", "osname", "ref", "remote", "url")
    return tuple((name, str(getattr(command, name))) for name in names)


def _keys(users: list[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    root_keys = tuple(user.key for user in users if user.username == "root")
    return root_keys, tuple(f"{user.username} {user.key}" for user in users if user.username != "root")


def _packages(chosen: Any) -> Packages:
    separate = {"packageList", "excludedList", "groupList", "excludedGroupList"}
    unsaid = vars(type(chosen)())
    options = {
        name: str(value) for name, value in vars(chosen).items() if name not in separate and value != unsaid[name]
    }
    groups = {
        "groupList": " ".join(f"{group.name}:{group.include}" for group in chosen.groupList),
        "excludedGroupList": " ".join(group.name for group in chosen.excludedGroupList),
    }
    settings = options | {name: value for name, value in groups.items() if value}
    return Packages(frozenset(chosen.packageList), frozenset(chosen.excludedList), tuple(sorted(settings.items())))


def _script(script: Any) -> Script:
    return Script(
        section=_SCRIPTS[script.type],
        body=_body(script.script),
        interpreter=script.interp,
        fatal=bool(script.errorOnFail),
        in_chroot=bool(script.inChroot),
        log=script.logfile or "",
    )


def _body(text: str) -> str:
    # pykickstart drops an empty script, but leaves its blank lines to the next one of that section.
    lines = text.replace("\r\n", "\n").splitlines(keepends=True)
    return "".join(itertools.dropwhile(lambda line: not line.strip(), lines))
