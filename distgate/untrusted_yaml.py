"""YAML that strangers wrote, read without executing, fetching or believing anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

#: A playbook is some kilobytes; whatever is longer than this many bytes is none.
_LIMIT = 1 << 20
_MERGED_KEYS = 100_000  # of one document, in all
#: Bytes of all documents that are read of one checkout; reading takes half a minute for each MiB on a slow host.
_TOTAL = 4 << 20
_LONGEST_NUMBER = 100  # characters
#: What PyYAML lets through: nested too deeply, dates such as 2024-99-99, `!!bool perhaps`, `!!int ""`.
_REFUSALS = (RecursionError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class Unreadable(Exception):
    """A file that is no YAML; the text names line, column and problem."""


class _Tolerant(yaml.SafeLoader):
    """Reads ansible's own tags (!vault, !unsafe) and any other as the plain value behind them."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._merged_keys = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # PyYAML 6.0.4 takes each key once, so that nested merges no longer multiply; but thousands of mappings that
        # merge one with thousands of keys still would fill all memory from one MiB.
        merged = (value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge")
        for value in merged:
            for mapping in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(mapping, yaml.MappingNode):
                    self.flatten_mapping(mapping)
                self._merged_keys += len(mapping.value)
                if self._merged_keys > _MERGED_KEYS:
                    raise yaml.constructor.ConstructorError(None, None, "too many merged keys", node.start_mark)
        super().flatten_mapping(node)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        # A long number in base 60 takes minutes to read, and Python refuses to write long ones.
        _check_length(node)
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        _check_length(node)
        return super().construct_yaml_float(node)


def _check_length(number: yaml.ScalarNode) -> None:
    if len(number.value) > _LONGEST_NUMBER:
        raise yaml.constructor.ConstructorError(None, None, "a number is too long", number.start_mark)


def _plain(loader: _Tolerant, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node)
    return node.value


_Tolerant.add_multi_constructor("!", _plain)
_Tolerant.add_constructor("tag:yaml.org,2002:int", _Tolerant.construct_yaml_int)
_Tolerant.add_constructor("tag:yaml.org,2002:float", _Tolerant.construct_yaml_float)


@dataclass
class Documents:
    """The documents of one checkout, read up to ``bytes_left`` bytes in all: a thousand files must not take a day."""

    bytes_left: int = _TOTAL
    _documents: dict[Path, Any] = field(default_factory=dict[Path, Any])

    def read(self, path: Path) -> Any:
        """As read_yaml, once for each path; what goes beyond the size in all is Unreadable, too."""
        if path not in self._documents:
            self._documents[path] = self._read(path)
        return self._documents[path]

    def _read(self, path: Path) -> Any:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise Unreadable(f"cannot be read: {error.strerror}") from error
        if min(size, _LIMIT) > self.bytes_left:
            raise Unreadable(f"is not read: with the files before it, it has more than {_TOTAL} bytes")
        if size <= _LIMIT:
            self.bytes_left -= size
        return read_yaml(path)


def read_yaml(path: Path, *, limit: int = _LIMIT) -> Any:
    """The document in ``path``, as lists, mappings and plain values.

    Raises Unreadable, with line and column, for what is no YAML, and for a file of more than ``limit`` bytes.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise Unreadable(f"is longer than {limit} bytes")
    loader = None
    try:
        loader = _Tolerant(data)
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise Unreadable(_explain(error)) from error
    except _REFUSALS as error:
        raise Unreadable(f"is no YAML: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _explain(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1} column {mark.column + 1}: " if mark else ""
    return f"{where}{getattr(error, 'problem', None) or getattr(error, 'reason', None) or 'is no YAML'}"
