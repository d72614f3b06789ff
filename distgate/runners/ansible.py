"""Test suites of the Standard Test Interface, run against a guest by ansible-runner inside a sandbox.

A suite runs code on this side too: lookups, local actions, plugins beside its playbook. So ansible-runner itself runs
in a sandbox (distgate.sandbox.sandbox) with a copy of the tests, the guest's key, and no credential of ours.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from distgate.errors import ConfigurationError
from distgate.guests.base import Guest
from distgate.runners.ansible_environment import checked_bins, connection, environment, readable_for, suite_run_of
from distgate.sandbox.sandbox import Limits, Sandbox
from distgate.testing.discovery import CLASSIC
from distgate.testing.verdict import SuiteRun

#: Both group names that the interface's own inventory has. A *group* called localhost is what keeps
#: ``hosts: localhost`` away from the machine that runs ansible.
GROUPS = ("localhost", "subjects")
#: Our own roles, by the names that suites know from standard-test-roles.
ROLES = Path(__file__).resolve().with_name("roles")


class AnsibleSuites:
    """Runs suites of the Standard Test Interface with ansible-runner, each in a sandbox.

    ``subjects`` are the images under test, passed to suites as TEST_SUBJECTS. ``roles_path`` lists directories with
    roles, which win over our own ones. ``ansible`` maps shell patterns of branches (the first that fits counts) to
    directories with another ansible-playbook than ours. ``srpm`` is the source RPM that the role standard-test-source
    unpacks. ``interpreter`` is the guest's Python. ``scratch`` is where private
    directories are made (the system's temporary directory); only a killed worker leaves one there.
    """

    def __init__(
        self,
        subjects: Sequence[str | os.PathLike[str]] = (),
        *,
        roles_path: Sequence[Path] = (),
        ansible: Mapping[str, Path] | None = None,
        srpm: Path | None = None,
        interpreter: str = "/usr/bin/python3",
        limits: Limits | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._subjects = shlex.join(os.fspath(subject) for subject in subjects)
        self._roles_path = [path.resolve() for path in roles_path]
        self._ansible = dict(ansible or {})
        self._srpm = srpm.resolve() if srpm else None
        self._interpreter = interpreter
        self._sandbox = Sandbox(limits, scratch=scratch)
        self._scratch = scratch

    def run(
        self,
        playbook: Path,
        guest: Guest,
        artifacts: Path,
        variables: Mapping[str, str],
        timeout: float,
        tag: str = CLASSIC,
    ) -> SuiteRun:
        """Run what ``tag`` selects of ``playbook`` (all of it without one) against ``guest`` and return what was
        observed, without a verdict.

        The suite works on a copy: of the whole checkout when ``playbook`` lies in its directory ``tests``, of the
        playbook's directory otherwise. ``artifacts`` must be empty or absent; the suite's files, ``ansible.log`` and
        ``ansible.txt`` (what the terminal would show) end up there, with ``rewrites.txt``, ``inventory.txt`` and
        ``dropped.txt`` where there is something to tell. ``variables`` become extra variables (git_branch). A suite
        that takes longer than ``timeout`` seconds is killed. Raises InfrastructureError when ansible could not be
        run at all.
        """
        artifacts, playbook = artifacts.resolve(), playbook.resolve()
        artifacts.mkdir(parents=True, exist_ok=True)
        if any(artifacts.iterdir()):
            raise ConfigurationError(f"the artifacts directory {artifacts} is not empty")
        bins = self._bins(variables.get("git_branch", ""))
        # Private and short-lived: the sandbox has a copy of it, with the guest's key.
        with tempfile.TemporaryDirectory(prefix="distgate-suite-", dir=self._scratch) as scratch:
            private = Path(scratch).resolve()
            self._prepare(private, playbook, guest, artifacts, variables, tag)
            ended = self._sandbox.run(
                [sys.executable, "-I", "-m", "distgate.runners.ansible_child", private / "spec.json"],
                env=environment(private, artifacts, bins, (*self._roles_path, ROLES))
                | {"TEST_SUBJECTS": self._subjects},
                timeout=timeout,
                log_to=artifacts / "ansible.txt",
                readable=self._readable(bins),
                copies=[tree_of(playbook), private],
                artifacts=artifacts,
                guest=guest,
                cwd=playbook.parent,
            )
        return suite_run_of(playbook.name, artifacts, ended)

    def _prepare(
        self,
        private: Path,
        playbook: Path,
        guest: Guest,
        artifacts: Path,
        variables: Mapping[str, str],
        tag: str,
    ) -> None:
        """Write the child's specification, the inventory, the key."""
        inventory, key = private / "inventory.yml", private / "key"
        shutil.copyfile(guest.key, key)
        key.chmod(0o600)
        inventory.write_text(yaml.safe_dump(inventory_of(guest, self._interpreter, key)))
        (private / "ansible.cfg").touch()
        # `subjects` and `artifacts` are how version 1 of the interface passed them; many suites still read them.
        extra = {**variables, "artifacts": str(artifacts), "subjects": self._subjects}
        if self._srpm:
            extra["distgate_srpm"] = str(self._srpm)
        run = {
            "private_data_dir": str(private),
            "project_dir": str(playbook.parent),
            "playbook": playbook.name,
            "inventory": str(inventory),
            # Also keeps plays for 127.0.0.1 and ::1 from finding the implicit localhost.
            "limit": GROUPS[0],
            "extravars": extra,
        } | ({"tags": tag} if tag else {})
        (private / "spec.json").write_text(json.dumps({"tree": str(tree_of(playbook)), "run": run}))

    def _bins(self, branch: str) -> Path | None:
        """The directory of the ansible-playbook for ``branch``, or None for our own."""
        chosen = next((path for pattern, path in self._ansible.items() if fnmatchcase(branch, pattern)), None)
        return checked_bins(chosen, f"DISTGATE_ANSIBLE names it for branch {branch}")

    def _readable(self, bins: Path | None) -> list[Path]:
        return [*self._roles_path, *([self._srpm] if self._srpm else []), *readable_for(bins)]


def tree_of(playbook: Path) -> Path:
    """The directory that a suite may expect around its playbook: the clone that it lies in, or its own directory."""
    folder = playbook.parent
    return folder.parent if folder.name == "tests" and (folder.parent / ".git").exists() else folder


def inventory_of(
    guest: Guest, interpreter: str = "/usr/bin/python3", key: Path | None = None
) -> dict[str, dict[str, dict[str, dict[str, object]]]]:
    """The inventory that holds the guest in every group that suites address, and nothing else.

    ``key`` is where its private key is for those who read the inventory (the guest's own path).
    """
    host = connection(guest.port, key or guest.key.resolve(), interpreter=interpreter)
    return {group: {"hosts": {guest.name: host}} for group in GROUPS}
