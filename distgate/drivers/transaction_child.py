"""The process inside the namespaces of distgate.drivers.transaction: mounts, dnf, scripts, and all of it undone.

It is process 1 of its namespace. Run as ``python -m distgate.drivers.transaction_child TASK.json``; it writes
answer.json beside the task.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from distgate.drivers.confinement import confined
from distgate.drivers.image_root import SHARED, Place, mounted_image, system_directories
from distgate.drivers.transaction import TRANSCRIPT_NAME, Script, Transaction, at_fault, failed_scriptlets, read_task
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from distgate.packages import QUERY
from distgate.process import ProcessFailed, run

TIMEOUT = 3600.0  # the caller's deadline is shorter
#: English, because its words are read; the paths of the image, not of our virtual environment.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
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
        place = cleanups.enter_context(_place(transaction, workspace))
        dnf = Dnf(transaction, place.root, workspace)
        cleanups.enter_context(system_directories(place, dnf.shared))
        dnf.install()
        for script in transaction.scripts:
            _run_script(dnf.confined, place.root, script)
        return dnf.query()


def _place(transaction: Transaction, workspace: Path) -> AbstractContextManager[Place]:
    if transaction.image:
        return mounted_image(transaction.image, transaction.offset, workspace)
    if transaction.root:
        return nullcontext(Place(transaction.root))
    raise ConfigurationError("a transaction needs an image or a directory")


class Dnf:
    """dnf and rpm for one root, with nothing of this host's configuration."""

    def __init__(self, transaction: Transaction, root: Path, workspace: Path) -> None:
        self.transaction = transaction
        self.root = root
        self.home = workspace / "home"
        self.transcript = workspace / TRANSCRIPT_NAME
        self.configuration = workspace / "dnf.conf"
        self.shared = workspace / "shared"
        for name in ("home", "shared", "repos", "vars"):
            (workspace / name).mkdir()
        # Debian's rpm looks for its database in the home directory; an image says where it is.
        database = next((path for path in _DATABASES if (root / path.lstrip("/")).is_dir()), _DATABASES[-1])
        (self.home / ".rpmmacros").write_text(f"%_dbpath {database}\n")
        local = [source.directory for source in transaction.repositories if source.is_local]
        self.confined = confined(writable=root, readable=[workspace, *local])
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
                self._dnf((), verb, "--downloadonly", *requests)
            self._dnf(self.confined, *([] if self._all_local else ["-C"]), verb, *requests)

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

    def _dnf(self, prefix: Sequence[str], *words: str) -> None:
        argv: list[str | Path] = [*prefix, "dnf", "-y", "-c", self.configuration, f"--installroot={self.root}"]
        argv += [f"--releasever={self.transaction.release}", *words]
        before = self.transcript.stat().st_size
        # Straight into the transcript: at the caller's deadline it shows which scriptlet hangs.
        done = run(argv, timeout=TIMEOUT, env=self._environment, allowed=range(256), log_to=self.transcript)
        said = self.transcript.read_bytes()[before:].decode("utf-8", "replace")
        failed = failed_scriptlets(said)
        if done.returncode == 0 and not failed:
            return
        kind = PackageError if failed or at_fault(said) == "package" else InfrastructureError
        raise kind(_sentence(said, failed), evidence=said[-6000:])

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
            # dnf looks for both below the root, whatever it is told: they must not fill the image.
            "cachedir": f"{SHARED}/cache",
            "logdir": f"{SHARED}/log",
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
                "cost": source.cost,
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


def _run_script(confinement: Sequence[str], root: Path, script: Script) -> None:
    inside = root / "run" / script.name
    inside.write_text(script.body)
    words: list[str | Path] = [*confinement, "chroot", root, script.interpreter, f"/run/{script.name}"]
    try:
        done = run(words, timeout=TIMEOUT, env=_ENVIRONMENT | {"HOME": "/root"})
    except ProcessFailed as failure:
        print(failure.evidence, flush=True)
        if script.fatal:
            raise InfrastructureError(f"{script.name} failed", evidence=failure.evidence) from None
    else:
        print(done.output, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
