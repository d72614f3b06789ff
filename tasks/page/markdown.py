"""The forms that the summary is made of. What is put into them must be safe already (distgate.text)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    """A table. Prefect's pages cut off what is wider than they are: for what may be long there is ``facts``."""

    def line(cells: tuple[object, ...]) -> str:
        return "| " + " | ".join(map(str, cells)) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)])


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and texts; long texts are wrapped, empty ones left out."""
    return "\n".join(f"- {name}: {text}" for name, text in pairs if text)
