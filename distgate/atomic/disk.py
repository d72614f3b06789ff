"""A bootable disk from an OSTree commit, made by ostree itself: no installer and no guest.

One ext4 partition holds the repository, the deployment and /boot; extlinux starts what ostree's own boot menu says,
so upgrades in the guest work as they do after an installation.
"""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import unfinished
from distgate.kickstart.base import BuiltImage
from distgate.process import on_path, run
from distgate.rpm.transaction import Script
from distgate.sandbox.child import run_in_namespaces
from distgate.steps import Progress, Steps

MIB = 1 << 20
#: Where the partition starts, in bytes.
OFFSET = MIB
#: Where distributions put syslinux's boot sector.
_BOOT_SECTORS = ("/usr/lib/SYSLINUX/mbr.bin", "/usr/lib/syslinux/mbr/mbr.bin", "/usr/share/syslinux/mbr.bin")
_PROGRAMS = ("ostree", "extlinux", "mke2fs", "qemu-img", "mount")
_CHILD = "distgate.atomic.disk_child"
_EVIDENCE = 6000


@dataclass(frozen=True)
class Deployment:
    """What the child is told: the commit, and the host that is made of it."""

    repository: Path
    rev: str
    ref: str
    disk: Path
    osname: str
    remote: str
    remote_url: str
    remote_options: tuple[str, ...]
    kargs: tuple[str, ...]
    root: str
    keys: tuple[str, ...]
    scripts: tuple[Script, ...] = ()


@dataclass(frozen=True)
class DiskDeployer:
    """Makes disks of commits. ``size`` is the disk's in MiB, ``timeout`` in seconds.

    ``kargs`` are the kernel's arguments beside root= and ostree=; ``root`` is how the kernel finds the file system,
    with {uuid} filled in. The host knows itself as ``osname`` and upgrades from ``remote``, which is added with
    ``remote_options`` (of ``ostree remote add``; by default without signatures). ``scripts`` run in the host at
    last, as an installer's do, with /usr read-only. Needs root and loop devices.
    """

    osname: str = "fedora-atomic"
    remote: str = "fedora-atomic"
    remote_options: tuple[str, ...] = ("--no-gpg-verify",)
    kargs: tuple[str, ...] = ("rw", "console=tty0", "console=ttyS0,115200n8", "net.ifnames=0", "no_timer_check")
    root: str = "UUID={uuid}"
    size: int = 6144
    timeout: float = 1800.0
    scripts: tuple[Script, ...] = ()

    def deploy(
        self,
        repository: Path,
        rev: str,
        ref: str,
        into: Path,
        *,
        remote_url: str,
        key: Path,
        progress: Progress = lambda _line: None,
    ) -> BuiltImage:
        """Write the qcow2 ``into``: commit ``rev`` of ``repository`` deployed, following ``ref`` at ``remote_url``.

        The holder of the private ssh ``key`` (its public half lies beside it) gets in as root. ``into`` is whole or
        absent; no mount, loop device or process is left, whatever happens. Raises PackageError when ostree does not
        take the tree as one that boots, ConfigurationError without root or a program, InfrastructureError for
        everything else.
        """
        refuse_unable()
        into = into.absolute()
        into.parent.mkdir(parents=True, exist_ok=True)
        log = into.with_name(into.name + ".deploy.log")
        log.write_bytes(b"")
        steps = Steps(progress)
        with unfinished(into.with_name(into.name + ".raw")) as raw, unfinished(into) as image:
            with steps.step("make the file system"):
                uuid = make_file_system(raw.path, self.size)
            deployment = self._deployment(repository, rev, ref, raw.path_for_child, uuid, remote_url, key)
            with tempfile.TemporaryDirectory(prefix="distgate-deploy-") as workspace:
                deployed = run_in_namespaces(
                    _CHILD,
                    deployment,
                    Path(workspace),
                    log=log,
                    timeout=self.timeout,
                    progress=progress,
                    pass_fds=(raw.number,),
                    evidence=_EVIDENCE,
                )
            before, steps = steps.taken, Steps(progress)
            with steps.step("convert it to qcow2"):
                run(
                    ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw.path, image.path],
                    timeout=self.timeout,
                    error=InfrastructureError,
                )
            image.publish(into)
        return BuiltImage(into, log, (*before, *deployed, *steps.taken))

    def _deployment(
        self, repository: Path, rev: str, ref: str, disk: Path, uuid: str, remote_url: str, key: Path
    ) -> Deployment:
        return Deployment(
            repository=repository.resolve(),
            rev=rev,
            ref=ref,
            disk=disk,
            osname=self.osname,
            remote=self.remote,
            remote_url=remote_url,
            remote_options=self.remote_options,
            kargs=self.kargs,
            root=self.root.format(uuid=uuid),
            keys=public_keys(key),
            scripts=self.scripts,
        )


def refuse_unable() -> None:
    """Raise ConfigurationError where no disk can be deployed, with what is missing."""
    if os.geteuid() != 0:
        raise ConfigurationError("deploying a disk takes root", hint="start the worker as root")
    missing = [program for program in _PROGRAMS if not on_path(program)]
    if missing:
        raise ConfigurationError(f"{missing[0]} is not installed", hint="./run installs what distgate needs")


def public_keys(key: Path) -> tuple[str, ...]:
    """The public half of a private ssh key. Raises ConfigurationError when it is not beside it."""
    public = Path(f"{key}.pub")
    try:
        return tuple(line for line in public.read_text().splitlines() if line.strip())
    except OSError as error:
        raise ConfigurationError(
            f"there is no public half of the ssh key {key}", hint=f"expected {public}"
        ) from error


def make_file_system(disk: Path, size: int) -> str:
    """Make ``disk`` a raw disk of ``size`` MiB with one active partition of ext4; the UUID of that."""
    with disk.open("r+b") as stream:
        stream.truncate(size * MIB)
        stream.write(_boot_code())
        stream.seek(446)
        stream.write(_partition_table(size * MIB))
    # extlinux reads neither 64-bit block numbers nor checksummed metadata. A journal, for a host restarts at will.
    features = ["-O", "^64bit,^metadata_csum", "-J", "size=16", "-E", f"offset={OFFSET},lazy_itable_init=1"]
    run(["mke2fs", "-q", "-t", "ext4", *features, "-m", "1", "-L", "root", disk, f"{size - 1}M"], timeout=300)
    probe = run(["blkid", "--probe", "--offset", str(OFFSET), "-o", "value", "-s", "UUID", disk], timeout=60)
    return probe.output.strip()


def _boot_code() -> bytes:
    for path in map(Path, _BOOT_SECTORS):
        if path.exists():
            return path.read_bytes()[:440]
    raise ConfigurationError("syslinux's mbr.bin is not installed", hint="./run installs what distgate needs")


def _partition_table(size: int) -> bytes:
    # Cylinders, heads and sectors say "beyond what these fields can tell": every reader then takes the LBA.
    beyond = b"\xfe\xff\xff"
    entry = struct.pack("<B3sB3sII", 0x80, beyond, 0x83, beyond, OFFSET // 512, (size - OFFSET) // 512)
    return entry + bytes(48) + b"\x55\xaa"
