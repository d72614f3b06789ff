"""The checks of this host: guests, images, disk, the sandbox, and the tools that run tests.

Each function returns its result, or raises the error that says why there is none.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from distgate.base_images.entries import list_store
from distgate.doctor.report import (
    CheckResult,
    Confinement,
    Space,
    judge_accelerator,
    judge_bases,
    judge_compose,
    judge_disk,
    judge_sandbox,
)
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.guests.accelerator import LIMIT, choose, find_qemu
from distgate.mounts.choice import supported_drivers
from distgate.process import on_path, run
from distgate.sandbox.sandbox import Sandbox

#: What choose() may take of its limit: once for KVM, ten times for emulation.
_BOTH = 12
#: Reports its user, its capabilities and what it reaches. It fails without a mounted /proc, and so does the check.
_PROGRAM = """
import json, os, socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2).close()
    reached = True
except OSError:
    reached = False
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
routes = len(open("/proc/net/route").readlines()) - 1
found = {"uid": os.getuid(), "capabilities": int(status["CapEff"], 16), "routes": routes, "reached": reached}
os.write(int(os.environ["REPORT_FD"]), json.dumps(found).encode())
"""


def check_accelerator(seconds: float) -> CheckResult:
    """Boot a boot sector, at most for about ``seconds``: what was remembered from an earlier one is no proof."""
    chosen = choose(min(LIMIT, seconds / _BOTH))
    return judge_accelerator(chosen.name, chosen.reason, chosen.scale)


def check_qemu(seconds: float) -> CheckResult:
    """The emulator and qemu-img, with the emulator's version."""
    lines = run([find_qemu(), "--version"], timeout=seconds).output.strip().splitlines()
    if not on_path("qemu-img"):
        return CheckResult(False, "no qemu-img on this host", "install qemu-utils (Debian) or qemu-img (Fedora)")
    return CheckResult(True, lines[0] if lines else "qemu prints no version")


def check_libvirt(guests: Path) -> CheckResult:
    """Open the embedded driver with the state directory that runs use."""
    try:
        from distgate.guests.libvirt_connection import embedded_libvirt
    except ImportError as error:  # the binding is compiled: it may not fit the library that is there
        raise ConfigurationError(
            f"libvirt's Python binding does not load: {error}", hint="./run installs what distgate needs"
        ) from error
    if not space_in(guests, "guests").writable:  # before the driver leaves half of itself in the temporary directory
        return CheckResult(
            False,
            f"the state of guests cannot be written to {guests}",
            "the block guest-machine or DISTGATE_GUESTS_DIR names another",
        )
    version = int(embedded_libvirt(guests).connection.getLibVersion())
    numbers = (version // 1_000_000, version // 1000 % 1000, version % 1000)
    return CheckResult(True, f"the embedded driver of libvirt {'.'.join(map(str, numbers))} opens, state in {guests}")


def check_sandbox(seconds: float) -> CheckResult:
    """Run a program of ours in the sandbox for those of strangers, and let it try to get out."""
    with tempfile.TemporaryDirectory(prefix="distgate-doctor-") as scratch, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        log = Path(scratch) / "log"
        ended = Sandbox().run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(listener.getsockname()[1])],
            env={"PATH": "/usr/bin:/bin"},
            timeout=seconds / 2,
            log_to=log,
        )
        output = log.read_text(errors="replace") if log.exists() else ""
    try:
        return judge_sandbox(Confinement(**json.loads(ended.report)))
    except (ValueError, TypeError) as error:
        raise InfrastructureError(
            f"a trivial program ended with status {ended.returncode} in the sandbox",
            hint="docs/isolation.md",
            evidence=output,
        ) from error


def check_compose(chosen: str, appliance_kernel: Path | None) -> CheckResult:
    """Which drivers can mount an image here; nothing is mounted."""
    return judge_compose(supported_drivers(appliance_kernel), chosen)


def check_disk(artifacts: Path, images: Path, limit: int) -> CheckResult:
    """Free space for the artifacts of runs, for base images, and for temporary files; ``limit`` is in bytes."""
    directories = {"artifacts": artifacts, "images": images, "temporary files": Path(tempfile.gettempdir())}
    return judge_disk([space_in(path, purpose) for purpose, path in directories.items()], limit)


def space_in(path: Path, purpose: str) -> Space:
    """The free space of the directory ``path`` or, while it is not there yet, in the one that it will be made in."""
    path = existing = path.absolute()
    while not os.path.exists(existing) and existing != existing.parent:  # Path.exists raises without permission
        existing = existing.parent
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Space(purpose, path, None, False, error.strerror or str(error))
    return Space(purpose, path, free, existing.is_dir() and os.access(existing, os.W_OK | os.X_OK))


def check_images(store: Path, watched: Sequence[str]) -> CheckResult:
    """The store of base images and what it has for the branches that are ``watched`` (shell patterns)."""
    if not store.is_dir():
        return CheckResult(
            False,
            f"there is no image store {store}",
            "the block image-store or DISTGATE_IMAGE_STORE names it; `distgate images refresh --branch BRANCH` "
            "begins one",
        )
    if not os.access(store, os.R_OK | os.W_OK | os.X_OK):
        return CheckResult(
            False, f"{store} cannot be read and written", "runs lock and lease what they use of the store"
        )
    listing = list_store(store.absolute() / "bases")
    return judge_bases([branch for branch, _ in listing.current], watched, len(listing.odd))


def check_ansible(per_branch: Mapping[str, Path], roles: Sequence[Path]) -> CheckResult:
    """Our ansible, those of single branches, and the site's roles; none of them is run."""
    version = _version_of("ansible-core", "ansible-runner")
    playbook_command = Path(sys.executable).parent / "ansible-playbook"
    if not (playbook_command.exists() or on_path("ansible-playbook")):
        return CheckResult(False, f"there is no {playbook_command}", "./run installs what distgate needs")
    for branch, directory in per_branch.items():
        if not (directory / "ansible-playbook").exists():
            return CheckResult(
                False, f"no ansible-playbook in {directory} (branch {branch})", "DISTGATE_ANSIBLE names it"
            )
    for directory in roles:
        if not directory.is_dir():
            return CheckResult(False, f"there is no directory of roles {directory}", "DISTGATE_ROLES_PATH names it")
    others = f"; others for {', '.join(per_branch)}" if per_branch else ""
    return CheckResult(True, version + others)


def check_tmt() -> CheckResult:
    """The tmt of this Python; it is not run."""
    return CheckResult(True, _version_of("tmt"))


def _version_of(*names: str) -> str:
    try:
        return ", ".join(f"{name} {metadata.version(name)}" for name in names)
    except metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            f"this Python has no {error.name}", hint="./run installs what distgate needs"
        ) from error
