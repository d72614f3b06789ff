"""The common parts of all runs of ansible-runner in a sandbox: environment, connection, and the observed run."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import tail_of
from distgate.guests import ssh
from distgate.sandbox.sandbox import SandboxRun, python_paths
from distgate.testing.verdict import SuiteRun

#: ansible-playbook's status when it has lost a host.
UNREACHABLE = 4
#: ansible-runner's own status for a run that was killed at its deadline.
_KILLED = 254
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
#: One connection for all tasks, which ansible-playbook does by itself, too. It ends with the sandbox.
_SHARED = ("-o", "ControlMaster=auto", "-o", "ControlPersist=60s")
_UNSHARED = ("ControlMaster=no", "ControlPath=none")

_SETTINGS = {
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",  # otherwise a broken inventory means "run it here"
    "ANSIBLE_INVENTORY_ENABLED": "yaml",
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_HOST_KEY_CHECKING": "False",
    "ANSIBLE_RETRY_FILES_ENABLED": "False",
    "ANSIBLE_NOCOLOR": "True",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_TIMEOUT": "60",
    # Short: the path of a socket has room for a hundred characters.
    "ANSIBLE_SSH_CONTROL_PATH_DIR": "/tmp/ssh",  # noqa: S108 - the sandbox's own
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
}


def environment(private: Path, artifacts: Path, bins: Path | None, roles_path: Sequence[Path]) -> dict[str, str]:
    """The whole environment of a run whose private directory is ``private``; see ``checked_bins`` for ``bins``."""
    # ansible-playbook stands beside the interpreter in a virtual environment.
    bin_dir = Path(sys.executable).parent
    return _SETTINGS | {
        "HOME": str(private),
        # Empty: no configuration of this host, and none of the playbook's directory, has a part in it.
        "ANSIBLE_CONFIG": str(private / "ansible.cfg"),
        "PATH": ":".join([*([str(bins)] if bins else []), str(bin_dir), _PATH]),
        "ANSIBLE_HOME": str(private / "ansible"),
        "ANSIBLE_LOG_PATH": str(artifacts / "ansible.log"),
        "ANSIBLE_ROLES_PATH": ":".join(str(path) for path in roles_path),
        "TEST_ARTIFACTS": str(artifacts),
    }


def connection(
    port: int,
    key: Path,
    *,
    user: str = "root",
    interpreter: str = "/usr/bin/python3",
    more: Sequence[str] = (),
) -> dict[str, object]:
    """Ansible's variables for a host that answers ssh on 127.0.0.1:``port``; ``more`` are options of ssh before ours,
    of which the first one counts."""
    options = [argument for option in _pairs(ssh.OPTIONS) if option[1] not in _UNSHARED for argument in option]
    return {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": port,
        "ansible_user": user,
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_args": shlex.join([*more, *_SHARED, *options]),
        "ansible_python_interpreter": interpreter,
        # Playbooks are written for Fedora, where sh is bash; `&>` means something else to another shell.
        "ansible_shell_executable": "/bin/bash",
    }


def _pairs(options: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(options[::2], options[1::2], strict=True))


def checked_bins(chosen: Path | None, hint: str = "") -> Path | None:
    """A directory with another ansible-playbook than ours. Raises ConfigurationError when there is none in it."""
    if chosen and not (chosen / "ansible-playbook").is_file():
        raise ConfigurationError(f"there is no ansible-playbook in {chosen}", hint=hint)
    return chosen.absolute() if chosen else None


def readable_for(bins: Path | None) -> list[Path]:
    """The paths that a sandbox needs to run the ansible-playbook in ``bins``."""
    if not bins:
        return []
    return [path for path in (bins, *python_paths(_interpreter_of(bins))) if not path.is_relative_to("/usr")]


def _interpreter_of(bins: Path) -> Path:
    with (bins / "ansible-playbook").open("rb") as script:
        first = script.readline(512).decode("utf-8", "replace").strip()
    return Path(first.removeprefix("#!").split(" ")[0])


def suite_run_of(suite: str, artifacts: Path, ended: SandboxRun) -> SuiteRun:
    """The observed run of distgate.runners.ansible_child. Raises InfrastructureError if it was not begun."""
    lines = ended.report.split("\n")
    if "begun" not in lines:
        raise InfrastructureError(
            "ansible-runner could not be started in the sandbox",
            hint="see ansible.txt",
            evidence=tail_of(artifacts / "ansible.txt"),
        )
    tasks = Counter(line for line in lines if line in ("ok", "failed", "skipped", "unreachable"))
    statuses = [int(line.removeprefix("end ")) for line in lines if line.startswith("end ")]
    # Without an end the suite, or the kernel for lack of memory, has killed its runner.
    status = _KILLED if ended.timed_out else statuses[0] if statuses else ended.returncode or 1
    return SuiteRun(
        suite=suite,
        returncode=status,
        artifacts=artifacts,
        # A playbook may go on without an answer (ignore_unreachable): then another status tells of its end.
        unreachable=tasks["unreachable"] > 0 and status in (UNREACHABLE, _KILLED),
        timed_out=ended.timed_out,
        tasks=dict(tasks),
    )
