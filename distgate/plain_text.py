"""Text that strangers wrote (commit messages, test names, logs), made harmless for terminals and for markdown."""

from __future__ import annotations

import re
import unicodedata

#: Colours, cursor movements, window titles: what a terminal obeys instead of showing it.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?")
#: Controls, halves of characters, and invisible marks that reorder the text around them.
_UNSEEN = ("Cc", "Cs", "Cf")
# An underscore inside a word means nothing in markdown, and Prefect's pages would show the backslash.
_MARKDOWN = re.compile(r"([\\`*{}\[\]<>()#|!~&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def printable(text: str, *, newlines: bool = True) -> str:
    """``text`` without what a terminal would obey; tabs and, unless ``newlines`` is False, line ends are kept.

    The result can always be encoded as UTF-8.
    """
    shown = _ESCAPES.sub("", text)
    if not newlines:
        shown = " ".join(shown.split())
    kept = "\n\t"
    return "".join(one for one in shown if one in kept or unicodedata.category(one) not in _UNSEEN)


def inline(text: str) -> str:
    """``text`` as one line of markdown that shows it as it is: no link, no picture, no HTML, no table cell."""
    return _MARKDOWN.sub(r"\\\1", printable(text, newlines=False))


def fenced(text: str) -> str:
    """``text`` as a block of markdown code, with a fence that the text itself cannot close."""
    shown = printable(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{shown}\n{fence}"
