"""Test suites of the Standard Test Interface, run against a guest by ansible-runner in a process of its own.

ansible-runner hands its whole environment to the suite and writes it to disk. So it never runs in ours: a child with
a listed environment does it, in a private directory that is removed afterwards; no credential of ours is in either.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from distgate.drivers import ssh
from distgate.drivers.base import Guest, SuiteRun
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.process import ProcessTimedOut, run

#: What suites are run for; the Standard Test Interface also knows container and atomic.
TAG = "classic"
#: Both group names that the interface's own inventory has. A *group* called localhost is what keeps
#: ``hosts: localhost`` away from the machine that runs ansible.
GROUPS = ("localhost", "subjects")
#: Seconds that ansible-runner gets to notice its own deadline before the whole process group is killed.
_GRACE = 30.0

_SETTINGS = {
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",  # otherwise a broken inventory means "run it here"
    "ANSIBLE_INVENTORY_ENABLED": "yaml",
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_HOST_KEY_CHECKING": "False",
    "ANSIBLE_RETRY_FILES_ENABLED": "False",
    "ANSIBLE_NOCOLOR": "True",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_TIMEOUT": "60",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
}


class AnsibleSuites:
    """A SuiteRunner on ansible-runner; see distgate.drivers.base.SuiteRunner.

    ``subjects`` is what is under test (the image's path), told to suites as TEST_SUBJECTS. ``roles_path`` lists
    directories with roles such as standard-test-basic. ``interpreter`` is the guest's Python. ``scratch`` is where
    private directories are made (the system's temporary directory); only a killed worker leaves one there.
    """

    def __init__(
        self,
        subjects: Sequence[str | os.PathLike[str]] = (),
        *,
        roles_path: Sequence[Path] = (),
        interpreter: str = "/usr/bin/python3",
        scratch: Path | None = None,
    ) -> None:
        self._subjects = shlex.join(os.fspath(subject) for subject in subjects)
        self._roles_path = [str(path.resolve()) for path in roles_path]
        self._interpreter = interpreter
        self._scratch = scratch

    def run(
        self, playbook: Path, guest: Guest, artifacts: Path, variables: Mapping[str, str], timeout: float
    ) -> SuiteRun:
        """Run ``playbook`` with tag classic against ``guest`` and say what was observed; judging is not done here.

        ``artifacts`` must be empty or absent; the suite's files, ``ansible.log`` and ``ansible.txt`` (what the
        terminal would show) end up there. ``variables`` become extra variables (git_branch). A suite that takes
        longer than ``timeout`` seconds is killed. Raises InfrastructureError when ansible could not be run at all.
        """
        artifacts = artifacts.resolve()
        artifacts.mkdir(parents=True, exist_ok=True)
        if any(artifacts.iterdir()):
            raise ConfigurationError(f"the artifacts directory {artifacts} is not empty")
        # Private and short-lived: it holds the child's environment and the path of the key.
        with tempfile.TemporaryDirectory(prefix="distgate-suite-", dir=self._scratch) as scratch:
            private = Path(scratch).resolve()
            spec = self._specify(private, playbook.resolve(), guest, artifacts, variables, timeout)
            (private / "ansible.cfg").touch()
            (private / "tmp").mkdir()
            (private / "spec.json").write_text(json.dumps(spec))
            killed = self._run_child(private, artifacts, playbook.resolve().parent, timeout)
            return _observed(playbook.name, private, artifacts, killed)

    def _specify(
        self,
        private: Path,
        playbook: Path,
        guest: Guest,
        artifacts: Path,
        variables: Mapping[str, str],
        timeout: float,
    ) -> dict[str, object]:
        inventory = private / "inventory.yml"
        inventory.write_text(yaml.safe_dump(inventory_of(guest, self._interpreter)))
        return {
            "private_data_dir": str(private),
            "project_dir": str(playbook.parent),
            "playbook": playbook.name,
            "inventory": str(inventory),
            # Also keeps plays for 127.0.0.1 and ::1 from finding the implicit localhost.
            "limit": GROUPS[0],
            "tags": TAG,
            # `subjects` and `artifacts` are how version 1 of the interface passed them; many suites still read them.
            "extravars": {**variables, "artifacts": str(artifacts), "subjects": self._subjects},
            "timeout": int(timeout) or 1,
        }

    def _run_child(self, private: Path, artifacts: Path, tests: Path, timeout: float) -> bool:
        """Whether the child had to be killed from outside."""
        env = _SETTINGS | {
            "HOME": str(private),
            "TMPDIR": str(private / "tmp"),
            # Empty: no configuration of this host, and none of the package, has a part in it.
            "ANSIBLE_CONFIG": str(private / "ansible.cfg"),
            # ansible-playbook stands beside the interpreter in a virtual environment.
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "ANSIBLE_HOME": str(private / "ansible"),
            "ANSIBLE_LOG_PATH": str(artifacts / "ansible.log"),
            "TEST_SUBJECTS": self._subjects,
            "TEST_ARTIFACTS": str(artifacts),
        }
        if self._roles_path:
            env["ANSIBLE_ROLES_PATH"] = ":".join(self._roles_path)
        try:
            child = [sys.executable, "-m", "distgate.drivers.ansible_child", str(private / "spec.json")]
            run(
                [*_confined(writable=[private, artifacts, tests]), *child],
                timeout=timeout + _GRACE,
                env=env,
                log_to=artifacts / "ansible.txt",
                hint="see ansible.txt; bwrap needs root or user namespaces",
            )
        except ProcessTimedOut:
            return True
        return False


def _confined(writable: Sequence[Path]) -> list[str]:
    """The words before a command that run it in a process namespace of its own, with only ``writable`` to write to.

    What a suite starts on this side ends with it, even when the worker is killed: ansible-playbook makes a session of
    its own, which no process group reaches. And it finds no other process in /proc to read the environment of.
    """
    binds = [word for path in writable for word in ("--bind", str(path), str(path))]
    # Root keeps its capabilities otherwise, and with them a read-only file system is read-only no longer.
    namespaces = ["--unshare-pid", "--unshare-ipc", "--die-with-parent", "--cap-drop", "ALL"]
    return ["bwrap", *namespaces, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", *binds, "--"]


def inventory_of(guest: Guest, interpreter: str = "/usr/bin/python3") -> dict[str, object]:
    """The inventory that holds the guest in every group that suites address, and nothing else."""
    host = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": guest.port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(guest.key.resolve()),
        "ansible_ssh_args": shlex.join(ssh.OPTIONS),
        "ansible_python_interpreter": interpreter,
        # Suites are written for Fedora, where sh is bash; `&>` means something else to another shell.
        "ansible_shell_executable": "/bin/bash",
    }
    return {group: {"hosts": {guest.name: host}} for group in GROUPS}


def _observed(suite: str, private: Path, artifacts: Path, killed: bool) -> SuiteRun:
    said = private / "outcome.json"
    if said.exists():
        outcome = json.loads(said.read_text())
        return SuiteRun(
            suite=suite,
            returncode=outcome["returncode"],
            artifacts=artifacts,
            unreachable=outcome["tasks"].get("unreachable", 0) > 0,
            timed_out=outcome["timed_out"],
            tasks=outcome["tasks"],
        )
    if killed:
        return SuiteRun(suite, 254, artifacts, timed_out=True)
    raise InfrastructureError("ansible-runner ended without saying how the suite went", hint="see ansible.txt")
