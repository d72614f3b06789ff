"""A configured Debian root: the source of everything the lab's RPM repository holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.process import run

RELEASE = "bookworm"
TIMEOUT = 1800.0

#: Where the extra, unconfigured packages land inside the root.
UNCONFIGURED = "lab"

#: No test reads these, and they are half of the files.
_EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/lib/udev/hwdb.d/*",
)

# The kernel and busybox are only unpacked: their maintainer scripts would build an initramfs that is never booted.
# bash is /bin/sh as on Fedora, where test suites rely on it ("&>"). It is set after configuration, because dpkg's
# diversions belong to dash.
_HOOK = """#!/bin/sh
set -eu
ln -sf bash "$1/usr/bin/sh"
mkdir -p "$1/{unconfigured}"
kernel=$(chroot "$1" apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {{print $2; exit}}')
chroot "$1" sh -c "cd /{unconfigured} && apt-get download $kernel busybox-static"
"""


def make_root(into: Path, packages: Sequence[str], log: Path) -> None:
    """Install and configure ``packages`` with their dependencies in the new directory ``into``.

    ``into/lab`` then holds the kernel's and busybox's unpacked-later .deb files. Needs the network and root;
    takes one to three minutes. Raises ConfigurationError for other users, InfrastructureError when apt fails.
    """
    if os.geteuid() != 0:
        raise ConfigurationError(
            "the lab's package repository is made from a chroot, which takes root",
            hint="run it once as root, or copy a finished cache directory",
        )
    hook = into.parent / "customize-root"
    hook.write_text(_HOOK.format(unconfigured=UNCONFIGURED))
    hook.chmod(0o755)
    run(
        [*_mmdebstrap(packages, hook), RELEASE, into],
        timeout=TIMEOUT,
        log_to=log,
        error=InfrastructureError,
        hint="is the Debian mirror reachable?",
    )


def _mmdebstrap(packages: Sequence[str], hook: Path) -> list[str]:
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::http::Pipeline-Depth "20"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
        f"--customize-hook={hook}",
    ]
