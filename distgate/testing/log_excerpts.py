"""Excerpts of logs as evidence: the last step, the failure, the refusal, and the one line that says most."""

from __future__ import annotations

import json
import re
from itertools import takewhile
from typing import Any

from distgate.text import printable

_FATAL = re.compile(r"(?:^|\| )fatal: \[[^]]*\]: (?:FAILED|UNREACHABLE)! => (?=\{)", re.MULTILINE)
_ANSIBLE_STEP = re.compile(r"(?:^|\| )(PLAY|TASK|RUNNING HANDLER) \[(.*)\] \*+\s*$", re.MULTILINE)
#: ansible-core writes ``[ERROR]:`` since 2.19, of failed tasks too; before, ``ERROR!`` of what it does not take.
_ERROR = re.compile(r"(?:^|\| )(?:ERROR!|\[ERROR\]:) (?=\S)", re.MULTILINE)
_WENT_ON = re.compile(r"(?:^|\| )(?:(?:fatal|failed): \[|(?:PLAY|TASK|RUNNING HANDLER) )", re.MULTILINE)
_UNDEFINED = re.compile(r"undefined variable|' is undefined")
#: Of our own roles, and of the modules dnf and package: the line that names what is missing.
_MISSING = re.compile(
    r"required packages are missing: .*|No package .* available.*|No package matching .*|No match for argument: .*"
    r"|Unable to find a match: .*"
)
_TMT_TEST = re.compile(r"(?:^|\s)Execute '(/.*)' as a '\w+' test\.\s*$", re.MULTILINE)
_TMT_STEP = re.compile(r"^\s*(\w+ step failed)\s*$", re.MULTILINE)
_TMT_COMMAND = re.compile(r"^\s*(Command '.*' returned \d+)\.?\s*$", re.MULTILINE)
_TMT_STDERR = re.compile(r"^\s*# stderr .*\n\s*# ~+\n\s*(\S.*)$", re.MULTILINE)
_STEP_NAMES = {"PLAY": "play", "TASK": "task", "RUNNING HANDLER": "handler"}
_LONGEST = 200
#: Longest line that is shown, in characters; and how many of them are shown of one test.
LONGEST_LINE = 240
MOST_LINES = 8
#: Lines that only repeat that something failed, or that the reason stands above.
_VAGUE = re.compile(
    r"bad exit status|rpm build errors|child return code|waiting for unfinished jobs|compilation terminated"
    r"|^make(\[\d+\])?: \*\*\*|see (the )?\S*log|--skip-broken|^error:\s*$|mock exited"
    r"|^problem: conflicting requests",
    re.IGNORECASE,
)
#: From patterns that name a reason to those that only sound like one; within one rank the first line is the cause.
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
#: A log's line about a test that did not pass.
_FAILS = re.compile(r"\b(FAIL(ED)?|ERROR|not ok)\b|:: \[ *FAIL", re.IGNORECASE)


def last_step(log: str) -> str:
    """The last step in ``log``: ``task 'Install it' of play 'localhost'``, ``test /smoke``.

    ``log`` is what ansible-playbook or tmt wrote (its log or its output), or the end of it; the answer is empty when
    it names nothing.
    """
    tests = _TMT_TEST.findall(log)
    if tests:
        return f"test {tests[-1][:_LONGEST]}"
    step = play = ""
    for heading, name in _ANSIBLE_STEP.findall(log):
        title = f"{_STEP_NAMES[heading]} {name[:_LONGEST]!r}"
        step, play = (title, title) if heading == "PLAY" else (title, play)
    return f"{step} of {play}" if play and step != play else step


def last_failure(log: str) -> str:
    """The message of the last task that failed in ansible-playbook, with the key line of a command's output.

    Cut at 200 characters; empty without a failed task.
    """
    returned = _fatal(log)
    output = next((str(returned[name]) for name in ("stderr", "stdout") if str(returned.get(name, "")).strip()), "")
    return ": ".join(filter(None, (_message(returned), key_line(output))))[:_LONGEST]


def missing_packages(log: str) -> str:
    """The packages that the last failed task of ansible-playbook could not install, as it names them.

    Empty when the task failed for another reason. Cut at 200 characters.
    """
    returned = _fatal(log)
    listed = returned.get("failures")
    messages = [_message(returned), *(str(failure) for failure in (listed if isinstance(listed, list) else []))]
    pattern = [match[0].strip() for message in messages for match in _MISSING.finditer(message)]
    return ", ".join(dict.fromkeys(pattern))[:_LONGEST]


def ansible_refusal(log: str) -> str:
    """Why ansible-playbook refused a playbook, or a file, role or variable of one of its tasks that does not exist.

    Cut at 200 characters; empty if it took them.
    """
    errors = list(_ERROR.finditer(log))
    if errors and not _WENT_ON.search(log, errors[-1].end()):
        return _paragraph(log[errors[-1].end() :])
    returned = _fatal(log)
    message = _message(returned)
    return _paragraph(message) if "reason" in returned or _UNDEFINED.search(message) else ""


def _paragraph(text: str) -> str:
    """The message that ``text`` begins with, in one line, without its origin and the messages that follow."""
    lines = takewhile(lambda line: line.strip() and not line.startswith("Origin: "), text.splitlines())
    return " ".join(line.strip() for line in lines)[:_LONGEST]


def _message(returned: dict[str, Any]) -> str:
    message = returned.get("msg") or returned.get("reason", "")
    return " ".join(str(part) for part in message) if isinstance(message, list) else str(message)


def _fatal(log: str) -> dict[str, Any]:
    """What the last failed task returned; nothing when it is cut short, or no JSON after all."""
    ends = [match.end() for match in _FATAL.finditer(log)]
    try:
        return json.JSONDecoder().raw_decode(log, ends[-1])[0] if ends else {}
    except (ValueError, RecursionError):  # the output of the suite may look like this
        return {}


def tmt_failure(output: str) -> str:
    """Why tmt failed, from the end of its output: the step, the command and its first error, or the last line."""
    matches = [pattern.findall(output) for pattern in (_TMT_STEP, _TMT_COMMAND, _TMT_STDERR)]
    parts = [hits[-1].strip()[:_LONGEST] for hits in matches if hits]
    lines = [line.strip() for line in output.splitlines() if line.strip(" #~\t\r")]
    return ": ".join(parts) or (lines[-1][:_LONGEST] if lines else "see tmt.txt")


def key_line(text: str) -> str:
    """The line of ``text`` that names the reason, else its last one: printable, of at most LONGEST_LINE characters.

    Empty when ``text`` has no line with a word in it.
    """
    lines = [line.strip() for line in printable(text).splitlines() if re.search(r"\w", line)]
    reason = next((line for rank in _RANKS for line in lines if rank.search(line) and not _VAGUE.search(line)), None)
    return shortened(reason or next(reversed(lines), ""))


def failure_excerpt(log: str, test: str) -> str:
    """The lines of ``log`` up to the one that says that ``test`` failed, else its end; MOST_LINES at most."""
    lines = [shortened(line.rstrip()) for line in printable(log).splitlines() if line.strip()]
    pattern = re.compile(rf"(?<![\w-]){re.escape(test)}(?![\w-])")
    failures = [at for at, line in enumerate(lines) if _FAILS.search(line) and pattern.search(line)]
    return "\n".join(lines[: failures[0] + 1 if failures else None][-MOST_LINES:])


def shortened(line: str) -> str:
    """``line``, cut off after LONGEST_LINE characters."""
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."
