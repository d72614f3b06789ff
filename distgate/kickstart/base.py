"""What builds a whole image from a kickstart, and the table of all that can."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from pydantic import BaseModel, Field

from distgate.errors import ConfigurationError
from distgate.settings import settings
from distgate.steps import Progress, Step

#: Every builder: a class with ``configured(ImageFactoryFields)``, imported when it is opened.
BUILDERS = {"imagefactory": "distgate.kickstart.imagefactory:ImageFactory"}


class ImageFactoryFields(BaseModel):
    """What builds whole images, and what it may take for that."""

    driver: str = Field("imagefactory", description="What builds images: a name in distgate.kickstart.base.BUILDERS")
    command: list[str] = Field(
        default_factory=list,
        description="The program, with its first arguments; it is called with imagefactory's command line. Empty: "
        "the host's DISTGATE_IMAGE_FACTORY",
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

    @property
    def argv(self) -> tuple[str, ...]:
        """The program, with its first arguments."""
        return tuple(self.command) or settings().image_factory


@dataclass(frozen=True)
class BuiltImage:
    """A whole image made from a kickstart: a standalone bootable qcow2, its builder's log, each
    step's time, and the builder's name (``driver``)."""

    path: Path
    log: Path
    steps: tuple[Step, ...] = ()
    driver: str = ""


class ImageBuilder(Protocol):
    """Makes a bootable image from nothing but a kickstart (the ``full`` way)."""

    def build(
        self,
        kickstart: str,
        name: str,
        release: str,
        into: Path,
        timeout: float,
        progress: Progress = lambda _line: None,
    ) -> BuiltImage:
        """Build from the flattened text ``kickstart`` and write the qcow2 ``into``; logs stay beside it.

        ``name`` and ``release`` ("rawhide", "44") describe the image to the builder. Raises PackageError when the
        packages under test keep it from being built, InfrastructureError (TimedOut after ``timeout`` seconds, or
        when the builder shows no progress) for everything else; ``into`` is absent after a failure.
        """


def open_builder(fields: ImageFactoryFields) -> ImageBuilder:
    """The builder that a site's fields name, as they describe it. ConfigurationError for one that does not exist."""
    if fields.driver not in BUILDERS:
        raise ConfigurationError(
            f"nothing is called {fields.driver!r} that builds images", hint=f"there is {', '.join(BUILDERS)}"
        )
    module, _, name = BUILDERS[fields.driver].partition(":")
    return cast(ImageBuilder, getattr(import_module(module), name).configured(fields))
