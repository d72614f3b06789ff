"""What dnf and rpm print when they fail, and whose fault it is: they end with status 1 for everything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

Blame = Literal["package", "infrastructure", "image-full"]

# The first pattern that is found decides.
_PATTERNS: tuple[tuple[Blame, str], ...] = (
    # rpm's own sum, done before anything is written: what does not fit is the package, unless it is our cache.
    ("infrastructure", r"more space needed on the /run/distgate"),
    ("image-full", r"more space needed on|Disk Requirements:|needs \d+\S* ?more space on|needs \d+\S+ on the "),
    ("infrastructure", r"No space left on device|Read-only file system"),
    ("infrastructure", r"Failed to download|Cannot download|Curl error|No URLs in mirrorlist|incorrect checksum"),
    ("package", r"^ ?Problem(?: \d+)?:|nothing provides|conflicting requests"),
    ("package", r"Transaction test error|file .* conflicts (?:between|with)"),
    (
        "package",
        r"scriptlet failed, exit status|Error in \S+ scriptlet in rpm package|error: unpacking of archive failed",
    ),
    ("package", r"is filtered out by exclude filtering|does not have a compatible architecture"),
)
_SCRIPTLET = re.compile(r"scriptlet failed, exit status|Error in \S+ scriptlet in rpm package")
_RUNNING = re.compile(r"^ *Running scriptlet: (\S+)", re.MULTILINE)
_STARTED = re.compile(r"^ *(?:Running scriptlet|Installing|Upgrading|Reinstalling|Downgrading|Cleanup|Verifying) *:")
_EXCLUDES = re.compile(r"conflicts (?:with|between)|obsoletes")
_NEEDED = re.compile(
    r"(?:At least )?\d+ ?[KMG]i?B more space needed on the \S+ filesystem|needs \d+\S* ?\S* on the \S+"
)


def at_fault(output: str) -> Blame:
    """Who is to blame for a transaction in which dnf printed this: the packages, the space in the image, or the
    machine and its repositories."""
    for blame, pattern in _PATTERNS:
        if re.search(pattern, output, re.MULTILINE):
            return blame
    return "infrastructure"


def is_refusal(output: str) -> bool:
    """Whether dnf declined before it changed anything: the solver did, or rpm's test of conflicts."""
    problem = re.search(r"^ ?Problem(?: \d+)?:|conflicting requests|conflicts (?:between|with)", output, re.MULTILINE)
    return bool(problem) and not failed_scriptlets(output)


def failed_scriptlets(output: str) -> list[str]:
    """The lines of dnf's output about failed scriptlets; dnf itself regards most of them as warnings."""
    return [line.strip() for line in output.splitlines() if _SCRIPTLET.search(line)]


def running_scriptlet(output: str) -> str:
    """The package whose scriptlet was the last thing that dnf began, or nothing."""
    last = next((line for line in reversed(output.splitlines()) if _STARTED.match(line)), "")
    match = _RUNNING.match(last)
    return match[1] if match else ""


def space_needed(output: str) -> str:
    """The line in which rpm says how much space is missing."""
    match = _NEEDED.search(output)
    return match[0] if match else "see the output"


def sentence(output: str) -> str:
    """What went wrong, in one sentence that quotes the most specific line."""
    failed = failed_scriptlets(output)
    if failed:
        return f"a scriptlet failed: {failed[0]}"
    return "dnf cannot install the packages: " + complaint(output)


def complaint(output: str) -> str:
    """The most specific line of dnf's output about a refusal."""
    lines = [line.strip(" -") for line in output.splitlines()]
    pattern = r"nothing provides|conflicts with|conflicts between|obsoletes .* provided by|Problem"
    problems = [line for line in lines if re.search(pattern, line)]
    errors = [line for line in lines if line.startswith(("Error:", "error:"))]
    best = [line for line in problems if "Problem" not in line] or problems
    return (best or errors or ["see its output"])[-1]


def is_planned(request: str, output: str) -> bool:
    """Whether dnf's table of a transaction lists ``request`` (name-epoch:version-release.arch)."""
    name, version, arch = parts_of(request)
    epoch, _, plain = version.partition(":")
    printed = plain if epoch == "0" else version
    # A name that is too long for its column stands on a line of its own.
    return (
        re.search(rf"^ {re.escape(name)}\s+{re.escape(arch)}\s+{re.escape(printed)}\s", output, re.MULTILINE)
        is not None
    )


def named_in(requests: Iterable[str], output: str) -> list[str]:
    """Those of ``requests`` that dnf or rpm mention, in the ways in which they write a package."""
    return [request for request in requests if any(_mentions(form, output) for form in _forms(request))]


def exclude_each_other(some: Sequence[str], others: Sequence[str], output: str) -> bool:
    """Whether a line of dnf's or rpm's says that one of ``some`` conflicts with one of ``others``, and none that
    something is missing."""
    lines = [line for line in output.splitlines() if _EXCLUDES.search(line)]
    return "nothing provides" not in output and any(named_in(some, line) and named_in(others, line) for line in lines)


def parts_of(request: str) -> tuple[str, str, str]:
    """Name, epoch:version-release and architecture in dnf's notation for one exact package."""
    rest, _, arch = request.rpartition(".")
    name, version, release = rest.rsplit("-", 2)
    return name, f"{version}-{release}", arch


def _forms(request: str) -> list[str]:
    name, version, arch = parts_of(request)
    return [request, f"{name}-{version.partition(':')[2]}.{arch}"]


def _mentions(form: str, output: str) -> bool:
    return re.search(rf"(?<![\w.+-]){re.escape(form)}(?![\w+-])", output) is not None
