"""What scriptlets can reach: they run as root, and no chroot holds root.

rpm needs CAP_SYS_CHROOT, and who has that walks out of a chroot. So dnf and rpm themselves run in a root file system
of their own, made by bubblewrap: of this host it has only what they are made of, read-only, and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: Without dac_read_search, whose file handles reach every file of a file system of which one directory is visible.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETFCAP", "SYS_CHROOT")
#: The programs and libraries of dnf and rpm, and what they read of /etc: no key, no password, no one's files.
_TOOLS = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
_CONFIGURATION = (
    *("alternatives", "crypto-policies", "dnf", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("localtime", "nsswitch.conf", "passwd", "rpm"),
)


def bwrap_for_scriptlets(writable: Path, readable: Sequence[Path]) -> list[str]:
    """The arguments before a command that may change ``writable`` (with the mounts and devices in it) and read
    ``readable``, and has no network. For root in a mount namespace of its own, also in a user namespace."""
    capabilities = [argument for name in _CAPABILITIES for argument in ("--cap-add", f"CAP_{name}")]
    system = [*_TOOLS, *(f"/etc/{name}" for name in _CONFIGURATION)]
    binds = [argument for path in system for argument in ("--ro-bind-try", path, path)]
    binds += ["--ro-bind", "/proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - its own, empty
    binds += [argument for path in readable for argument in ("--ro-bind", str(path), str(path))]
    binds += ["--dev-bind", str(writable), str(writable)]
    return ["bwrap", "--unshare-net", "--cap-drop", "ALL", *capabilities, *binds, "--chdir", "/", "--"]
