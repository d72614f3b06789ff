"""What strangers wrote is shown, and neither obeyed by a terminal nor rendered by a page."""

from __future__ import annotations

import pytest

from distgate.text import fenced, inline, printable

TERMINAL = [
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b]0;a new title\x07text", "text"),
    ("\x1b]8;;http://x\x1b\\link", "link"),
    ("\x1b[2J\x1b[1;1Hgone", "gone"),
    ("\x9b31mC1", "31mC1"),
    ("a\rb\x08c\x00", "abc"),
    ("right \u202e left", "right  left"),
    ("half \ud800", "half "),
    ("unfinished \x1b[", "unfinished "),
    ("two\n\tlines", "two\n\tlines"),
    ("Jörg 日本", "Jörg 日本"),
]


@pytest.mark.parametrize(("text", "shown"), TERMINAL)
def test_a_terminal_obeys_nothing_of_it(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert "\x1b" not in printable(text)
    printable(text).encode()


def test_one_line_stays_one_line() -> None:
    assert printable("a\nb\r\n\tc", newlines=False) == "a b c"


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("[here](http://x)", r"\[here\]\(http://x\)"),
        ("![](http://x/spy.png)", r"\!\[\]\(http://x/spy.png\)"),
        ("<img src=x>", r"\<img src=x\>"),
        ("a | b\nc", r"a \| b c"),
        ("`code` *x* a_b", r"\`code\` \*x\* a_b"),
        ("dos2unix-7.5.1-1.fc41", "dos2unix-7.5.1-1.fc41"),
    ],
)
def test_markdown_shows_it_as_it_is(text: str, markdown: str) -> None:
    assert inline(text) == markdown


@pytest.mark.parametrize("text", ["plain", "```\n# a heading of the package's own\n```", "````", "a ` b"])
def test_a_fence_is_not_closed_from_inside(text: str) -> None:
    first, *_, last = fenced(text).splitlines()
    assert first == last
    assert set(first) == {"`"}
    assert first not in text
