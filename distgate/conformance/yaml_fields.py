"""YAML of a site, read strictly: an error names its file, line and field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from distgate.errors import ConfigurationError

#: Bytes of such a file; all are a few kilobytes.
_LIMIT = 1 << 20


class Fields:
    """One mapping of a document. Each method reads a field; ``done`` refuses fields that were not read.

    Every method raises ConfigurationError that names file, line and field.
    """

    def __init__(self, node: yaml.Node, file: Path, name: str = "") -> None:
        self._node, self._file, self._name = node, file, name
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong("must be a mapping", "", node)
        self._known: set[str] = set()
        self._values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in self._values:
                raise self.wrong("is there twice or is no name", getattr(key, "value", "?"), key)
            self._values[str(key.value)] = value

    def text(self, key: str, default: str | None = None, *, like: str = r"(?s).+", means: str = "some text") -> str:
        """A text that the regular expression ``like`` matches as a whole; ``means`` says it for people."""
        node = self._take(key, default is None)
        if node is None:
            return default or ""
        if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(like, str(node.value)):
            raise self.wrong(f"must be {means}", key, node)
        return str(node.value)

    def number(self, key: str, default: int, *, least: int = 1, most: int) -> int:
        """A whole number within bounds."""
        node = self._take(key, False)
        if node is None:
            return default
        text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
            raise self.wrong(f"must be a whole number from {least} to {most}", key, node)
        return int(text)

    def texts(self, key: str, *, like: str, means: str) -> tuple[str, ...]:
        """A list of different texts, each as ``text`` reads it; without the field an empty one."""
        texts: list[str] = []
        for node in self._list(key, False):
            if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(like, str(node.value)):
                raise self.wrong(f"must be a list of {means}", key, node)
            if node.value in texts:
                raise self.wrong(f"names {node.value} twice", key, node)
            texts.append(str(node.value))
        return tuple(texts)

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping of plain values under names; without the field an empty one."""
        node = self._take(key, False)
        if node is None:
            return {}
        loader = yaml.SafeLoader("")
        try:
            value = loader.construct_document(node)
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            raise self.wrong(
                f"holds a value that is none: {getattr(error, 'problem', None) or error}", key, node
            ) from error
        finally:
            loader.dispose()
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise self.wrong("must be a mapping of names", key, node)
        return value

    def fields(self, key: str) -> Fields:
        """The mapping of fields that must be there."""
        node = self._take(key, True)
        assert node is not None  # noqa: S101 - _take has raised
        return Fields(node, self._file, self._named(key))

    def each(self, key: str) -> Iterator[Fields]:
        """The mappings of fields in the list that must be there and not be empty; each is refused if it has more."""
        nodes = self._list(key, True)
        for number, node in enumerate(nodes):
            entry = Fields(node, self._file, f"{self._named(key)}[{number}]")
            yield entry
            entry.done()
        if not nodes:
            raise self.wrong("must not be empty", key, self._values[key])

    def done(self) -> None:
        """Refuse fields that were not read: a mistyped name would be without effect."""
        for name, node in self._values.items():
            if name not in self._known:
                names = ", ".join(sorted(self._known))
                raise self.wrong(f"is not known here; known are {names}", name, node)

    def wrong(self, problem: str, key: str, node: yaml.Node | None = None) -> ConfigurationError:
        """The error for a field that is not as it should be, to be raised."""
        at = node or self._values.get(key) or self._node
        field = self._named(key) if key else self._name
        return ConfigurationError(f"{self._file} line {at.start_mark.line + 1}: {field or 'the file'} {problem}")

    def _named(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def _take(self, key: str, needed: bool) -> yaml.Node | None:
        self._known.add(key)
        if needed and key not in self._values:
            raise self.wrong("is missing", key)
        return self._values.get(key)

    def _list(self, key: str, needed: bool) -> Sequence[yaml.Node]:
        node = self._take(key, needed)
        if node is not None and not isinstance(node, yaml.SequenceNode):
            raise self.wrong("must be a list", key, node)
        return node.value if node is not None else ()


def read_fields(file: Path) -> Fields:
    """The mapping that ``file`` is. Raises ConfigurationError when it is none, is no YAML, or cannot be read."""
    try:
        with file.open("rb") as stream:
            text = stream.read(_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
    if len(text) > _LIMIT:
        raise ConfigurationError(f"{file} is longer than {_LIMIT} bytes")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{file}{where}: {getattr(error, 'problem', None) or 'is no YAML'}") from error
    if node is None:
        raise ConfigurationError(f"{file} is empty")
    return Fields(node, file)
