"""Plans of tmt, run against a guest that is up already, by tmt itself in a sandbox.

tmt has no Python interface that it promises to keep, so it is run as a program. It copies its whole environment into
its log and runs what the package says, so it has a listed environment, no network but the guest, and a directory of
its own; what is kept of that directory is chosen here.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError, TestsError
from distgate.files import tail_of
from distgate.guests import ssh
from distgate.guests.base import Guest
from distgate.sandbox.sandbox import MIB, Limits, Sandbox, SandboxRun
from distgate.testing.results import TMT_RESULTS as RESULTS
from distgate.testing.verdict import SuiteRun
from distgate.text import printable

_PLUGINS = Path(__file__).with_name("tmt_plugins")
#: Enough for a plan's copies of the tree, which tmt makes twice.
LIMITS = Limits(artifacts=512 * MIB, artifact_files=50_000)
#: Seconds for reading a tree, which is all that listing plans takes.
LISTING = 120.0
#: Seconds in which a guest that is still there answers, also when it is emulated and busy.
_ANSWER = 60.0
_LOG, _OUTPUT, _DROPPED = "tmt.log", "tmt.txt", "dropped.txt"
#: tmt's files that are of no use once the plan has ended.
_IGNORED = shutil.ignore_patterns("tmt-test-topology.*", "step.yaml", "checks")


@dataclass(frozen=True)
class _Workspace:
    """One run's directories: ``run`` is tmt's own, ``private`` holds the key and a home."""

    run: Path
    private: Path


class TmtSuites:
    """Runs the plans of one checkout; the counterpart of AnsibleSuites, with the same kind of answer.

    ``context`` is what plans ask about where they run (distgate.runners.tmt.context_of). ``scratch`` is where private
    directories are made; a short path, since tmt keeps a socket there, or ssh is slow.
    """

    def __init__(
        self,
        checkout: Path,
        context: Mapping[str, str],
        *,
        sandbox: Sandbox | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._checkout = checkout.resolve()
        self._context = [argument for name, value in context.items() for argument in ("--context", f"{name}={value}")]
        self._sandbox = sandbox or Sandbox(LIMITS)
        self._scratch = scratch

    def enabled(self) -> tuple[str, ...]:
        """The names of the plans that tmt would run in this context, ``adjust`` rules applied; sorted.

        Raises TestsError, with tmt's output, for a tree that it cannot read.
        """
        with self._workspace() as workspace:
            listing = workspace.private.parent / "plans.txt"
            arguments = ["plan", "ls", "--filter", "enabled:true"]
            ended = self._tmt(arguments, workspace, listing, LISTING)
            if ended.returncode:
                raise TestsError("tmt cannot read the plans", evidence=printable(tail_of(listing)))
            return tuple(sorted(line for line in listing.read_text(errors="replace").splitlines() if line[:1] == "/"))

    def run(self, plan: str, guest: Guest, artifacts: Path, variables: Mapping[str, str], timeout: float) -> SuiteRun:
        """Run the plan of that name against ``guest`` and return what was observed, without a verdict.

        ``artifacts`` must be empty or absent; tmt's ``results.yaml`` ends up there with the logs that it names, tmt's
        output as ``tmt.txt`` and its log, without environments, as ``tmt.log``. ``variables`` are added to the
        environment of tests. A plan that takes longer than ``timeout`` seconds is killed. Never raises for what the
        plan does, InfrastructureError when tmt could not be run at all.
        """
        artifacts = artifacts.resolve()
        artifacts.mkdir(parents=True, exist_ok=True)
        if any(artifacts.iterdir()):
            raise ConfigurationError(f"the artifacts directory {artifacts} is not empty")
        with self._workspace() as workspace:
            arguments = _run_arguments(plan, guest, workspace, variables)
            ended = self._tmt(arguments, workspace, artifacts / _OUTPUT, timeout, guest)
            _collect(workspace.run / "run", plan, artifacts)
            _note_dropped(ended, artifacts)
        lost = (ended.timed_out or ended.returncode != 0) and not _answers(guest)
        return SuiteRun(plan, ended.returncode, artifacts, unreachable=lost, timed_out=ended.timed_out, kind="tmt")

    def _tmt(
        self, arguments: Sequence[str], workspace: _Workspace, log: Path, timeout: float, guest: Guest | None = None
    ) -> SandboxRun:
        if guest:
            key = workspace.private / "key"
            shutil.copyfile(guest.key, key)
            key.chmod(0o600)
        python = Path(sys.executable)
        env = {
            "PATH": f"{python.parent}:/usr/bin:/bin",
            "HOME": str(workspace.private),
            "LANG": "C.UTF-8",
            "TMT_PLUGINS": str(_PLUGINS),
            "NO_COLOR": "1",
            # The guest answered before; tmt's two minutes each are for machines that are being made.
            "TMT_CONNECT_TIMEOUT": "60",
            "TMT_SSH_MASTER_START_TIMEOUT": "60",
        }
        return self._sandbox.run(
            [python, "-m", "tmt", *self._context, *arguments],
            env=env,
            timeout=timeout,
            log_to=log,
            copies=[self._checkout, workspace.private],
            artifacts=workspace.run,
            guest=guest,
            cwd=self._checkout,
        )

    @contextmanager
    def _workspace(self) -> Iterator[_Workspace]:
        with tempfile.TemporaryDirectory(prefix="tmt-", dir=self._scratch) as name:
            workspace = _Workspace(Path(name).resolve() / "r", Path(name).resolve() / "own")
            workspace.run.mkdir()
            workspace.private.mkdir()
            yield workspace


def context_of(branch: str, arch: str = "x86_64", trigger: str = "commit") -> dict[str, str]:
    """The dimensions that plans in dist-git ask about, for a commit to ``branch`` (rawhide, f44, epel10).

    The initiator is ``fedora-ci``: it is the name that plans know for what runs them on a push.
    """
    number = re.fullmatch(r"(f|epel|epel-)(\d+)", branch)
    distro = {"f": "fedora-{}", "epel": "epel-{}", "epel-": "epel-{}"}[number[1]] if number else "fedora-rawhide"
    return {
        "initiator": "fedora-ci",
        "trigger": trigger,
        "arch": arch,
        "distro": distro.format(number[2] if number else ""),
        "dist-git-branch": branch,
    }


def scrubbed(log: str) -> str:
    """``log`` of tmt without the environment that it repeats in front of each command."""
    return re.sub(r"\bexport [A-Za-z_]\w*=(?:'\"'\"'(?:(?!'\"'\"').)*'\"'\"'|[^;'\n])*; ?", "", log)


def _run_arguments(plan: str, guest: Guest, workspace: _Workspace, variables: Mapping[str, str]) -> list[str]:
    ssh_options = [argument for option in _ssh_options() for argument in ("--ssh-option", option)]
    environment = [argument for name, value in variables.items() for argument in ("--environment", f"{name}={value}")]
    return [
        *("run", "--verbose", "--all", "--id", str(workspace.run / "run"), *environment),
        *("provision", "--how", "connect", "--guest", "127.0.0.1", "--port", str(guest.port)),
        *("--user", "root", "--key", str(workspace.private / "key"), *ssh_options),
        *("plan", "--name", f"^{re.escape(plan)}$"),
    ]


def _ssh_options() -> list[str]:
    """distgate's options of ssh, but for those by which tmt keeps one connection for all its commands."""
    arguments = ssh.OPTIONS[ssh.OPTIONS.index("-o") :]
    options = [option for option in arguments if option != "-o"]
    return [option for option in options if not option.startswith(("ControlMaster=", "ControlPath="))]


def _collect(run: Path, plan: str, artifacts: Path) -> None:
    """Copy the results, the tests' logs and tmt's log to ``artifacts``."""
    execute = run / plan.strip("/") / "execute"
    for name in (RESULTS, "data"):
        source = execute / name
        if source.is_dir():
            shutil.copytree(source, artifacts / name, symlinks=True, ignore=_IGNORED)
        elif source.is_file():
            # The private directory is gone when this is read.
            text = source.read_text(errors="replace").replace(f"{execute}/", "")
            (artifacts / name).write_text(text)
    log = run / "log.txt"
    if log.is_file():
        (artifacts / _LOG).write_text(scrubbed(log.read_text(errors="replace")))


def _note_dropped(ended: SandboxRun, artifacts: Path) -> None:
    lines = [line for line in ended.dropped if "ssh-sockets" not in line]
    if ended.log_dropped:
        lines.append(f"{_OUTPUT}: {ended.log_dropped} bytes in the middle")
    if lines:
        (artifacts / _DROPPED).write_text("".join(f"{line}\n" for line in lines))


def _answers(guest: Guest) -> bool:
    try:
        return guest.run("true", timeout=_ANSWER).returncode == 0
    except InfrastructureError:
        return False
