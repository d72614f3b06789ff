"""What a host made of an OSTree commit says of itself, and the rules by which that is judged.

Everything is read from what ``ostree`` or ``rpm-ostree`` printed in the guest; nothing here runs anything.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from distgate.errors import Blame, InfrastructureError
from distgate.guests.boot import UnitVerdict, judge_units
from distgate.images.smoke import SmokeReport, judge
from distgate.rpm.nevra import Nevra

_RPM_OSTREE = "if command -v rpm-ostree >/dev/null; then exec rpm-ostree {there}; else {else_}; fi"
#: What to run in the guest. rpm-ostree is what a real Atomic Host has; ostree alone does the same.
STATUS_COMMAND = _RPM_OSTREE.format(there="status --json", else_="exec ostree admin status")
UPGRADE_COMMAND = _RPM_OSTREE.format(there="upgrade", else_="exec ostree admin upgrade")
#: A write that an Atomic Host refuses; it leaves nothing where it does not.
WRITE_COMMAND = "LC_ALL=C touch /usr/.distgate-write 2>&1 && rm -f /usr/.distgate-write"

_DEPLOYED = re.compile(r"^(\*| ) (\S+) ([0-9a-f]{64})\.(\d+)(?: \((.*)\))?\s*$")
_DETAIL = re.compile(r"^\s+(Version|origin refspec): (.*\S)\s*$")
_SHOWN = 12


@dataclass(frozen=True)
class Deployment:
    """One deployment of the host: ``checksum`` is its commit's, ``origin`` the refspec that upgrades follow."""

    osname: str
    checksum: str
    serial: int
    booted: bool
    version: str = ""
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.checksum[:_SHOWN]}{f' ({self.version})' if self.version else ''}"

    @property
    def remote(self) -> str:
        """The remote that upgrades come from; empty when the origin names none."""
        remote, _, ref = self.origin.partition(":")
        return remote if ref else ""


@dataclass(frozen=True)
class HostStatus:
    """The deployments in the order of the boot menu: the first is what the next boot takes."""

    deployments: tuple[Deployment, ...]

    @property
    def booted(self) -> Deployment:
        """The deployment that runs. Raises InfrastructureError when none does: this is no OSTree host."""
        for deployment in self.deployments:
            if deployment.booted:
                return deployment
        raise InfrastructureError("the guest runs no OSTree deployment", hint="is its disk one of an Atomic Host?")

    @property
    def next(self) -> Deployment:
        """The deployment that the next boot takes. Raises InfrastructureError when there is none."""
        if not self.deployments:
            raise InfrastructureError("the guest has no OSTree deployment")
        return self.deployments[0]


def read_status(output: str) -> HostStatus:
    """What STATUS_COMMAND printed, in either form. Raises InfrastructureError when it is neither."""
    if output.lstrip().startswith("{"):
        return _read_json(output)
    deployments: list[dict[str, Any]] = []
    for line in output.splitlines():
        if deployed := _DEPLOYED.match(line):
            booted, osname, checksum, serial, _ = deployed.groups()
            deployments.append(
                {"osname": osname, "checksum": checksum, "serial": int(serial), "booted": booted == "*"},
            )
        elif deployments and (detail := _DETAIL.match(line)):
            deployments[-1]["version" if detail[1] == "Version" else "origin"] = detail[2]
    if not deployments:
        raise InfrastructureError("the guest does not tell what is deployed", evidence=output)
    return HostStatus(tuple(Deployment(**fields) for fields in deployments))


def _read_json(output: str) -> HostStatus:
    try:
        return HostStatus(tuple(_deployment(fields) for fields in json.loads(output)["deployments"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InfrastructureError(f"rpm-ostree's status cannot be read: {error!r}", evidence=output) from error


def _deployment(fields: dict[str, Any]) -> Deployment:
    return Deployment(
        osname=str(fields["osname"]),
        # With packages layered on top the deployment has a commit of its own; the tree's is its base.
        checksum=str(fields.get("base-checksum") or fields["checksum"]),
        serial=int(fields.get("serial", 0)),
        booted=bool(fields["booted"]),
        version=str(fields.get("version") or ""),
        origin=str(fields.get("origin") or ""),
    )


def rollback_command(status: HostStatus, parent: str) -> str:
    """The command that makes ``parent`` the default of the next boot; ostree before 2023 deploys it anew."""
    index = next(
        (index for index, deployment in enumerate(status.deployments) if deployment.checksum == parent), None
    )
    older = f"ostree admin deploy --os={status.booted.osname} {parent}"
    if index is None:
        return f"exec {older}"
    choose = (
        f"if ostree admin --help 2>&1 | grep -q set-default; then ostree admin set-default {index}; else {older}; fi"
    )
    return _RPM_OSTREE.format(there="rollback", else_=choose)


def point_remote_command(remote: str, url: str) -> str:
    """The command that makes the host fetch from ``url`` under the name ``remote``, wherever that is configured."""
    section = rf'/^\[remote "{re.escape(remote)}"\]/,/^\[/'
    edit = shlex.quote(f"{section} s|^url=.*|url={url}|")
    headed, url_line = shlex.quote(f'^.remote "{remote}".$'), shlex.quote(f"url={url}")
    return (
        "for file in /etc/ostree/remotes.d/*.conf /ostree/repo/config; do "
        f"if grep -qs {headed} $file && ! grep -qxF {url_line} $file; then sed -i {edit} $file; fi; done"
    )


#: What is no fault of the tree when an upgrade fails: the words, and who is to blame.
_NOT_THE_TREE: tuple[tuple[str, Blame], ...] = (
    (
        r"While fetching|Couldn't connect|Failed to connect|Connection (refused|reset)|[Tt]imed? ?out",
        "infrastructure",
    ),
    (r"Server returned (HTTP|status) \d+|Could(n't| not) resolve|transfer closed|\bcurl\b", "infrastructure"),
    (r"No space left on device|min-free-space|would be exceeded", "infrastructure"),
    (r"GPG|[Ss]ignature|sign-verify", "configuration"),
    (r"No such (remote|branch)|Remote .* not found|No origin refspec", "configuration"),
    (r"chronologically older", "infrastructure"),
    (r"Message recipient disconnected|D-Bus|dbus|Transaction in progress", "infrastructure"),
)


def blame_of_upgrade(output: str) -> Blame:
    """Who is to blame for an upgrade that failed with these words, while its server answers."""
    for sign, blame in _NOT_THE_TREE:
        if re.search(sign, output):
            return blame
    return "package"


@dataclass(frozen=True)
class Seen:
    """What a look at a running host found: the raw answers, and its failed units."""

    status: HostStatus
    rpm_lines: tuple[str, ...]
    kernel: str
    write_refused: bool
    write_said: str
    failed_units: tuple[str, ...]


@dataclass(frozen=True)
class TreeVerdict:
    """Whether a running host is the commit that it should be; ``faults`` are sentences, none when it is."""

    faults: tuple[str, ...]
    packages: SmokeReport | None = None
    units: UnitVerdict | None = None

    @property
    def passed(self) -> bool:
        return not self.faults


def judge_tree(rev: str, packages: Sequence[Nevra], seen: Seen, failed_before: Collection[str] = ()) -> TreeVerdict:
    """Compare a host with the commit ``rev`` that holds ``packages``; units in ``failed_before`` may fail.

    Raises InfrastructureError when its answers cannot be read.
    """
    faults = []
    if (booted := seen.status.booted).checksum != rev:
        faults.append(f"it runs {booted}, not {rev[:_SHOWN]}")
    report = judge(packages, seen.rpm_lines, seen.kernel) if packages else None
    if report and not report.passed:
        faults.append(report.sentence)
    if not seen.write_refused:
        faults.append("/usr can be written to")
    elif "Read-only file system" not in seen.write_said:
        faults.append(f"a write to /usr is refused for another reason: {seen.write_said.strip()}")
    units = judge_units(failed_before, seen.failed_units)
    if not units.passed:
        faults.append(f"units fail that did not fail before: {', '.join(units.broken)}")
    return TreeVerdict(tuple(faults), report, units)
