"""The process inside the namespaces of distgate.atomic.disk: mount, pull, deploy, unmount.

Run by distgate.sandbox.child.run_in_namespaces.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from distgate.atomic.disk import OFFSET, Deployment
from distgate.errors import InfrastructureError, PackageError
from distgate.mounts.root import InstallRoot, cleanup_after, system_directories
from distgate.process import ProcessFailed, run
from distgate.rpm.file_attributes import policy_of
from distgate.rpm.transaction import Script
from distgate.sandbox.bubblewrap_rpm import bwrap_for_scriptlets
from distgate.sandbox.child import carry_out
from distgate.steps import Steps

TIMEOUT = 1800.0
#: What ostree says of a tree that it cannot deploy.
_NO_HOST = re.compile(
    r"[Nn]o kernel|find (a )?kernel|usr/etc|vmlinuz|initramfs|os-release|is not a (deployable )?tree"
)
#: What was on the disk before ostree writes its boot menu; it keeps these lines.
_MENU = "PROMPT 0\nTIMEOUT 1\n"


def deploy(deployment: Deployment, workspace: Path, steps: Steps) -> None:
    """Fill the disk's file system; it is mounted for us alone, and unmounted at the end."""
    with mounted(deployment.disk, workspace, steps) as sysroot:
        with steps.step("fetch the commit"):
            _prepare(sysroot, deployment)
            _fetch(sysroot, deployment)
        with steps.step("deploy it"):
            _deploy(sysroot, deployment)
            _let_in(sysroot, deployment)
        if deployment.scripts:
            with steps.step("run scripts"), _host_root(sysroot, deployment, workspace) as root:
                for script in deployment.scripts:
                    _run_script(root, script)
        with steps.step("make it boot"):
            _ostree_said(["extlinux", "--install", sysroot / "boot/syslinux"])
        _label(sysroot, deployment, steps)


@contextmanager
def mounted(disk: Path, workspace: Path, steps: Steps) -> Iterator[Path]:
    """The file system of the raw ``disk``, below a new directory of ``workspace``."""
    sysroot = workspace / "sysroot"
    sysroot.mkdir()
    with steps.step("mount"):
        mount: list[str | Path] = ["mount", "-o", f"loop,nodev,nosuid,offset={OFFSET}", disk, sysroot]
        run(mount, timeout=60, error=InfrastructureError)

    def unmount() -> None:
        with steps.step("unmount"):
            run(["umount", sysroot], timeout=TIMEOUT, error=InfrastructureError)

    with cleanup_after(unmount):
        yield sysroot


def _prepare(sysroot: Path, deployment: Deployment) -> None:
    (sysroot / "boot").mkdir()
    _ostree_said(["ostree", "admin", "init-fs", sysroot])
    _ostree_said(["ostree", "admin", "os-init", deployment.osname, f"--sysroot={sysroot}"])
    # A menu at this place makes ostree write extlinux's own language, now and at each upgrade.
    menu = sysroot / "boot/syslinux/syslinux.cfg"
    for directory in (menu.parent, sysroot / "boot/loader.0"):
        directory.mkdir(parents=True)
    (sysroot / "boot/loader").symlink_to("loader.0")
    (sysroot / "boot/loader/syslinux.cfg").write_text(_MENU)
    menu.symlink_to("../loader/syslinux.cfg")


def _fetch(sysroot: Path, deployment: Deployment) -> None:
    repository = f"--repo={sysroot / 'ostree/repo'}"
    address = [deployment.remote, deployment.remote_url, deployment.ref]
    _ostree_said(["ostree", repository, "remote", "add", *deployment.remote_options, *address])
    _ostree_said(
        ["ostree", repository, "pull-local", f"--remote={deployment.remote}", deployment.repository, deployment.rev]
    )
    _ostree_said(["ostree", repository, "refs", deployment.rev, f"--create={deployment.remote}:{deployment.ref}"])


def _deploy(sysroot: Path, deployment: Deployment) -> None:
    # Appended: --karg would let the second console= take the place of the first.
    kargs = [f"--karg-append={argument}" for argument in (f"root={deployment.root}", *deployment.kargs)]
    argv = ["ostree", "admin", "deploy", f"--sysroot={sysroot}", f"--os={deployment.osname}", *kargs]
    _ostree_said([*argv, f"{deployment.remote}:{deployment.ref}"])


def _let_in(sysroot: Path, deployment: Deployment) -> None:
    """Root's home is in /var, which all deployments share."""
    home = sysroot / "ostree/deploy" / deployment.osname / "var/roothome"
    for directory in (home, home / ".ssh"):
        if directory.is_symlink():  # newer ostree fills /var from the tree, and this is root of this host
            raise PackageError(f"the tree makes /var/{directory.relative_to(home.parent)} a link")
        directory.mkdir(mode=0o700, exist_ok=True)
    authorized = home / ".ssh/authorized_keys"
    authorized.write_text("".join(f"{key}\n" for key in deployment.keys))
    authorized.chmod(0o600)


@contextmanager
def _host_root(sysroot: Path, deployment: Deployment, workspace: Path) -> Iterator[Path]:
    """The deployment as its host will see it: /sysroot and /var in their places, /usr read-only."""
    root = _deployed(sysroot, deployment)
    shared = workspace / "shared"
    shared.mkdir()
    binds = (
        (sysroot, "sysroot"),
        (sysroot / "ostree/deploy" / deployment.osname / "var", "var"),
        (root / "usr", "usr"),
    )
    with ExitStack() as bound:
        for source, target in binds:
            run(["mount", "--bind", source, root / target], timeout=60, error=InfrastructureError)
            bound.enter_context(cleanup_after(partial(_unmount, root / target)))
        run(["mount", "-o", "remount,bind,ro", root / "usr"], timeout=60, error=InfrastructureError)
        with system_directories(InstallRoot(root), shared):
            yield root


def _unmount(mount_point: Path) -> None:
    run(["umount", "--lazy", mount_point], timeout=60, error=InfrastructureError)


def _run_script(root: Path, script: Script) -> None:
    inside = root / "run" / script.name
    inside.write_text(script.body)
    argv: list[str | Path] = [
        *bwrap_for_scriptlets(root, ()),
        "chroot",
        root,
        script.interpreter,
        f"/run/{script.name}",
    ]
    try:
        print(run(argv, timeout=TIMEOUT, env={"HOME": "/root"}).output, end="", flush=True)
    except ProcessFailed as error:
        print(error.evidence, end="", flush=True)
        if script.fatal:
            raise InfrastructureError(f"{script.name} failed", evidence=error.evidence) from None


def _deployed(sysroot: Path, deployment: Deployment) -> Path:
    deployments = sysroot / "ostree/deploy" / deployment.osname / "deploy"
    return next(path for path in sorted(deployments.iterdir()) if path.is_dir())


def _label(sysroot: Path, spec: Deployment, steps: Steps) -> None:
    """SELinux labels for what is not in the commit, on a host without SELinux: /etc and /var.

    The commit's own files bring theirs.
    """
    stateroot = sysroot / "ostree/deploy" / spec.osname
    deployment = _deployed(sysroot, spec)
    policy = policy_of(deployment)
    if not policy:
        return
    with steps.step("label"):
        for top, part in ((deployment, "etc"), (stateroot, "var")):
            argv: list[str | Path] = ["setfiles", "-F", "-r", top, policy, top / part]
            run(argv, timeout=TIMEOUT, error=InfrastructureError, hint="is policycoreutils installed?")


def _ostree_said(argv: list[str | Path]) -> None:
    # OSTREE_SYSROOT and the like of whoever started us have no part in it: the environment is a listed one.
    try:
        print(run(argv, timeout=TIMEOUT).output, end="", flush=True)
    except ProcessFailed as error:
        print(error.evidence, end="", flush=True)
        last_line = error.evidence.strip().splitlines()[-1:] or [""]
        if os.path.basename(str(argv[0])) == "ostree" and _NO_HOST.search(error.evidence):
            raise PackageError(f"no host can be made of the tree: {last_line[0]}", evidence=error.evidence) from None
        raise InfrastructureError(f"the disk cannot be made: {last_line[0]}", evidence=error.evidence) from None


if __name__ == "__main__":
    sys.exit(carry_out(Deployment, deploy))
