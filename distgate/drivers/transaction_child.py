"""The process inside the namespaces of distgate.drivers.transaction: mounts, dnf, scripts, and all of it undone.

It is process 1 of its namespace. Run as ``python -m distgate.drivers.transaction_child TASK.json``; it writes
answer.json beside the task.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distgate.drivers.transaction import Script, Transaction, at_fault, failed_scriptlets, read_task
from distgate.errors import DistgateError, InfrastructureError, PackageError
from distgate.packages import QUERY
from distgate.process import ProcessFailed, run
from distgate.waiting import wait_for

TIMEOUT = 3600.0  # the caller's deadline is shorter
#: English, because its words are read; the paths of the image, not of our virtual environment.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_DATABASES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")


def main() -> int:
    """Carry out the task; 0 when it is done, 1 when it failed: the answer tells how."""
    task = Path(sys.argv[1])
    try:
        answer: dict[str, object] = {"installed": carry_out(read_task(task), task.parent)}
    except DistgateError as error:
        answer = {"error": error.message, "blame": error.blame, "hint": error.hint, "evidence": error.evidence}
    (task.parent / "answer.json").write_text(json.dumps(answer))
    return 1 if "error" in answer else 0


def carry_out(transaction: Transaction, workspace: Path) -> list[str]:
    """Install, run the scripts and return the RPM database as lines of packages.QUERY."""
    with ExitStack() as cleanups:
        place = (
            _Place(transaction.root) if transaction.root else cleanups.enter_context(_mounted(transaction, workspace))
        )
        dnf = Dnf(transaction, place.root, workspace)
        cleanups.enter_context(_system_directories(place))
        dnf.install()
        for script in transaction.scripts:
            _run_script(place.root, script)
        return dnf.query()


@dataclass(frozen=True)
class _Place:
    """A root directory, and the process that exports the image below it."""

    root: Path
    exporter: int | None = None


class Dnf:
    """dnf and rpm for one root, with nothing of this host's configuration."""

    def __init__(self, transaction: Transaction, root: Path, workspace: Path) -> None:
        self.transaction = transaction
        self.root = root
        self.home = workspace / "home"
        self.configuration = workspace / "dnf.conf"
        for name in ("home", "cache", "log", "repos", "vars"):
            (workspace / name).mkdir()
        # Debian's rpm looks for its database in the home directory; an image says where it is.
        database = next((path for path in _DATABASES if (root / path.lstrip("/")).is_dir()), _DATABASES[-1])
        (self.home / ".rpmmacros").write_text(f"%_dbpath {database}\n")
        self.configuration.write_text(self._main(workspace) + "".join(self._repositories()))

    def install(self) -> None:
        """Install what was asked for, downloads first and then without network; raises what dnf deserves."""
        there = {_as_request(line) for line in self.query()}
        wanted = self.transaction.requests
        # A rebuild under a name and release that the base has already: same NEVRA, other content.
        again = [request for request in wanted if request in there]
        new = [request for request in wanted if request not in there]
        for verb, requests in (("install", new), ("reinstall", again)):
            if not requests:
                continue
            if not self._all_local:
                self._dnf([], verb, "--downloadonly", *requests)
            self._dnf(["unshare", "--net"], *([] if self._all_local else ["-C"]), verb, *requests)

    def query(self) -> list[str]:
        """Every package of the root's RPM database."""
        said = run(
            ["rpm", "--root", self.root, "-qa", "--qf", QUERY],
            timeout=120,
            env=self._environment,
            split_errors=True,
            error=InfrastructureError,
        )
        return [line for line in said.output.splitlines() if line and not line.startswith("gpg-pubkey|")]

    @property
    def _all_local(self) -> bool:
        return all(source.is_local for source in self.transaction.repositories)

    @property
    def _environment(self) -> dict[str, str]:
        return _ENVIRONMENT | {"HOME": str(self.home)}

    def _dnf(self, prefix: list[str], *words: str) -> None:
        argv: list[str | Path] = [*prefix, "dnf", "-y", "-c", self.configuration, f"--installroot={self.root}"]
        argv += [f"--releasever={self.transaction.release}", *words]
        done = run(argv, timeout=TIMEOUT, env=self._environment, allowed=range(256))
        print(done.output, flush=True)
        failed = failed_scriptlets(done.output)
        if done.returncode == 0 and not failed:
            return
        kind = PackageError if failed or at_fault(done.output) == "package" else InfrastructureError
        raise kind(_sentence(done.output, failed), evidence=done.output[-6000:])

    def _main(self, workspace: Path) -> str:
        options = {
            "gpgcheck": 0,
            "localpkg_gpgcheck": 0,
            "plugins": 0,
            "best": 1,
            "install_weak_deps": int(self.transaction.weak_dependencies),
            "metadata_expire": 0,
            "reposdir": workspace / "repos",
            "varsdir": workspace / "vars",
            "cachedir": workspace / "cache",
            "logdir": workspace / "log",
            "color": "never",
            "excludepkgs": " ".join(self.transaction.excluded),
        }
        return "[main]\n" + "".join(f"{key}={value}\n" for key, value in options.items() if value != "")

    def _repositories(self) -> Iterator[str]:
        for source in self.transaction.repositories:
            options = {
                "name": source.name,
                "baseurl": source.baseurl,
                "mirrorlist": source.mirrorlist,
                "metalink": source.metalink,
                "priority": source.priority,
                "excludepkgs": " ".join(source.excluded),
            }
            yield f"\n[{source.name}]\n" + "".join(
                f"{key}={value}\n" for key, value in options.items() if value != ""
            )


def _as_request(line: str) -> str:
    name, epoch, version, release, arch, _ = line.split("|")
    return f"{name}-{epoch}:{version}-{release}.{arch}"


def _sentence(said: str, failed: list[str]) -> str:
    if failed:
        return f"a scriptlet failed: {failed[0]}"
    problems = [line.strip(" -") for line in said.splitlines() if "nothing provides" in line or "Problem" in line]
    errors = [line.strip() for line in said.splitlines() if line.startswith(("Error:", "error:"))]
    return "dnf cannot install the packages: " + (problems or errors or ["see its output"])[-1]


@contextmanager
def _mounted(transaction: Transaction, workspace: Path) -> Iterator[_Place]:
    """The root file system of a qcow2 image, as a directory."""
    raw, root, pidfile = workspace / "disk", workspace / "root", workspace / "export.pid"
    raw.touch()
    root.mkdir()
    # No flushes: a compose that ends halfway is thrown away, one that ends well is closed properly.
    exported = ["--blockdev", f"driver=file,filename={transaction.image},node-name=file,cache.no-flush=on"]
    exported += ["--blockdev", "driver=qcow2,file=file,node-name=image,cache.no-flush=on"]
    exported += ["--export", f"type=fuse,id=export,node-name=image,mountpoint={raw},writable=on"]
    run(["qemu-storage-daemon", *exported, "--pidfile", pidfile, "--daemonize"], timeout=60, hint="is FUSE there?")
    daemon = int(pidfile.read_text())
    try:
        run(["mount", "-o", f"loop,offset={transaction.offset}", raw, root], timeout=60, error=InfrastructureError)
        try:
            yield _Place(root, daemon)
        finally:
            run(["umount", root], timeout=300, error=InfrastructureError)
    finally:
        _close_export(daemon)


def _close_export(daemon: int) -> None:
    os.kill(daemon, signal.SIGTERM)
    with suppress(ChildProcessError):  # collected already: then it had died earlier
        os.waitpid(daemon, 0)  # it writes the image's last tables; as process 1 we are its parent


@contextmanager
def _system_directories(place: _Place) -> Iterator[None]:
    """/proc, /sys, /dev and /run as an installer offers them to scriptlets; empty again afterwards."""
    mounted: list[Path] = []

    def mount(target: str, *words: str) -> None:
        directory = place.root / target
        directory.mkdir(parents=True, exist_ok=True)
        run(["mount", *words, directory], timeout=60, error=InfrastructureError)
        mounted.append(directory)

    try:
        mount("proc", "-t", "proc", "proc")
        mount("sys", "-t", "sysfs", "-o", "ro", "sysfs")
        mount("run", "-t", "tmpfs", "-o", "mode=755", "tmpfs")
        mount("dev", "-t", "tmpfs", "-o", "mode=755", "tmpfs")
        _fill_dev(place.root / "dev")
        yield
    finally:
        _end_the_others(place.exporter)
        for directory in reversed(mounted):
            run(["umount", directory], timeout=60, error=InfrastructureError)


def _fill_dev(dev: Path) -> None:
    for name in _NODES:
        host = os.stat(f"/dev/{name}")
        os.mknod(dev / name, host.st_mode, host.st_rdev)
        (dev / name).chmod(0o666)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")
    (dev / "fd").symlink_to("/proc/self/fd")
    (dev / "shm").mkdir(mode=0o1777)


def _run_script(root: Path, script: Script) -> None:
    inside = root / "run" / script.name
    inside.write_text(script.body)
    words: list[str | Path] = ["unshare", "--net", "chroot", root, script.interpreter, f"/run/{script.name}"]
    try:
        done = run(words, timeout=TIMEOUT, env=_ENVIRONMENT | {"HOME": "/root"})
    except ProcessFailed as failure:
        print(failure.evidence, flush=True)
        if script.fatal:
            raise InfrastructureError(f"{script.name} failed", evidence=failure.evidence) from None
    else:
        print(done.output, end="", flush=True)


def _end_the_others(exporter: int | None) -> None:
    """Kill what scriptlets left running: it would keep the root file system busy."""
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if pid not in (os.getpid(), exporter):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    wait_for("the scriptlets' processes to end", lambda: _only_left(exporter), 10, interval=0.02)


def _only_left(exporter: int | None) -> bool:
    """Collect ended orphans; true when no other process than the exporter is left in this namespace."""
    with suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
            pass
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit()} <= {os.getpid(), exporter}


if __name__ == "__main__":
    sys.exit(main())
