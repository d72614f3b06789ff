"""Commands in a guest over OpenSSH, with every option said explicitly: no user's configuration has a part in it."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.guests.base import CommandResult
from distgate.process import run as run_process

_UNREACHABLE = 255
#: Bytes of a command's output. A package under test owns the guest, and may answer without end.
_MOST = 32 << 20

#: For every ssh to a guest. Throw-away guests have throw-away host keys, so none is remembered. The keep-alive ends
#: a connection whose guest vanished: user-mode networking keeps it open for ever otherwise.
OPTIONS: tuple[str, ...] = (
    *("-F", "/dev/null"),
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "GlobalKnownHostsFile=/dev/null"),
    *("-o", "IdentitiesOnly=yes"),
    *("-o", "IdentityAgent=none"),
    *("-o", "ControlMaster=no"),
    *("-o", "ControlPath=none"),
    *("-o", "ConnectTimeout=30"),
    *("-o", "ServerAliveInterval=10"),
    *("-o", "ServerAliveCountMax=6"),
    *("-o", "LogLevel=ERROR"),
)


@dataclass(frozen=True)
class SshAddress:
    """Where a guest's sshd answers, and the private key that it accepts for ``user``.

    ``options`` come before OPTIONS, and the first of each name counts.
    """

    port: int
    key: Path
    host: str = "127.0.0.1"
    user: str = "root"
    options: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        """The argument list of an ssh to here; ``arguments`` are what the guest's shell gets."""
        return [
            *("ssh", *self.options, *OPTIONS, "-T", "-i", str(self.key), "-p", str(self.port)),
            *(f"{self.user}@{self.host}", "--", *arguments),
        ]


def run(address: SshAddress, command: str, timeout: float) -> CommandResult:
    """Run a shell command in the guest and return what it said, decoded with replacement: 32 MiB at most.

    Raises InfrastructureError when the guest cannot be reached (ssh's own status 255) or ``timeout`` seconds pass.
    """
    ended = run_process(
        address.command(command),
        timeout=timeout,
        allowed=range(-64, _UNREACHABLE + 1),
        split_errors=True,
        most=_MOST,
    )
    if ended.returncode == _UNREACHABLE:
        raise InfrastructureError(
            f"ssh to {address.user}@{address.host}:{address.port} failed",
            hint="the guest is down, or refuses the key",
            evidence=ended.errors,
        )
    return CommandResult(ended.returncode, ended.output, ended.errors)


def banner(address: SshAddress, patience: float = 3.0) -> str | None:
    """The first line of the guest's sshd, or None when nothing says "SSH-" within ``patience`` seconds.

    A connection proves nothing: user-mode networking accepts it even while the guest is down.
    """
    with contextlib.suppress(OSError), socket.create_connection((address.host, address.port), patience) as link:
        link.settimeout(patience)
        banner = link.recv(256)
        if banner.startswith(b"SSH-"):
            return banner.split(b"\n", 1)[0].strip().decode("ascii", "replace")
    return None
