"""The integration test of an OSTree compose: a host of the commit before upgrades to it over http, and goes back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from distgate.atomic.checks import TreeVerdict, judge_tree
from distgate.atomic.guest import COMMAND_SECONDS, TreeGuest
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError, TimedOut
from distgate.guests.base import Guest, GuestHost, GuestStopped
from distgate.guests.boot import BootReport, UnitVerdict
from distgate.guests.tunnel import reverse_tunnel
from distgate.images.smoke import SmokeReport
from distgate.ostree.base import ComposedTree
from distgate.rpm.nevra import Nevra
from distgate.steps import Progress, Step, Steps, share_lines

#: Seconds for an upgrade: an emulated guest fetches and writes a tree of a gigabyte in some minutes.
UPGRADE_SECONDS = 1800.0
REPORT_TEXT, REPORT_JSON = "upgrade.txt", "upgrade.json"
_SHOWN = 12


@dataclass(frozen=True)
class UpgradeReport:
    """What the test of a commit found. ``before`` is the commit that was upgraded from (None: there was none).

    ``faults`` are sentences, none when it passed; ``skipped`` says what could not be tested, and why. ``packages``
    and ``units`` are the judgement on the host of the new commit, ``boot`` is how that booted.
    """

    rev: str
    version: str
    before: str | None
    faults: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    upgraded: bool = False
    rolled_back: bool = False
    packages: SmokeReport | None = None
    units: UnitVerdict | None = None
    boot: BootReport | None = None
    steps: tuple[Step, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.faults

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        name = f"{self.rev[:_SHOWN]} ({self.version})"
        if self.faults:
            return "; ".join(self.faults)
        if self.before is None:
            return f"a host of {name} boots as it should; {'; '.join(self.skipped)}"
        return f"a host of {self.before[:_SHOWN]} upgrades to {name}, restarts into it, and rolls back"


@dataclass(frozen=True)
class TreeUpgrade:
    """How that test is done here. ``timeout`` is that of a boot, in seconds under KVM; ``upgrade_seconds`` that of
    fetching and deploying. ``progress`` hears of each step."""

    host: GuestHost
    timeout: float
    progress: Progress = lambda _line: None
    upgrade_seconds: float = UPGRADE_SECONDS
    command_seconds: float = COMMAND_SECONDS

    def test(
        self,
        previous: Path | None,
        tree: ComposedTree,
        url: str,
        key: Path,
        packages: Sequence[Nevra],
        log_dir: Path,
        *,
        new: Path | None = None,
    ) -> UpgradeReport:
        """Upgrade a host of the disk ``previous`` (of ``tree.parent``) to ``tree`` from the repository at ``url``.

        ``packages`` are those under test that the tree holds. Without ``previous`` a host of the disk ``new`` is
        looked at. What the guest printed, its console and the report stay in ``log_dir``, whatever happens. Raises
        PackageError when the tree is at fault: it cannot be upgraded to, does not come up, is not what was composed
        or does not let the host go back. Raises InfrastructureError when the host before does not boot, the
        repository does not answer, or a guest is lost otherwise.
        """
        disk = previous or new
        if disk is None:
            raise ConfigurationError("neither a disk of the commit before nor one of the new commit was given")
        log_dir.mkdir(parents=True, exist_ok=True)
        test = _Test(self, tree, packages, log_dir, key, disk)
        try:
            if previous:
                test.upgrade(url)
            else:
                test.look_at_first()
        except DistgateError as error:
            test.faults.append(error.message)
            raise
        finally:
            _keep(test.report(), log_dir)
        return test.report()


class _NotBack(InfrastructureError):
    """A host that was restarted did not answer again."""


@dataclass
class _Test:
    """One test, and what it found so far."""

    how: TreeUpgrade
    tree: ComposedTree
    packages: Sequence[Nevra]
    log_dir: Path
    key: Path
    disk: Path
    faults: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    before: str | None = None
    upgraded: bool = False
    rolled_back: bool = False
    verdict: TreeVerdict | None = None
    boot: BootReport | None = None

    def __post_init__(self) -> None:
        self.steps = Steps(self.how.progress)

    def report(self) -> UpgradeReport:
        return UpgradeReport(
            rev=self.tree.rev,
            version=self.tree.version,
            before=self.before,
            faults=tuple(self.faults),
            skipped=tuple(self.skipped),
            upgraded=self.upgraded,
            rolled_back=self.rolled_back,
            packages=self.verdict.packages if self.verdict else None,
            units=self.verdict.units if self.verdict else None,
            boot=self.boot,
            steps=self.steps.taken,
        )

    def look_at_first(self) -> None:
        """The first commit of a branch: nothing to upgrade from, nothing to go back to."""
        self.skipped.append("upgrade and rollback are skipped, for the branch has no commit before this one")
        with self._booted("boot a host of the commit", "guest") as guest:
            self._judge(guest, ())

    def upgrade(self, url: str) -> None:
        """The whole way there and back."""
        try:
            with self._booted("boot the host before", "guest") as guest:
                parent, remote, failed = self._look_before(guest)
                with self.steps.step("upgrade over http"), reverse_tunnel(guest, url) as inside:
                    self._asks(guest).upgrade(self.tree, remote, inside, url, self.how.upgrade_seconds)
                guest = self._restart(guest, "restart into the new commit")
                self.upgraded = True
                self._judge(guest, failed)
                self._roll_back(guest, parent)
        except _NotBack as error:
            raise self._blame_for(error) from error

    @contextmanager
    def _booted(self, step: str, name: str) -> Iterator[Guest]:
        with ExitStack() as leases:
            with self.steps.step(step):
                guest = leases.enter_context(
                    self.how.host.boot(self.disk, self.key, self.log_dir / name, self.how.timeout)
                )
            yield guest

    def _asks(self, guest: Guest) -> TreeGuest:
        return TreeGuest(guest, self.log_dir, self.how.command_seconds)

    def _look_before(self, guest: Guest) -> tuple[str, str, Collection[str]]:
        """The commit before, the remote that it follows, and the units that fail in it."""
        with self.steps.step("look at the host before"):
            seen, _ = self._asks(guest).look("before")
        booted = seen.status.booted
        self.before = booted.checksum
        if self.tree.parent and booted.checksum != self.tree.parent:
            raise InfrastructureError(f"the disk of the commit before runs {booted}, not {self.tree.parent[:_SHOWN]}")
        if not booted.remote:
            raise InfrastructureError("the host before follows no remote", hint="deploy its disk anew")
        return booted.checksum, booted.remote, seen.failed_units

    def _restart(self, guest: Guest, step: str) -> Guest:
        try:
            with self.steps.step(step):
                return guest.reboot(2 * self.how.timeout)  # it has to shut down, too
        except (TimedOut, GuestStopped) as error:
            half_up = isinstance(error, TimedOut)
            message = f"{error.message}; {self._try_rollback(guest)}" if half_up else error.message
            raise _NotBack(message, hint=error.hint, evidence=error.evidence) from error

    def _try_rollback(self, guest: Guest) -> str:
        """A host that is half up may be brought back; the others can only be told of."""
        try:
            self._asks(guest).roll_back(self.before or "")
        except DistgateError as error:
            return f"a rollback was tried in vain: {error.message}"
        return "a rollback could still be asked for"

    def _judge(self, guest: Guest, failed_before: Collection[str]) -> None:
        with self.steps.step("look at the new commit"):
            seen, self.boot = self._asks(guest).look("new")
        self.verdict = judge_tree(self.tree.rev, self.packages, seen, failed_before)
        if not self.verdict.passed:
            faults = "; ".join(self.verdict.faults)
            raise PackageError(f"a host of {self.tree.version} is not as it should be: {faults}")

    def _roll_back(self, guest: Guest, parent: str) -> None:
        with self.steps.step("roll back"):
            self._asks(guest).roll_back(parent)
        guest = self._restart(guest, "restart into the commit before")
        with self.steps.step("look at the host again"):
            booted = self._asks(guest).status("again").booted
        if booted.checksum != parent:
            raise PackageError(f"after the rollback the host runs {booted}, not {parent[:_SHOWN]}")
        self.rolled_back = True

    def _blame_for(self, lost: _NotBack) -> DistgateError:
        """If a host of the commit before still boots here, it is the new one that keeps a host from coming back."""
        try:
            with self._booted("boot the host before, once more", "again"):
                pass
        except InfrastructureError:
            return InfrastructureError(
                f"a host does not come back, and one of the commit before does not boot either: {lost.message}",
                hint="is this host overloaded?",
                evidence=lost.evidence,
            )
        when = "into" if not self.upgraded else "after its rollback from"
        return PackageError(
            f"a host does not come back from its restart {when} {self.tree.version}, one of the commit before boots: "
            f"{lost.message}",
            hint="see console.log",
            evidence=lost.evidence,
        )


def _keep(report: UpgradeReport, log_dir: Path) -> None:
    lines = [report.sentence, *report.skipped, *share_lines(report.steps)]
    (log_dir / REPORT_TEXT).write_text("".join(f"{line}\n" for line in lines))
    (log_dir / REPORT_JSON).write_text(json.dumps(asdict(report) | {"sentence": report.sentence}, indent=2) + "\n")
