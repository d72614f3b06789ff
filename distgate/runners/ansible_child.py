"""The process that ansible-runner runs in, inside the sandbox: it reads a specification and reports what it sees.

Its reports go through a socket that no process of the suite can open: it is closed on exec, and no other process of
its user may look into this one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import ansible_runner
import yaml

from distgate.runners.inventory import merged
from distgate.runners.legacy_playbook import UnsupportedPlaybook, port_playbook
from distgate.sandbox.kernel import hide_from_own_user

#: Events of ansible-runner that tell how one task went on one host.
_OUTCOMES = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_skipped": "skipped",
    "runner_on_unreachable": "unreachable",
}
#: ansible-playbook's own status for a playbook that it cannot parse.
CANNOT_PARSE = 4
_INVENTORY_SECONDS = 120


def main(specification: Path) -> None:
    """Run what ``specification`` (JSON) describes: ``run`` has the arguments of ansible_runner.run.

    With ``tree``, the directory that it may expect around it, the playbook is one of a package: it is ported, and
    its inventory read. Without, it is taken as it is.
    """
    report = socket.socket(fileno=int(os.environ.pop("REPORT_FD")))
    report.set_inheritable(False)
    hide_from_own_user()

    def report_line(line: str) -> None:
        report.sendall(f"{line}\n".encode())

    def count(event: dict[str, Any]) -> bool:
        outcome = _OUTCOMES.get(event["event"])
        if outcome:
            report_line(outcome)
        return False  # no files of events: the log and the counters are enough

    report_line("begun")
    spec = json.loads(specification.read_text())
    if "tree" in spec and not _prepare_package(spec):
        report_line(f"end {CANNOT_PARSE}")
        return
    ended = ansible_runner.run(
        **spec["run"],
        event_handler=count,
        quiet=False,
        # The default, a file per host, breaks on host names with a slash.
        fact_cache_type="memory",
        settings={"pexpect_timeout": 1},
    )
    report_line(f"end {ended.rc}")


def _prepare_package(spec: dict[str, Any]) -> bool:
    artifacts, project = Path(spec["run"]["extravars"]["artifacts"]), Path(spec["run"]["project_dir"])
    if not _ported(project / spec["run"]["playbook"], Path(spec["tree"]), artifacts):
        return False
    _use_inventory(project / "inventory", Path(spec["run"]["inventory"]), artifacts)
    return True


def _ported(playbook: Path, tree: Path, artifacts: Path) -> bool:
    try:
        rewrites = port_playbook(playbook, tree)
    except UnsupportedPlaybook as error:
        print(f"ERROR! {error}", flush=True)
        return False
    if rewrites:
        (artifacts / "rewrites.txt").write_text("".join(f"{rewrite}\n" for rewrite in rewrites))
    return True


def _use_inventory(package_inventory: Path, inventory_file: Path, artifacts: Path) -> None:
    """Give the guest the groups and variables of the package's inventory, with a note of them in the artifacts."""
    if not package_inventory.exists():
        return
    listing: Any = {}
    failed = ""
    try:
        listing, failed = ansible_runner.get_inventory(
            action="list",
            inventories=[str(package_inventory)],
            response_format="json",
            quiet=True,
            runner_mode="subprocess",
            timeout=_INVENTORY_SECONDS,
            envvars={"ANSIBLE_INVENTORY_ENABLED": "script,yaml,ini"},
        )
    except Exception as error:  # noqa: BLE001 - whatever the package's inventory does, our own one stands
        failed = f"{type(error).__name__}: {error}"
    inventory, notes = merged(yaml.safe_load(inventory_file.read_text()), listing, failed)
    inventory_file.write_text(yaml.safe_dump(inventory))
    (artifacts / "inventory.txt").write_text("".join(f"{note}\n" for note in notes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
