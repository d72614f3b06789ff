"""The release of a package that was built from one commit, beside that of its spec file.

``1%{?dist}.2`` becomes ``1.816.35fdde9%{?dist}.2``: the number of commits that led there and the commit itself stand
before the distribution's tag. Such a package is newer than the spec's own and older than the next commit's. Nothing
is expanded here: what only rpm can tell is told by the built package, in whose release the commit stands once
(``original``) or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from distgate.errors import ConfigurationError, PackageError

SHORT = 7
_SHA = re.compile(r"[0-9a-f]{7,64}")
_RELEASE = re.compile(r"[ \t]*release[ \t]*:[ \t]*", re.IGNORECASE)
_VERSION = re.compile(r"[ \t]*(version|epoch)[ \t]*:", re.IGNORECASE)
_DEFINITION = re.compile(r"[ \t]*%(?:global|define)[ \t]+(?P<name>\w+)(?:\([^)]*\))?[ \t]+")
#: Sections in which lines are no tags any more, and the one that begins with tags again.
_SECTION = re.compile(
    r"%(description|prep|generate_buildrequires|conf|build|install|check|clean|files|changelog|sourcelist|patchlist"
    r"|preun|pre|postun|posttrans|post|pretrans|preuntrans|postuntrans|verifyscript"
    r"|trigger\w*|filetrigger\w*|transfiletrigger\w*|package)(?=\s|$)"
)
_MACRO = re.compile(r"%(?:[!?]*(?P<plain>\w+)|(?P<open>[{(\[]))")
_NAME = re.compile(r"%\{?[!?]*-?(\w+)")
_CLOSING = {"{": "}", "(": ")", "[": "]"}
_DIST = re.compile(r"%(\??dist|\{\??dist\}|\{\?dist:.*)", re.DOTALL)
_AUTORELEASE, _AUTOCHANGELOG = (re.compile(rf"%\{{?\??{name}\b") for name in ("autorelease", "autochangelog"))
#: Where rpmautospec's own definition of %autorelease, written into a spec by hand or by an import, gets to %dist.
_OWN_AUTORELEASE = re.compile(r"%\{!\?-n:%\{\?dist\}\}")
_SET_BY_US = """\
# What rpmautospec would have set, with the commit: a source package that is uploaded is not processed by it any more.
%define autorelease(e:s:pb:n) %{{?-p:0.}}%{{lua:
    print({number} - 1 + tonumber(rpm.expand("%{{?-b*}}%{{!?-b:1}}")))
}}%{{?-e:.%{{-e*}}}}%{{?-s:.%{{-s*}}}}{mark}%{{!?-n:%{{?dist}}}}
"""
_NO_CHANGELOG = "%define autochangelog %{nil}\n"


@dataclass(frozen=True)
class _Macro:
    """A macro at the top level of a value, where it begins."""

    start: int
    text: str

    @property
    def name(self) -> str:
        match = _NAME.match(self.text)
        return match[1] if match else ""

    @property
    def is_dist(self) -> bool:
        return _DIST.fullmatch(self.text) is not None


def with_commit(spec_text: str, count: int, sha: str, *, autorelease: int = 1) -> str:
    """The spec file with ``.<count>.<first 7 digits of sha>`` in each Release, before the distribution's tag.

    Where the tag comes from a macro that the spec defines (``%global rel 3%{?dist}``) the definition is changed, so
    that whatever else is made of it still matches; without a tag the end is the place. A spec with %autorelease gets
    a definition of it in front, as rpmautospec would put it there, that counts from ``autorelease``; %autochangelog
    expands to nothing. Bytes that are no UTF-8 are kept if the text was decoded with ``surrogateescape``.

    Raises PackageError, whose evidence is the line, when there is no Release or it cannot be read.
    """
    mark = mark_of(count, sha)
    lines = _lines(spec_text)
    releases = [number for number, line in _tag_lines(lines) if _RELEASE.match(line)]
    if not releases:
        raise PackageError("the spec file has no Release", hint="a line `Release: 1%{?dist}` before %description")
    definitions = _Definitions(lines)
    positions = {position for number in releases for position in _positions_in_release(lines, number, definitions)}
    for number, column in sorted(positions, reverse=True):
        lines[number] = lines[number][:column] + mark + lines[number][column:]
    return _in_front(spec_text, lines, definitions, mark, autorelease) + "".join(lines)


def mark_of(count: int, sha: str) -> str:
    """What names a commit in a release: ``.816.35fdde9``. Raises ConfigurationError for what is no commit."""
    if count < 1 or not _SHA.fullmatch(sha):
        raise ConfigurationError(f"{count} commits that end in {sha!r} are no history")
    return f".{count}.{sha[:SHORT]}"


def original(nvr: str, sha: str) -> str:
    """The NVR that the spec file has without the commit ``sha``, from that of the package that was built with it.

    Raises PackageError when the commit is not in its release, or more than once.
    """
    name, version, release = nvr.rsplit("-", 2)
    marks = re.findall(rf"\.\d+\.{sha[:SHORT]}(?=\.|$|[^0-9a-f])", release)
    if len(marks) != 1:
        raise PackageError(
            f"the commit is {len(marks)} times in the release of {nvr}, not once",
            hint="what macros make of Release in this spec cannot be followed; begin it with a plain number",
        )
    return f"{name}-{version}-{release.replace(marks[0], '', 1)}"


def uses_autorelease(spec_text: str) -> bool:
    """Whether a release number has to be counted for this spec file."""
    tags = (line for _, line in _tag_lines(_lines(spec_text)))
    return any(_RELEASE.match(line) and _AUTORELEASE.search(line) for line in tags)


def version_of(spec_text: str) -> tuple[str, ...]:
    """What decides about the version: Version and Epoch as they are written, and the macros that are used in them.

    A change of it is where rpmautospec begins to count releases anew.
    """
    lines = _lines(spec_text)
    definitions = _Definitions(lines)
    tags = [line.strip() for _, line in _tag_lines(lines) if _VERSION.match(line)]
    return tuple(text for tag in tags for text in (tag, *definitions.used_in(tag, frozenset())))


def _tag_lines(lines: list[str]) -> Iterator[tuple[int, str]]:
    """The lines among which tags are: those before the first section, and after each %package."""
    tags = True
    for number, line in enumerate(lines):
        section = _SECTION.match(line)
        if section:
            tags = section[1] == "package"
        elif tags:
            yield number, line


def _positions_in_release(lines: list[str], number: int, definitions: _Definitions) -> Iterator[tuple[int, int]]:
    tag = _RELEASE.match(lines[number])
    assert tag  # noqa: S101 - the caller looked
    value, start = lines[number][tag.end() :].rstrip(), tag.end()
    if not value or value.endswith("\\"):
        raise _unreadable(lines[number])
    macros = _macros(value, lines[number])
    names = [macro.name for macro in macros]
    if "autorelease" in names:
        yield from definitions.own_autorelease()
    elif "release" not in names:  # a subpackage that has the package's own
        yield from definitions.of_dist(number, start, value, macros, frozenset())


class _Definitions:
    """The macros that a spec defines on one line each, as %global or %define."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._bodies: dict[str, list[tuple[int, int, str]]] = {}
        for number, line in enumerate(lines):
            definition = _DEFINITION.match(line)
            body = line[definition.end() :].rstrip() if definition else ""
            if definition and body and not body.endswith("\\"):
                self._bodies.setdefault(definition["name"], []).append((number, definition.end(), body))

    def of_dist(
        self, number: int, start: int, value: str, macros: list[_Macro], within: frozenset[str]
    ) -> list[tuple[int, int]]:
        """Where the mark goes for ``value``, which begins at column ``start`` of line ``number``."""
        for macro in macros:
            if macro.is_dist:
                return [(number, start + macro.start)]
        for macro in macros:
            if macro.name not in within and self._holds_dist(macro.name, within):
                return self._in_definitions(macro.name, within | {macro.name})
        return [(number, start + len(value))]

    def has(self, name: str) -> bool:
        """Whether the spec defines the macro, on however many lines."""
        return any(definition["name"] == name for definition in map(_DEFINITION.match, self._lines) if definition)

    def used_in(self, value: str, within: frozenset[str]) -> Iterator[str]:
        """The bodies of the macros that ``value`` uses, and of those that they use."""
        for name in dict.fromkeys(re.findall(r"%\{?[!?]*(\w+)", value)):
            for _, _, body in self._bodies.get(name, ()) if name not in within else ():
                yield body
                yield from self.used_in(body, within | {name})

    def own_autorelease(self) -> list[tuple[int, int]]:
        """Where the mark goes in a definition of %autorelease that the spec brings itself, if it does."""
        matches = [(number, _OWN_AUTORELEASE.search(line)) for number, line in enumerate(self._lines)]
        positions = [(number, match.start()) for number, match in matches if match]
        if self.has("autorelease") and not positions:
            raise _unreadable(next(line for line in self._lines if re.match(r"[ \t]*%\w+[ \t]+autorelease", line)))
        return positions

    def _in_definitions(self, name: str, within: frozenset[str]) -> list[tuple[int, int]]:
        # All of them, whether they hold the tag or not: which one counts is for the conditions around them to say.
        positions = []
        for number, start, body in self._bodies[name]:
            macros = _macros(body, self._lines[number])
            if name not in [macro.name for macro in macros]:  # one that adds to an earlier one
                positions += self.of_dist(number, start, body, macros, within)
        return positions

    def _holds_dist(self, name: str, within: frozenset[str]) -> bool:
        for number, _, body in self._bodies.get(name, ()):
            macros = _macros(body, self._lines[number])
            inner = within | {name}
            if any(
                macro.is_dist or (macro.name not in inner and self._holds_dist(macro.name, inner)) for macro in macros
            ):
                return True
        return False


def _macros(value: str, line: str) -> list[_Macro]:
    """The macros at the top level of a value. Raises PackageError when one does not end on this line."""
    macros, position = [], 0
    while match := _MACRO.search(value, position):
        if value.startswith("%%", match.start()):
            position = match.start() + 2
            continue
        end = match.end() if match["plain"] else _end_of(value, match.end(), match["open"])
        if end is None:
            raise _unreadable(line)
        macros.append(_Macro(match.start(), value[match.start() : end]))
        position = end
    return macros


def _end_of(value: str, position: int, opening: str) -> int | None:
    depth = 1
    for index in range(position, len(value)):
        depth += (value[index] == opening) - (value[index] == _CLOSING[opening])
        if depth == 0:
            return index + 1
    return None


def _in_front(spec_text: str, lines: list[str], definitions: _Definitions, mark: str, number: int) -> str:
    """What a spec that leaves its release, or its changelog, to rpmautospec gets as its first lines."""
    text = ""
    if uses_autorelease(spec_text) and not definitions.has("autorelease"):
        text += _SET_BY_US.format(number=number, mark=mark)
    if any(_AUTOCHANGELOG.search(line) for line in lines) and not definitions.has("autochangelog"):
        text += _NO_CHANGELOG
    return text


def _lines(text: str) -> list[str]:
    # As rpm has them: str.splitlines would also split at form feeds and the like.
    return re.split(r"(?<=\n)", text)


def _unreadable(line: str) -> PackageError:
    return PackageError(
        "the commit cannot be added to the spec file's Release",
        hint="on one line, such as `Release: 1%{?dist}`",
        evidence=line.rstrip(),
    )
