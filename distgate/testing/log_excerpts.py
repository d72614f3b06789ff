"""What a test suite was doing when its log ends: the evidence of a hang.

The one line of a log that says most of why something failed: the evidence that people read first.
"""

from __future__ import annotations

import json
import re
from itertools import takewhile
from typing import Any

from distgate.text import printable

_FATAL = re.compile(r"(?:^|\| )fatal: \[[^]]*\]: (?:FAILED|UNREACHABLE)! => (?=\{)", re.MULTILINE)
_ANSIBLE = re.compile(r"(?:^|\| )(PLAY|TASK|RUNNING HANDLER) \[(.*)\] \*+\s*$", re.MULTILINE)
#: ansible-core writes ``[ERROR]:`` since 2.19, of failed tasks too; before, ``ERROR!`` of what it does not take.
_ERROR = re.compile(r"(?:^|\| )(?:ERROR!|\[ERROR\]:) (?=\S)", re.MULTILINE)
_WENT_ON = re.compile(r"(?:^|\| )(?:(?:fatal|failed): \[|(?:PLAY|TASK|RUNNING HANDLER) )", re.MULTILINE)
_UNDEFINED = re.compile(r"undefined variable|' is undefined")
#: Of our own roles, and of the modules dnf and package: the line that names what is missing.
_MISSING = re.compile(
    r"required packages are missing: .*|No package .* available.*|No package matching .*|No match for argument: .*"
    r"|Unable to find a match: .*"
)
_TMT = re.compile(r"(?:^|\s)Execute '(/.*)' as a '\w+' test\.\s*$", re.MULTILINE)
_STEP = re.compile(r"^\s*(\w+ step failed)\s*$", re.MULTILINE)
_COMMAND = re.compile(r"^\s*(Command '.*' returned \d+)\.?\s*$", re.MULTILINE)
_STDERR = re.compile(r"^\s*# stderr .*\n\s*# ~+\n\s*(\S.*)$", re.MULTILINE)
_WORDS = {"PLAY": "play", "TASK": "task", "RUNNING HANDLER": "handler"}
_LONGEST = 200


def last_step(log: str) -> str:
    """The last step that ``log`` tells of, in words: ``task 'Install it' of play 'localhost'``, ``test /smoke``.

    ``log`` is what ansible-playbook or tmt wrote (its log or its output), or the end of it; the answer is empty when
    it names nothing.
    """
    tests = _TMT.findall(log)
    if tests:
        return f"test {tests[-1][:_LONGEST]}"
    step = play = ""
    for word, name in _ANSIBLE.findall(log):
        said = f"{_WORDS[word]} {name[:_LONGEST]!r}"
        step, play = (said, said) if word == "PLAY" else (said, play)
    return f"{step} of {play}" if play and step != play else step


def last_failure(log: str) -> str:
    """The message of the last task that ansible-playbook gave up at, with the line of a command's own words that
    tells most, cut at 200 characters; empty without one."""
    said = _fatal(log)
    words = next((str(said[name]) for name in ("stderr", "stdout") if str(said.get(name, "")).strip()), "")
    return ": ".join(filter(None, (_message(said), key_line(words))))[:_LONGEST]


def missing_packages(log: str) -> str:
    """What the last task that ansible-playbook gave up at said of packages that are not to be had, which it names.

    Empty when it gave up for another reason. Cut at 200 characters.
    """
    said = _fatal(log)
    listed = said.get("failures")
    words = [_message(said), *(str(one) for one in (listed if isinstance(listed, list) else []))]
    named = [found[0].strip() for word in words for found in _MISSING.finditer(word)]
    return ", ".join(dict.fromkeys(named))[:_LONGEST]


def refusal(log: str) -> str:
    """Why ansible-playbook did not take a playbook, or what a task of it brings in or reads: a role or a file that is
    nowhere, a variable without a value. Cut at 200 characters; empty if it did."""
    errors = list(_ERROR.finditer(log))
    if errors and not _WENT_ON.search(log, errors[-1].end()):
        return _paragraph(log[errors[-1].end() :])
    returned = _fatal(log)
    message = _message(returned)
    return _paragraph(message) if "reason" in returned or _UNDEFINED.search(message) else ""


def _paragraph(text: str) -> str:
    """The message that ``text`` begins with, in one line: what follows is where it comes from and other messages."""
    lines = takewhile(lambda line: line.strip() and not line.startswith("Origin: "), text.splitlines())
    return " ".join(line.strip() for line in lines)[:_LONGEST]


def _message(said: dict[str, Any]) -> str:
    words = said.get("msg") or said.get("reason", "")
    return " ".join(str(one) for one in words) if isinstance(words, list) else str(words)


def _fatal(log: str) -> dict[str, Any]:
    """What the last failed task returned; nothing when it is cut short, or no JSON after all."""
    ends = [found.end() for found in _FATAL.finditer(log)]
    try:
        return json.JSONDecoder().raw_decode(log, ends[-1])[0] if ends else {}
    except (ValueError, RecursionError):  # the suite's own words may look like this
        return {}


def tmt_failure(output: str) -> str:
    """Why tmt gave up, of the end of its output: the step, the command and its first word on it, or the last line."""
    found = [pattern.findall(output) for pattern in (_STEP, _COMMAND, _STDERR)]
    words = [hits[-1].strip()[:_LONGEST] for hits in found if hits]
    lines = [line.strip() for line in output.splitlines() if line.strip(" #~\t\r")]
    return ": ".join(words) or (lines[-1][:_LONGEST] if lines else "see tmt.txt")


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


def key_line(text: str) -> str:
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
