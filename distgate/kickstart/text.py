"""A kickstart as text: its includes put in their places, its commands and sections as pykickstart sees them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from distgate.errors import ConfigurationError

#: What opens a section for pykickstart; any other word with a % at a line's start belongs to the text around it.
SECTIONS = frozenset(
    {
        "%addon",
        "%anaconda",
        "%certificate",
        "%onerror",
        "%packages",
        "%post",
        "%pre",
        "%pre-install",
        "%traceback",
    }
)
#: What errors call a text that has no file.
UNNAMED = "kickstart"
#: Includes within includes; more of them is taken for a ring.
DEPTH = 16


@dataclass(frozen=True)
class Line:
    """One line with its ending, and where it was written."""

    text: str
    file: Path
    number: int


@dataclass(frozen=True)
class Command:
    """A line of the command section: its first word, and its index among the lines."""

    name: str
    index: int


@dataclass(frozen=True)
class Section:
    """A section: its name with the %, and the indices of its first line (the header) and its last (``%end``)."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Outline:
    """The lines of a flattened kickstart, endings included, and what is where in them."""

    lines: tuple[str, ...]
    commands: tuple[Command, ...]
    sections: tuple[Section, ...]

    def named(self, name: str) -> tuple[Section, ...]:
        """The sections of that name (``%packages``), in order."""
        return tuple(section for section in self.sections if section.name == name)


def read_lines(path: Path, tree: Path) -> tuple[Line, ...]:
    """The lines of ``path`` with every ``%include`` followed, relative to the file that asks for it.

    Raises ConfigurationError, naming file and line, for a file that is not there or lies outside ``tree``, for a
    URL, for a ring of includes, and for ``%ksappend``, which would be fetched while it is read.
    """
    return tuple(_followed(path, tree.resolve(), ()))


def split_lines(text: str) -> list[str]:
    """The lines of ``text`` with their endings, as pykickstart counts them (it breaks at U+2028 and its like too)."""
    return text.splitlines(keepends=True)


def _followed(path: Path, tree: Path, above: tuple[Path, ...]) -> list[Line]:
    lines: list[Line] = []
    for number, text in enumerate(split_lines(_content(path)), 1):
        line = Line(text, path, number)
        if text.split()[:1] == ["%include"]:
            lines += _ended(_followed(_included(line, tree, above), tree, (*above, path.resolve())))
        else:
            _refuse_appending(line)
            lines.append(line)
    return lines


def _content(path: Path) -> str:
    try:
        # No translation of line endings: an edit keeps every byte it does not mean to change.
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path.name} is no UTF-8 text: {error.reason} at byte {error.start}") from None


def _included(line: Line, tree: Path, above: tuple[Path, ...]) -> Path:
    name = _argument(line)
    if "://" in name:
        raise refusal(line, f"{name} is on the network; an image is defined by files of one tree")
    path = (line.file.parent / name).resolve()
    if not path.is_relative_to(tree):
        raise refusal(line, f"{name} lies outside {tree.name}/, the tree of the definition")
    if not path.is_file():
        raise refusal(line, f"there is no {name} to include")
    if path in (*above, line.file.resolve()) or len(above) >= DEPTH:
        raise refusal(line, f"{name} includes itself")
    return path


def _argument(line: Line) -> str:
    try:
        argv = shlex.split(line.text, comments=True)
    except ValueError as error:
        raise refusal(line, str(error)) from None
    if len(argv) != 2 or not argv[1]:
        raise refusal(line, "%include wants the name of one file")
    return argv[1]


def _ended(lines: list[Line]) -> list[Line]:
    # What follows the %include must not be glued to an included file without a last line ending.
    if lines and not lines[-1].text.endswith(("\n", "\r")):
        lines[-1] = Line(lines[-1].text + "\n", lines[-1].file, lines[-1].number)
    return lines


def _refuse_appending(line: Line) -> None:
    if line.text.strip().startswith("%ksappend"):
        raise refusal(line, "%ksappend fetches text while it is read; use %include and a file of the tree")


def refusal(line: Line, text: str) -> ConfigurationError:
    """The error for ``line``: where it was written, and what is wrong with it."""
    return broken(line.file.name, line.number, text)


def broken(name: str, number: int | None, text: str, hint: str = "") -> ConfigurationError:
    """The error for line ``number`` of the kickstart called ``name``."""
    where = f", line {number}" if number else ""
    return ConfigurationError(f"{name}{where}: {text.strip()}", hint=hint)


def outline(text: str, name: str = UNNAMED) -> Outline:
    """Where the commands and sections of a flattened kickstart are, by the rules of pykickstart's own reader.

    The text is one that pykickstart accepts. Raises ConfigurationError for what is left of ``%include`` and
    ``%ksappend``: a text that reaches for other files is not the whole definition.
    """
    lines = split_lines(text)
    commands: list[Command] = []
    sections: list[Section] = []
    opened: tuple[str, int] | None = None
    for index, line in enumerate(lines):
        command = _first_word(line, in_section=opened is not None)
        _refuse_reaching_out(command, Line(line, Path(name), index + 1))
        if opened and command == "%end":
            sections.append(Section(*opened, index))
            opened = None
        elif not opened and command in SECTIONS:
            opened = (command, index)
        elif not opened and command:
            commands.append(Command(command, index))
    return Outline(tuple(lines), tuple(commands), tuple(sections))


def _first_word(line: str, in_section: bool) -> str:
    if in_section:
        return line.split()[0] if line.strip() else ""
    argv = shlex.split(line, comments=True)
    return argv[0] if argv else ""


def _refuse_reaching_out(command: str, line: Line) -> None:
    if command == "%include":
        raise refusal(line, "%include is left over; only a flattened kickstart is whole")
    _refuse_appending(line)


def kickstart_hash(text: str) -> str:
    """The SHA-256 of a flattened kickstart, in hexadecimal: the identity of what it defines."""
    return sha256(text.encode("utf-8")).hexdigest()
