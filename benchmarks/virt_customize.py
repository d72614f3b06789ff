"""virt-customize with the same RPM on the same base: libguestfs's appliance, run by qemu itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.guests.accelerator import accelerator
from distgate.images.base import BaseImage
from distgate.process import on_path, run
from distgate.rpm.nevra import RpmFile

_SECONDS = 900.0


@dataclass(frozen=True)
class Appliance:
    """libguestfs's appliance, made already; ``environment`` is what each call of its tools needs."""

    environment: Mapping[str, str]

    @property
    def kernel(self) -> Path | None:
        """The directory of the appliance's kernel and modules; None: this host's own."""
        modules = self.environment.get("SUPERMIN_MODULES")
        return Path(modules) if modules else None

    @classmethod
    def prepare(cls, base: BaseImage, scratch: Path, progress: Callable[[str], None]) -> Appliance:
        """Make the appliance from this host's kernel, or the lab's where there is none, outside of the measured time.

        Raises ConfigurationError without libguestfs-tools.
        """
        if not on_path("virt-customize"):
            raise ConfigurationError(
                "there is no virt-customize on this host", hint="install libguestfs-tools (Fedora: guestfs-tools)"
            )
        scratch.mkdir(parents=True)
        environment = {
            "LIBGUESTFS_BACKEND": "direct",
            "LIBGUESTFS_CACHEDIR": str(scratch),
            "TMPDIR": str(scratch),
            **_kernel(base, scratch),
        }
        if accelerator().name == "tcg":
            environment["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
        progress("making libguestfs's appliance")
        appliance = cls(environment)
        run(["guestfish", "-a", "/dev/null", "run"], timeout=_SECONDS, env=environment, error=InfrastructureError)
        return appliance

    def install(self, base: BaseImage, rpm: RpmFile, overlay: Path) -> None:
        """An ``overlay`` of ``base`` with ``rpm`` in it.

        By the guest's own rpm: --install would have the guest's dnf download it, and the lab's has neither dnf nor a
        network; so this costs less than --install does.
        """
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base.path), str(overlay)]
        run(create, timeout=60, error=InfrastructureError)
        argv = ["virt-customize", "--quiet", "--no-network", "--no-logfile", "--smp", "1", "-a", str(overlay)]
        argv += ["--copy-in", f"{rpm.path}:/var", "--run-command", f"rpm -U /var/{rpm.path.name}"]
        argv += ["--delete", f"/var/{rpm.path.name}"]
        run(argv, timeout=_SECONDS, env=self.environment, error=InfrastructureError)


def _kernel(base: BaseImage, scratch: Path) -> dict[str, str]:
    """What leads supermin to a kernel: nothing where the host has one of its own, else the lab guest's."""
    Path("/lib/modules").mkdir(exist_ok=True)  # supermin looks there first, and gives up without it
    if any(Path("/boot").glob("vmlinuz-*")):
        return {}
    kernels = [rpm for repository in base.repositories for rpm in Path(repository).glob("kernel-core-*.rpm")]
    if not kernels:
        raise InfrastructureError("neither this host nor the base's repositories have a kernel for libguestfs")
    root = scratch / "kernel"
    root.mkdir()
    options = ["--nodeps", "--noscripts", "--nosignature"]
    argv = ["rpm", "--root", str(root), "--dbpath", "/rpmdb", *options, "-i", str(kernels[0])]
    run(argv, timeout=120, error=InfrastructureError)
    modules = next((root / "usr/lib/modules").iterdir())
    return {"SUPERMIN_KERNEL": str(modules / "vmlinuz"), "SUPERMIN_MODULES": str(modules)}
