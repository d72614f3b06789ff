"""Where whole images are made, and what for."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from blocks.site import SiteBlock
from distgate.kickstart.base import ImageBuilder


class ImageFactory(SiteBlock):
    """imagefactory on the worker's host: it makes base images, and images of commits that shape the install."""

    _block_type_name: ClassVar[str | None] = "Image factory"
    _block_type_slug: ClassVar[str | None] = "image-factory"
    _description: ClassVar[str | None] = "How images are built from nothing but a kickstart."

    command: list[str] = Field(
        default_factory=lambda: ["imagefactory"],
        description="The program, with its first arguments; it is called with imagefactory's command line",
    )
    timeout: float = Field(3600.0, gt=0, description="Seconds that a build may take")
    no_progress_timeout: float = Field(
        900.0, gt=0, description="Seconds without news in the log and without a growing file, after which it hangs"
    )
    workdir: str = Field(
        "", description="Directory for a build's disk while it is made; empty: beside the image that is asked for"
    )
    install_url: str = Field(
        "", description="Where the installer is; {release} and {arch} are filled in. Empty: Fedora's own tree"
    )
    arch: str = Field("x86_64", description="Architecture of the images")
    libvirt: str = Field(
        "qemu:///system", description="The libvirt that the installer's virtual machine runs in; empty: it needs none"
    )
    memory: int = Field(2048, gt=0, description="Memory of the installer's virtual machine in MiB")
    cpus: int = Field(1, gt=0, description="Its virtual processors")
    disk: int | None = Field(None, gt=0, description="Size of the image's disk in GiB; empty: 10, as Oz has it")
    compressed: bool = Field(False, description="Whether the images are compressed: smaller, and slower to read")
    parameters: dict[str, str] = Field(
        default_factory=dict, description="Further --parameter pairs, as this imagefactory needs them"
    )
    variables: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables for it, such as LIBGUESTFS_BACKEND; none is inherited",
    )

    def builder(self) -> ImageBuilder:
        """What builds images here."""
        from distgate.kickstart.imagefactory import ImageFactory as Driver
        from distgate.kickstart.imagefactory_workspace import Resources

        return Driver(
            command=tuple(self.command),
            no_progress_timeout=self.no_progress_timeout,
            workdir=Path(self.workdir) if self.workdir else None,
            resources=Resources(self.libvirt, self.memory, self.cpus, self.disk),
            install_url=self.install_url,
            arch=self.arch,
            compressed=self.compressed,
            parameters=dict(self.parameters),
            variables=dict(self.variables),
        )
