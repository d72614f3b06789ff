"""The exception tree: the class of an error is who is to blame, its hint is what to do next.

Only infrastructure is ever retried. A test bed that broke is not a failed test, and a package that
does not build is not our breakage: the class decides which message the packager reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

Blame = Literal["package", "tests", "infrastructure", "configuration", "cancelled", "bug"]

#: What packagers read about it: what is to blame, and who looks.
BLAMED: Mapping[Blame, str] = {
    "package": "the change itself; its maintainer looks",
    "tests": "the package's own tests, which cannot be read or run as they are written; its maintainer looks",
    "infrastructure": "our machines or a service, not the package; the operators of this CI look",
    "configuration": "a setting of this CI or a parameter of the run, not the package; its operators look",
    "cancelled": "nobody's fault: the run was ended from outside before it had a result",
    "bug": "this CI, not the package: it met a bug of its own, whose traceback is in the run's log",
}


class DistgateError(Exception):
    """Any situation distgate knows: one sentence, a hint, and the evidence (output, log tail)."""

    blame: ClassVar[Blame] = "bug"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "", evidence: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.evidence = evidence

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Prefect pickles the exceptions of tasks; keyword-only arguments need a hand.
        return (_rebuild, (type(self), self.message, self.hint, self.evidence))


def _rebuild(kind: type[DistgateError], message: str, hint: str, evidence: str) -> DistgateError:
    return kind(message, hint=hint, evidence=evidence)


class PackageError(DistgateError):
    """The change itself is at fault: it does not build, install or boot."""

    blame = "package"
    exit_code = 1


class TestsError(DistgateError):
    """The package's own tests are at fault: they cannot be read or run as they are written."""

    __test__ = False  # not a pytest class
    blame = "tests"
    exit_code = 1


class InfrastructureError(DistgateError):
    """Our machines, the network or a service failed; the same attempt may succeed later."""

    blame = "infrastructure"


class TimedOut(InfrastructureError):
    """A named condition did not come true before its deadline."""


class GaveUp(DistgateError):
    """Our side is to blame, and trying the same again was tried already or would take too long to be of use."""

    blame = "infrastructure"


class ConfigurationError(DistgateError):
    """A setting, a file or a call is wrong; repeating it will not help."""

    blame = "configuration"


class Cancelled(DistgateError):
    """The end was asked for."""

    blame = "cancelled"


_BY_BLAME: dict[Blame, type[DistgateError]] = {
    kind.blame: kind for kind in (PackageError, TestsError, InfrastructureError, ConfigurationError, Cancelled)
}


def error_for(blame: Blame) -> type[DistgateError]:
    """The class of the errors that ``blame`` is to blame for, for verdicts that have to be raised."""
    return _BY_BLAME.get(blame, DistgateError)


@dataclass(frozen=True)
class Failure:
    """An error as a helper process hands it to the process that started it."""

    kind: str
    blame: Blame
    message: str
    hint: str = ""
    evidence: str = ""

    @classmethod
    def of(cls, error: DistgateError) -> Failure:
        return cls(type(error).__name__, error.blame, error.message, error.hint, error.evidence)

    def error(self, *classes: type[DistgateError], evidence: str = "") -> DistgateError:
        """The error again: of its own class if that is known here or among ``classes``, else of the class for its
        blame. Without evidence of its own it gets ``evidence``."""
        candidates: tuple[type[DistgateError], ...] = (TimedOut, GaveUp, *classes)
        kind = next((kind for kind in candidates if kind.__name__ == self.kind), error_for(self.blame))
        return kind(self.message, hint=self.hint, evidence=self.evidence or evidence)
