"""A guest and the host that starts it, as the rest of distgate sees them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, Field

from distgate.errors import InfrastructureError
from distgate.settings import settings


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest said."""

    returncode: int
    stdout: str
    stderr: str


class GuestStopped(InfrastructureError):
    """A guest ended by itself before it could be used; ``evidence`` is what console and emulator said last."""


class Guest(Protocol):
    """A running virtual machine that answers ssh on loopback."""

    @property
    def name(self) -> str:
        """Its name in logs."""

    @property
    def port(self) -> int:
        """The loopback port that leads to its sshd."""

    @property
    def key(self) -> Path:
        """The private key that root's authorized_keys in the guest knows."""

    @property
    def console(self) -> Path:
        """The file that its serial console is written to."""

    def run(self, command: str, timeout: float) -> CommandResult:
        """Run a shell command as root. Raises InfrastructureError when the guest cannot be reached."""

    def console_tail(self, size: int = 2000) -> str:
        """The end of the serial console: the evidence of every wait."""

    def reboot(self, timeout: float) -> Guest:
        """Ask it to restart, and return it once another boot obeys over ssh; ``timeout`` as that of a boot.

        Raises TimedOut with the console's tail when it does not come back, GuestStopped when it powers off.
        """


class GuestHost(Protocol):
    """Starts guests and never leaves one behind."""

    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> AbstractContextManager[Guest]:
        """A guest on a throw-away overlay of ``image``, entered once ssh answers, destroyed on exit.

        Logs and the serial console stay in ``workdir``. ``timeout`` is in seconds under KVM and is scaled by the
        accelerator that the probe found. Raises TimedOut with the console's tail.
        """


class GuestMachineFields(BaseModel):
    """Where the state of a host's guests is, and what each of them gets."""

    state: str = Field(
        "", description="Directory for the state of running guests; empty: the host's DISTGATE_GUESTS_DIR"
    )
    memory: int = Field(768, description="Memory of a guest in MiB")
    cpus: int = Field(1, description="Virtual processors of a guest")

    @property
    def directory(self) -> Path:
        """The directory for the state of running guests."""
        return Path(self.state or settings().guests)
