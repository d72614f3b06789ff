"""Build roots: composed by dnf from the lab's RPM repository, cached by content, used read-only in a sandbox."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distgate.files import remove_tree
from distgate.process import run
from lab.distribution.cache import ensure_entry, identity_of
from lab.distribution.rpm_repository import Repository
from lab.koji.task_process import run_logged

#: The user that builds: no account of the host has this number.
BUILDER_UID = 64990
_GROUP = "@buildsys-build"
_DNF_SECONDS = 600.0
_TEMPORARY = ["--perms", "1777", "--tmpfs", "/tmp", "--perms", "1777", "--tmpfs", "/var/tmp"]  # noqa: S108
_CONF = """\
[main]
gpgcheck=0
install_weak_deps=0
keepcache=0
metadata_expire=0
pluginpath=/nonexistent
reposdir=/nonexistent
[build]
name=build
baseurl={url}
"""


class RootFailed(Exception):
    """A build root cannot be composed; the log holds the solver's reasons."""


@dataclass(frozen=True)
class BuildRoots:
    """Makes and keeps build roots in ``cache``; needs root rights, as dnf --installroot does."""

    repository: Repository
    cache: Path

    def base(self, log: Path, stop: threading.Event) -> Path:
        """The root that holds the build group and nothing else: enough to make a source package."""
        return self.with_requirements((), log, stop)

    def with_requirements(self, requirements: Sequence[str], log: Path, stop: threading.Event) -> Path:
        """A root that holds the build group and ``requirements`` (as RPM dependencies, also rich and versioned).

        What dnf says is appended to ``log``. Raises RootFailed when the requirements cannot be met, TaskStopped.
        """
        packages = sorted(set(requirements))
        identity = identity_of("3", self.repository.identity, *packages)
        with log.open("a") as stream:
            stream.write(f"build root {identity}: {_GROUP} {' '.join(packages)}\n")

        def make(into: Path) -> None:
            if packages:
                _link_copy(self.base(log, stop), into / "root")
            self._install(into, packages or [_GROUP], log, stop)
            if not packages:
                _add_builder(into / "root")

        kind = "build-roots" if packages else "base-build-roots"
        return ensure_entry(self.cache, kind, identity, make) / "root"

    def _install(self, into: Path, packages: Sequence[str], log: Path, stop: threading.Event) -> None:
        home = into / "home"
        (home / "logdir").mkdir(parents=True)  # dnf makes the other directories itself
        (home / ".rpmmacros").write_text("%_dbpath /var/lib/rpm\n")
        (home / "dnf.conf").write_text(_CONF.format(url=self.repository.url))
        directories = [f"--setopt={name}={home / name}" for name in ("cachedir", "logdir", "persistdir")]
        options = [
            *directories,
            f"--installroot={into / 'root'}",
            "--releasever=lab",
            f"--config={home / 'dnf.conf'}",
        ]
        start = log.stat().st_size
        status = run_logged(["dnf", "-y", *options, "install", *packages], log, stop, _DNF_SECONDS, HOME=str(home))
        remove_tree(home)
        if status != 0:
            with log.open("r+", errors="replace") as stream:
                stream.seek(start)
                stream.write(_in_mock_format(stream.read()))
            raise RootFailed(f"dnf ended with status {status}")


@dataclass(frozen=True)
class Sandbox:
    """Runs commands in a build root as an unprivileged user: no network, only its own processes and files."""

    root: Path
    work: Path

    def prepare(self) -> None:
        """Hand the work directory over to the user that builds."""
        if os.geteuid() == 0:
            run(["chown", "-R", f"{BUILDER_UID}:{BUILDER_UID}", self.work], timeout=60)

    def argv(self, command: Sequence[str]) -> list[str]:
        """The argument list that runs ``command`` inside."""
        box = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
        box += ["--new-session", "--hostname", "builder", "--ro-bind", str(self.root), "/"]
        box += ["--dev", "/dev", "--proc", "/proc", *_TEMPORARY]
        box += ["--bind", str(self.work), "/builddir", "--chdir", "/builddir", "--clearenv"]
        for name, value in {"HOME": "/builddir", "PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "LANG": "C.UTF-8"}.items():
            box += ["--setenv", name, value]
        return [*box, *self._dropped_rights(), *command]

    def _dropped_rights(self) -> list[str]:
        if os.geteuid() != 0:
            return ["--unshare-user"]
        # Bind mounts are made as root, because the unprivileged user may not even reach the cache directory.
        drop = ["setpriv", f"--reuid={BUILDER_UID}", f"--regid={BUILDER_UID}", "--clear-groups", "--no-new-privs"]
        return ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", *drop, "--inh-caps=-all", "--"]


def _link_copy(base: Path, root: Path) -> None:
    # Hard links but for what is written in place (the RPM database, caches, accounts).
    run(["cp", "-al", base, root], timeout=300)
    for part in ("etc", "var"):
        remove_tree(root / part)
        run(["cp", "-a", base / part, root / part], timeout=300)


def _add_builder(root: Path) -> None:
    for name in ("builddir", "proc", "dev", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, line in {
        "passwd": f"mockbuild:x:{BUILDER_UID}:{BUILDER_UID}::/builddir:/bin/bash\n",
        "group": f"mockbuild:x:{BUILDER_UID}:\n",
    }.items():
        path = root / "etc" / name
        path.write_text((path.read_text() if path.exists() else "") + line)


def _in_mock_format(output: str) -> str:
    # People search root.log for mock's messages.
    missing = re.findall(r"(?m)^No match for argument: (.*)$", output)
    lines = [f"No matching package to install: '{name}'\n" for name in missing]
    return "".join(lines) + (
        "Not all dependencies satisfied\nError: Some packages could not be found.\n" * bool(lines)
    )
