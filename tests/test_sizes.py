"""Sizes as people write and read them."""

import pytest

from distgate.errors import ConfigurationError
from distgate.text import format_size, parse_size

WRITTEN = [
    ("0", 0),
    ("1500", 1500),
    ("512 B", 512),
    ("1k", 1024),
    ("500M", 500 << 20),
    ("50G", 50 << 30),
    ("50 GiB", 50 << 30),
    ("1.5T", 3 << 39),
]


@pytest.mark.parametrize(("text", "size"), WRITTEN)
def test_a_size_is_a_number_and_a_unit_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "ten", "-1G", "1e9", "5 X", "1..5G", "50 G G", "nan"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no size") as refused:
        parse_size(text)
    assert "50G" in refused.value.hint


SHOWN = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (336 << 20, "336 MiB"), (3 << 29, "1.5 GiB")]


@pytest.mark.parametrize(("size", "text"), SHOWN)
def test_a_size_is_shown_in_its_unit(size: int, text: str) -> None:
    assert format_size(size) == text
