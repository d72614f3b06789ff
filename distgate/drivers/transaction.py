"""One RPM transaction in an image or a directory, done by a child that lives in namespaces of its own.

The child (distgate.drivers.transaction_child) has a private mount and process namespace, and dies with its
caller: the kernel then ends whatever it had started and undoes its mounts. Scriptlets have no network.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from distgate.packages import Nevra
from distgate.process import run, tail_of

TRANSCRIPT = 20_000
TRANSCRIPT_NAME = "transcript.log"


@dataclass(frozen=True)
class RepositorySource:
    """A repository for dnf. A lower ``priority`` wins over newer versions elsewhere, ``cost`` among equals."""

    name: str
    baseurl: str = ""
    mirrorlist: str = ""
    metalink: str = ""
    priority: int = 99
    cost: int = 1000
    excluded: tuple[str, ...] = ()

    @classmethod
    def at(cls, name: str, place: str | Path, priority: int = 99) -> RepositorySource:
        """A repository by URL or by directory; ``metalink+URL`` and ``mirrorlist+URL`` name a list of mirrors."""
        text = str(place)
        kind, _, address = text.partition("+")
        if kind == "metalink":
            return cls(name, metalink=address, priority=priority)
        if kind == "mirrorlist":
            return cls(name, mirrorlist=address, priority=priority)
        return cls(name, text if "://" in text else Path(text).resolve().as_uri(), priority=priority)

    @property
    def is_local(self) -> bool:
        return self.baseurl.startswith("file:")

    @property
    def directory(self) -> Path:
        """Where a local repository is."""
        return Path(unquote(urlsplit(self.baseurl).path))


@dataclass(frozen=True)
class Script:
    """A script to run in the root after the transaction, by ``interpreter``; a ``fatal`` one may fail it."""

    name: str
    body: str
    interpreter: str = "/bin/sh"
    fatal: bool = True


@dataclass(frozen=True)
class Transaction:
    """What to install where: ``image`` (a qcow2 file with its root at ``offset`` bytes) or the directory ``root``.

    ``requests`` are dnf's words (``@group``, names, exact NEVRAs). ``release`` is what ``$releasever`` means.
    """

    repositories: tuple[RepositorySource, ...]
    requests: tuple[str, ...]
    image: Path | None = None
    offset: int = 0
    root: Path | None = None
    excluded: tuple[str, ...] = ()
    weak_dependencies: bool = False
    scripts: tuple[Script, ...] = ()
    release: str = "12"


@dataclass(frozen=True)
class Outcome:
    """The image's RPM database afterwards, and what dnf and the scripts printed."""

    installed: tuple[Nevra, ...]
    transcript: str


def perform(transaction: Transaction, scratch: Path, timeout: float) -> Outcome:
    """Carry out ``transaction``; its configuration, caches and logs live in a new directory below ``scratch``.

    ``timeout`` is in seconds. Raises PackageError when the packages cannot be installed together or a scriptlet
    fails, ConfigurationError without root rights, InfrastructureError for everything else. No mount, loop
    device or process is left, whatever happens.
    """
    if os.geteuid() != 0:
        raise ConfigurationError(
            "an offline transaction mounts file systems, which takes root", hint="start the worker as root"
        )
    with tempfile.TemporaryDirectory(prefix="transaction-", dir=scratch) as name:
        workspace = Path(name)
        task, answer, log = workspace / "task.json", workspace / "answer.json", workspace / TRANSCRIPT_NAME
        task.write_text(json.dumps(asdict(transaction), default=str))
        run(_in_namespaces(task), timeout=timeout, log_to=log, error=InfrastructureError, allowed=(0, 1))
        transcript = tail_of(log, TRANSCRIPT)
        if not answer.exists():
            raise InfrastructureError("the transaction ended without an answer", evidence=transcript)
        return _outcome(json.loads(answer.read_text()), transcript)


def read_task(task: Path) -> Transaction:
    """The Transaction that ``perform`` wrote for its child."""
    facts: dict[str, Any] = json.loads(task.read_text())
    return Transaction(
        repositories=tuple(RepositorySource(**_tupled(one)) for one in facts["repositories"]),
        requests=tuple(facts["requests"]),
        image=Path(facts["image"]) if facts["image"] else None,
        offset=facts["offset"],
        root=Path(facts["root"]) if facts["root"] else None,
        excluded=tuple(facts["excluded"]),
        weak_dependencies=facts["weak_dependencies"],
        scripts=tuple(Script(**one) for one in facts["scripts"]),
        release=facts["release"],
    )


# dnf ends with 1 for everything; only its words tell whose fault it was. The first pattern that is found decides.
_WORDS: tuple[tuple[Literal["package", "infrastructure"], str], ...] = (
    ("infrastructure", r"No space left on device|more space needed on|Disk Requirements:|Read-only file system"),
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


def at_fault(said: str) -> Literal["package", "infrastructure"]:
    """Who is to blame for a transaction in which dnf said this: the packages, or the machine and its repositories."""
    for blame, pattern in _WORDS:
        if re.search(pattern, said, re.MULTILINE):
            return blame
    return "infrastructure"


def failed_scriptlets(said: str) -> list[str]:
    """The lines of dnf's output about failed scriptlets; dnf itself regards most of them as warnings."""
    return [line.strip() for line in said.splitlines() if _SCRIPTLET.search(line)]


def _in_namespaces(task: Path) -> list[str | Path]:
    return [
        # If we are killed, unshare is; if it is, its child is, and with that one everything in the namespaces.
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"),
        *(sys.executable, "-m", "distgate.drivers.transaction_child", task),
    ]


def _tupled(facts: dict[str, Any]) -> dict[str, Any]:
    return facts | {"excluded": tuple(facts["excluded"])}


def _outcome(answer: dict[str, Any], transcript: str) -> Outcome:
    if "error" in answer:
        classes: dict[str, type[DistgateError]] = {"package": PackageError, "configuration": ConfigurationError}
        kind = classes.get(answer["blame"], InfrastructureError)
        raise kind(answer["error"], hint=answer["hint"], evidence=answer["evidence"] or transcript)
    return Outcome(tuple(sorted(Nevra.parse(line) for line in answer["installed"])), transcript)
