"""The one line of a log that says most of why something failed: the evidence that people read first."""

from __future__ import annotations

import re

from distgate.plain_text import printable

#: Longest line that is shown, in characters; and how many of them are shown of one test.
MOST = 240
MOST_LINES = 8
#: What only repeats that something failed, or warns that the reason has been said above.
_VAGUE = re.compile(
    r"bad exit status|rpm build errors|child return code|waiting for unfinished jobs|compilation terminated"
    r"|^make(\[\d+\])?: \*\*\*|see (the )?\S*log|--skip-broken|^error:\s*$|mock exited"
    r"|^problem: conflicting requests",
    re.IGNORECASE,
)
#: From words that name a reason to words that only sound like one; within one rank the first line is the cause.
_RANKS = (
    re.compile(
        r"\bfatal error:|\berror:\s*\S|^\w*(Error|Exception): |nothing provides|\bconflicts with\b"
        r"|file .* from install|undefined reference|kernel panic|no space left|out of memory"
        r"|\bsegfault\b|^not ok\b|^E  +\S",
        re.IGNORECASE,
    ),
    re.compile(
        r"failed|\bfailure\b|cannot|could not|no such file|not found|denied|emergency mode|^FAIL", re.IGNORECASE
    ),
)
#: How a log says that a test did not pass.
_FAILS = re.compile(r"\b(FAIL(ED)?|ERROR|not ok)\b|:: \[ *FAIL", re.IGNORECASE)


def telling_line(text: str) -> str:
    """The line of ``text`` that names the reason, else its last one, as printable text of at most MOST characters.

    Empty when ``text`` has no line with a word in it.
    """
    lines = [line.strip() for line in printable(text).splitlines() if re.search(r"\w", line)]
    found = next((line for rank in _RANKS for line in lines if rank.search(line) and not _VAGUE.search(line)), None)
    return shortened(found or next(reversed(lines), ""))


def excerpt(log: str, test: str) -> str:
    """What ``log`` says of a failing test: the lines up to the one that says so, else its end; MOST_LINES at most."""
    lines = [shortened(line.rstrip()) for line in printable(log).splitlines() if line.strip()]
    named = re.compile(rf"(?<![\w-]){re.escape(test)}(?![\w-])")
    said = [at for at, line in enumerate(lines) if _FAILS.search(line) and named.search(line)]
    return "\n".join(lines[: said[0] + 1 if said else None][-MOST_LINES:])


def shortened(line: str) -> str:
    """``line``, cut off after MOST characters."""
    return line if len(line) <= MOST else line[: MOST - 3] + "..."
