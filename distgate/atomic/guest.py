"""A running guest of an OSTree commit: what it is asked, and who is to blame for a bad answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx

from distgate.atomic.checks import (
    STATUS_COMMAND,
    UPGRADE_COMMAND,
    WRITE_COMMAND,
    HostStatus,
    Seen,
    blame_of_upgrade,
    point_remote_command,
    read_status,
    rollback_command,
)
from distgate.errors import InfrastructureError, PackageError, error_for
from distgate.guests.base import CommandResult, Guest
from distgate.guests.boot import BootReport, report_boot
from distgate.images.smoke import INSTALLED_COMMAND, KERNEL_COMMAND
from distgate.ostree.base import ComposedTree

#: Seconds for one command in the guest: rpm -qa takes seconds under emulation.
COMMAND_SECONDS = 300.0
#: Seconds that the served repository gets to answer this host.
_SERVER_SECONDS = 20.0
_EVIDENCE = 4000


@dataclass(frozen=True)
class TreeGuest:
    """Asks ``guest``, and leaves what it printed in ``log_dir``; a command gets ``seconds``."""

    guest: Guest
    log_dir: Path
    seconds: float = COMMAND_SECONDS

    def status(self, when: str) -> HostStatus:
        """What is deployed; kept as ``status-WHEN.txt``. Raises InfrastructureError when it cannot be told."""
        return read_status(self._said(STATUS_COMMAND, f"status-{when}.txt").stdout)

    def look(self, when: str) -> tuple[Seen, BootReport | None]:
        """What runs, which packages there are, whether /usr can be written to, and how the boot went."""
        status = self.status(when)
        installed = self._said(INSTALLED_COMMAND, f"installed-{when}.txt").stdout
        kernel = self.guest.run(KERNEL_COMMAND, self.seconds).stdout
        written = self.guest.run(WRITE_COMMAND, self.seconds)
        boot = report_boot(self.guest, self.seconds)
        return Seen(
            status=status,
            rpm_lines=tuple(installed.splitlines()),
            kernel=kernel,
            write_refused=written.returncode != 0,
            write_said=written.stdout + written.stderr,
            failed_units=boot.failed_units if boot else (),
        ), boot

    def upgrade(self, tree: ComposedTree, remote: str, inside: str, url: str, timeout: float) -> None:
        """Fetch and deploy ``tree`` from ``url``, which the guest calls ``inside``; it is what boots next then.

        Raises PackageError when the tree is refused, InfrastructureError when the repository is away or serves
        something else, ConfigurationError for signatures that do not fit.
        """
        ended = self._said(f"{point_remote_command(remote, inside)}; {UPGRADE_COMMAND}", "upgrade.log", timeout)
        output = (ended.stdout + ended.stderr).strip()
        if ended.returncode:
            check_served(url, tree)
            last = (output.splitlines() or ["nothing"])[-1]
            raise error_for(blame_of_upgrade(output))(
                f"the upgrade to {tree.rev[:12]} fails: {last}", evidence=output[-_EVIDENCE:]
            )
        deployment = self.status("upgraded").next
        if deployment.checksum != tree.rev:
            check_served(url, tree)
            raise PackageError(
                f"the upgrade deployed {deployment}, not {tree.rev[:12]}", evidence=output[-_EVIDENCE:]
            )

    def roll_back(self, parent: str) -> None:
        """Make ``parent`` what boots next. Raises PackageError when the host does not do it."""
        ended = self._said(rollback_command(self.status("before-rollback"), parent), "rollback.log")
        if ended.returncode:
            output = ended.stdout + ended.stderr
            raise PackageError(f"the host does not roll back to {parent[:12]}", evidence=output[-_EVIDENCE:])
        deployment = self.status("rolled-back").next
        if deployment.checksum != parent:
            raise PackageError(f"the rollback chose {deployment}, not {parent[:12]}")

    def _said(self, command: str, name: str, timeout: float | None = None) -> CommandResult:
        answer = self.guest.run(command, timeout or self.seconds)
        (self.log_dir / name).write_text(answer.stdout + answer.stderr)
        return answer


def check_served(url: str, tree: ComposedTree) -> None:
    """Return when ``url`` serves ``tree`` at its ref, as seen from this host. Raises InfrastructureError."""
    address = f"{url.rstrip('/')}/refs/heads/{tree.ref}"
    try:
        answer = httpx.get(address, timeout=_SERVER_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        raise InfrastructureError(f"the repository {url} does not answer: {error or type(error).__name__}") from error
    if answer.status_code != httpx.codes.OK:
        raise InfrastructureError(f"the repository {url} answers {answer.status_code} for {tree.ref}")
    if answer.text.strip() != tree.rev:
        raise InfrastructureError(
            f"the repository {url} serves {answer.text.strip()[:12]} as {tree.ref}, not {tree.rev[:12]}",
            hint="was another tree of the branch composed or withdrawn meanwhile?",
        )
