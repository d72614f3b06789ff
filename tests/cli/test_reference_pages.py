"""The reference under docs/ says what the code says."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from distgate.cli.main import all_commands
from distgate.cli.pages import settings
from distgate.cli.pages.reference import Page, page_of
from distgate.settings import Settings
from distgate.text import shown_value, table

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("which", get_args(Page))
def test_a_reference_page_is_what_its_code_says(which: Page) -> None:
    stale = f"run `distgate reference {which} > docs/reference-{which}.md`"
    assert (DOCS / f"reference-{which}.md").read_text() == page_of(which, all_commands), stale


def test_every_reference_page_is_made_from_code() -> None:
    assert {path.stem.removeprefix("reference-") for path in DOCS.glob("reference-*.md")} == set(get_args(Page))


def test_every_setting_is_on_its_page_once_with_what_it_holds() -> None:
    lines = [line for line in settings.page().splitlines() if line.startswith("| `DISTGATE_")]
    assert len(lines) == len(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


def test_secrets_are_marked_and_have_no_value() -> None:
    (line,) = (line for line in page_of("blocks", all_commands).splitlines() if line.startswith("| `password`"))
    assert '| `""` |' in line
    assert "*secret*" in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"),
        ("", '`""`'),
        (("a", 1.5), '`["a", 1.5]`'),
        (Path("/a"), '`"/a"`'),
        ({}, "`{}`"),
        (False, "`false`"),
    ],
)
def test_a_default_is_shown_as_one_would_write_it(value: object, shown: str) -> None:
    assert shown_value(value) == shown


def test_what_would_end_a_cell_does_not() -> None:
    assert table(("a",), [("b|c\nd",)]) == "| a |\n| --- |\n| b\\|c d |"
