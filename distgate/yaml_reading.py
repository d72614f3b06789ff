"""YAML that strangers wrote, read without executing, fetching or believing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

#: A playbook is some kilobytes; whatever is longer than this many bytes is none.
_LIMIT = 1 << 20
_MERGES, _KEYS = 100, 10_000


class Unreadable(Exception):
    """A file that is no YAML; the text says where and why."""


class _Tolerant(yaml.SafeLoader):
    """Reads ansible's own tags (!vault, !unsafe) and any other as the plain value behind them."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Merge keys multiply: nested ones would fill all memory from a few lines.
        merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        if any(len(value.value) > _MERGES for value in merged) or len(node.value) > _KEYS:
            raise yaml.constructor.ConstructorError(None, None, "too many merged keys", node.start_mark)
        super().flatten_mapping(node)


def _plain(loader: _Tolerant, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node)
    return node.value


_Tolerant.add_multi_constructor("!", _plain)


def read_yaml(path: Path, *, limit: int = _LIMIT) -> Any:
    """The document in ``path``, as lists, mappings and plain values.

    Raises Unreadable, with line and column, for what is no YAML, and for a file of more than ``limit`` bytes.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as failed:
        raise Unreadable(f"cannot be read: {failed.strerror}") from failed
    if len(data) > limit:
        raise Unreadable(f"is longer than {limit} bytes")
    loader = None
    try:
        loader = _Tolerant(data)
        return loader.get_single_data()
    except yaml.YAMLError as broken:
        raise Unreadable(_explain(broken)) from broken
    except (RecursionError, ValueError, TypeError) as broken:  # nested too deeply, dates such as 2024-99-99, odd keys
        raise Unreadable(f"is no YAML: {broken}") from broken
    finally:
        if loader is not None:
            loader.dispose()


def _explain(broken: yaml.YAMLError) -> str:
    mark = getattr(broken, "problem_mark", None)
    where = f"line {mark.line + 1} column {mark.column + 1}: " if mark else ""
    return f"{where}{getattr(broken, 'problem', None) or getattr(broken, 'reason', None) or 'is no YAML'}"
