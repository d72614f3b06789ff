"""The smoke test of an Atomic Host image: it boots, runs the commit that it was made of, and no unit fails."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from distgate.atomic.checks import judge_tree
from distgate.atomic.guest import COMMAND_SECONDS, TreeGuest
from distgate.errors import InfrastructureError, PackageError, TimedOut
from distgate.guests.base import GuestHost, GuestStopped
from distgate.guests.boot import BootReport, UnitVerdict
from distgate.images.smoke import SmokeReport
from distgate.ostree.base import ComposedTree

REPORT_JSON = "smoke.json"
_SHOWN = 12


@dataclass(frozen=True)
class TreeSmokeReport:
    """What was seen of an image of the commit ``rev``; ``faults`` are sentences, none when it passed."""

    rev: str
    version: str
    faults: tuple[str, ...] = ()
    packages: SmokeReport | None = None
    units: UnitVerdict | None = None
    boot: BootReport | None = None

    @property
    def passed(self) -> bool:
        return not self.faults

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        name = f"{self.rev[:_SHOWN]} ({self.version})"
        return f"the image of {name} boots into it, and no unit fails" if self.passed else "; ".join(self.faults)


@dataclass(frozen=True)
class TreeSmoke:
    """How that test is done here; ``timeout`` is that of a boot, in seconds under KVM."""

    host: GuestHost
    timeout: float
    command_seconds: float = COMMAND_SECONDS

    def test(
        self,
        image: Path,
        tree: ComposedTree,
        key: Path,
        log_dir: Path,
        *,
        good: Path | None = None,
        failed_before: Collection[str] = (),
    ) -> TreeSmokeReport:
        """Boot ``image`` and look into it; console, boot report and what the guest printed stay in ``log_dir``.

        ``good`` is a disk without the change that has booted before (drivers.tree_control): it decides whose fault it
        is when the image does not. Units in ``failed_before`` may fail. Raises PackageError when the image
        boots and is not what it should be, or does not boot although ``good`` does; InfrastructureError when nothing
        else boots either, or there is nothing to compare it with.
        """
        log_dir.mkdir(parents=True, exist_ok=True)
        try:
            with self.host.boot(image, key, log_dir, self.timeout) as guest:
                seen, boot = TreeGuest(guest, log_dir, self.command_seconds).look("image")
        except (TimedOut, GuestStopped) as error:
            raise self._blame_for(error, tree, good, key, log_dir) from error
        verdict = judge_tree(tree.rev, tree.requested, seen, failed_before)
        report = TreeSmokeReport(tree.rev, tree.version, verdict.faults, verdict.packages, verdict.units, boot)
        (log_dir / REPORT_JSON).write_text(
            json.dumps(asdict(report) | {"sentence": report.sentence}, indent=2) + "\n"
        )
        if not report.passed:
            raise PackageError(f"the image of {tree.version} fails its smoke test: {report.sentence}")
        return report

    def _blame_for(
        self, dead: InfrastructureError, tree: ComposedTree, good: Path | None, key: Path, log_dir: Path
    ) -> InfrastructureError | PackageError:
        if good is None:
            return InfrastructureError(
                f"the image of {tree.version} does not boot, and there is none to compare it with: {dead.message}",
                hint=dead.hint,
                evidence=dead.evidence,
            )
        try:
            with self.host.boot(good, key, log_dir / "good", self.timeout):
                pass
        except InfrastructureError:
            return InfrastructureError(
                f"neither the image nor one that booted before boots here: {dead.message}",
                hint="is this host overloaded, or without usable KVM?",
                evidence=dead.evidence,
            )
        return PackageError(
            f"the image of {tree.version} does not boot, one that booted before still does", evidence=dead.evidence
        )
