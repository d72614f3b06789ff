"""The command line of bubblewrap for one sandbox: which namespaces, and which files at which place."""

from __future__ import annotations

import os
from pathlib import Path

from distgate.sandbox.file_system import SandboxFileSystem
from distgate.sandbox.sandbox import MonitorSpec

#: What programs need of /etc to start, to find their libraries and to make TLS keys: no name, no key, no password.
_CONFIGURATION = (
    *("alternatives", "crypto-policies", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("localtime", "ssl/openssl.cnf", "pki/tls/openssl.cnf"),
)
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_NAME = "suite"
#: Arguments that stand for descriptors until these are known: bubblewrap's status, the program's report.
STATUS, REPORT = "\0status", "\0report"
_NAMESPACES = (
    *("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
    *("--unshare-cgroup-try", "--hostname", "sandbox", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
)
_DEV_SHM = 64 << 20


def bubblewrap(spec: MonitorSpec, file_system: SandboxFileSystem, user: int) -> tuple[list[str], Path | None]:
    """The whole command line, and where the artifacts' file system can be read from outside.

    The arguments STATUS and REPORT in it are to be replaced.
    """
    artifacts = file_system.fresh(spec.limits.artifacts, spec.limits.artifact_files) if spec.artifacts else None
    group = user if os.geteuid() == 0 else os.getegid()
    binds = [*_system(spec, file_system, user, group), *_listed(spec, file_system)]
    if artifacts:
        binds += ["--bind", str(artifacts), spec.artifacts]
    environment = [argument for name, value in spec.env.items() for argument in ("--setenv", name, value)]
    user_ids = ["--uid", str(user), "--gid", str(group), "--json-status-fd", STATUS]
    variables = ["--clearenv", *environment, "--setenv", "REPORT_FD", REPORT]
    # The root is remounted last: what is bound below it stays writable.
    ending = ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", spec.cwd, "--"]
    return ["bwrap", *_NAMESPACES, *user_ids, *variables, *binds, *ending, *_limited(spec), *spec.argv], artifacts


def _system(spec: MonitorSpec, file_system: SandboxFileSystem, user: int, group: int) -> list[str]:
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in _MERGED:
        path = Path("/", name)
        if path.is_symlink():
            argv += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            argv += ["--ro-bind", str(path), str(path)]
    for name in _CONFIGURATION:
        argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    home = spec.env.get("HOME", "/tmp")  # noqa: S108
    contents = {
        "passwd": f"root:x:0:0::/:/bin/sh\n{_NAME}:x:{user}:{group}::{home}:/bin/bash\n",
        "group": f"root:x:0:\n{_NAME}:x:{group}:\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    for name, content in contents.items():
        argv += ["--ro-bind", str(file_system.text(content)), f"/etc/{name}"]
    argv += ["--proc", "/proc", "--dev", "/dev", "--symlink", "/tmp", "/var/tmp"]  # noqa: S108 - its own
    for mount_point, size in (("/dev/shm", _DEV_SHM), ("/tmp", spec.limits.scratch)):  # noqa: S108
        argv += ["--perms", "1777", "--size", str(size), "--tmpfs", mount_point]
    return argv


def _listed(spec: MonitorSpec, file_system: SandboxFileSystem) -> list[str]:
    argv: list[str] = []
    for path in spec.readable:
        argv += ["--ro-bind", str(file_system.show(Path(path))), path]
    for path in spec.copies:
        copy = file_system.copy(Path(path), spec.limits, frozenset(spec.not_copied))
        argv += ["--bind", str(copy), path]
    return argv


def _limited(spec: MonitorSpec) -> list[str]:
    """prlimit runs inside: there the processes of this user are counted for this sandbox alone."""
    limits = spec.limits
    rlimits = {
        "nproc": limits.processes,
        "as": limits.memory,
        "nofile": limits.open_files,
        # Beyond either file system: "no space left" is an error that programs know, SIGXFSZ is not.
        "fsize": max(limits.artifacts, limits.scratch) + _DEV_SHM,
        "core": 0,
    }
    return ["prlimit", *(f"--{name}={value}:{value}" for name, value in rlimits.items()), "--"]
