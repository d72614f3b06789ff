"""How disks of the lab's OSTree commits are deployed: for a guest that boots quickly without a fast processor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from distgate.atomic.disk import DiskDeployer

#: As in kickstarts/lab-cloud.ks. The lab's initramfs knows devices by their names only.
_KARGS = (
    "rw", "console=ttyS0", "quiet", "mitigations=off", "audit=0", "selinux=0", "apparmor=0", "net.ifnames=0",
    "random.trust_cpu=on", "cryptomgr.notests", "initcall_blacklist=init_kprobe_trace", "systemd.show_status=error",
)  # fmt: skip


def lab_deployer(**changes: Any) -> DiskDeployer:
    """A disk of 2 GiB, of which a tree of the lab takes a fifth: so an upgrade fits. ``changes`` are fields
    of DiskDeployer."""
    return replace(DiskDeployer(kargs=_KARGS, root="/dev/vda1", size=2048), **changes)
