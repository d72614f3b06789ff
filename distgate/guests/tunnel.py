"""One way out of an isolated guest: a tunnel to a single address, through an ssh connection of its own.

A guest has no network but its ssh port. ``reverse_tunnel`` lets it reach one host and port, by the usual address if
possible, and nothing else: what it asks for elsewhere finds no route.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.files import remove_tree, tail_of
from distgate.guests import ssh
from distgate.guests.base import Guest
from distgate.process import ProcessTimedOut, run, spawn
from distgate.waiting import wait_for

#: Seconds for the connection and for the guest's answer to it; an emulated guest's sshd needs a few.
OPEN_SECONDS = 120.0
#: Seconds that ssh gets to close the tunnel before it is killed.
_CLOSE_SECONDS = 15.0
_PORTS = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\.?")
#: Addresses that mean the guest itself, in it as here: what listens there is found by the same URL.
_LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_HOSTS_MARK = "# opened by distgate"


@dataclass(frozen=True)
class TunnelTarget:
    """Where a URL leads: ``host`` and ``port`` as seen from here, and the URL as the guest has to use it."""

    host: str
    port: int
    url: str
    name: str = ""

    @property
    def forwarding(self) -> str:
        """What ssh forwards: the guest's loopback interface, at the same port, leads there and nowhere else."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"localhost:{self.port}:{host}:{self.port}"


def address_of(url: str) -> TunnelTarget:
    """What ``reverse_tunnel`` opens for a URL.

    A loopback URL and one with a host name stay as they are (in the guest ``name`` is its end of the tunnel), so that
    virtual hosts and certificates work. Of any other numeric address only http is possible: its number becomes
    127.0.0.1. Raises ConfigurationError for what cannot be opened.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is no address: {error}") from None
    if parts.scheme not in _PORTS or not host:
        raise ConfigurationError(f"a guest can be let to http and https addresses, not to {url!r}")
    if host in _LOOPBACK:
        return TunnelTarget("127.0.0.1", port, url)
    if not _is_number(host):
        if not _HOST_NAME.fullmatch(host):
            raise ConfigurationError(f"{host!r} is no host name")
        return TunnelTarget(host, port, url, name=host)
    if parts.scheme == "https":
        raise ConfigurationError(
            f"cannot forward {url} into a guest: a certificate for a number fits no other",
            hint="use the server's name, or http",
        )
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return TunnelTarget(host, port, urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{port}")))


@contextmanager
def reverse_tunnel(guest: Guest, url: str, timeout: float = OPEN_SECONDS) -> Iterator[str]:
    """Let ``guest`` reach the server of ``url`` for the block, which gets the URL as the guest has to use it.

    Names are looked up on this host. The tunnel closes when the guest restarts; another can be opened then. Raises
    InfrastructureError when it cannot be opened within ``timeout`` seconds, or when it turns out at the end that it
    broke (whatever the block raised for want of it), ConfigurationError for a URL that cannot be opened.
    """
    where = address_of(url)
    control = Path(tempfile.mkdtemp(prefix="distgate-tunnel-"))  # a socket's path must be short
    link = _Connection(ssh.SshAddress(guest.port, guest.key), control, where)
    try:
        link.open(timeout)
        with _named(guest, where, timeout), link.watched():
            yield where.url
    finally:
        link.close()
        remove_tree(control, ignore_errors=True)


class _Connection:
    """The ssh connection that carries what the guest sends, as a process of its own."""

    def __init__(self, address: ssh.SshAddress, control: Path, where: TunnelTarget) -> None:
        self._address, self._where = address, where
        self._socket, self._log = control / "s", control / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, timeout: float) -> None:
        """Connect, and have the guest listen. Raises InfrastructureError."""
        # A worker that is killed takes its tunnels along.
        argv = ["setpriv", "--pdeathsig", "TERM", "--", *self._argv("-M", "-N")]
        process = self._process = spawn(argv, log_to=self._log)

        def connected() -> bool:
            if process.poll() is not None:
                raise self._refused("ssh ended", tail_of(self._log))
            return self._socket.exists()

        wait_for("an ssh connection for a tunnel", connected, timeout, evidence=lambda: tail_of(self._log))
        argv = self._argv("-O", "forward", "-R", self._where.forwarding)
        try:
            done = run(argv, timeout=timeout, allowed=(0, 255))
        except ProcessTimedOut as error:
            raise self._refused("it does not answer", error.evidence) from None
        if done.returncode:
            raise self._refused(f"is something listening at port {self._where.port} there?", done.output)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """After the block, whatever it raised: raise InfrastructureError if the connection broke meanwhile."""
        try:
            yield
        except (DistgateError, OSError) as error:
            if self._broken():
                raise self._broken_error() from error
            raise
        if self._broken():
            raise self._broken_error()

    def close(self) -> None:
        """End the connection; the guest stops listening."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _broken(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _refused(self, why: str, output: str) -> InfrastructureError:
        where = f"{self._where.host}:{self._where.port}"
        return InfrastructureError(f"cannot forward {where} into the guest: {why}", evidence=output)

    def _broken_error(self) -> InfrastructureError:
        return InfrastructureError(
            f"the guest's tunnel to {self._where.host}:{self._where.port} broke",
            hint="the guest restarted, or hung for longer than ssh waits",
            evidence=tail_of(self._log),
        )

    def _argv(self, *command: str) -> list[str]:
        to = self._address
        options = ["-T", "-S", str(self._socket), "-o", "ExitOnForwardFailure=yes"]
        return [
            "ssh",
            *command,
            *options,
            *ssh.OPTIONS,
            "-i",
            str(to.key),
            "-p",
            str(to.port),
            f"{to.user}@{to.host}",
        ]


@contextmanager
def _named(guest: Guest, where: TunnelTarget, timeout: float) -> Iterator[None]:
    """The guest finds its own loopback interface by the server's name meanwhile."""
    if not where.name:
        yield
        return
    line = shlex.quote(f"127.0.0.1 {where.name} {_HOSTS_MARK}")
    # Written over, not replaced: the file may be mounted, and has its label.
    forget = f'kept=$(grep -v {shlex.quote(_HOSTS_MARK)} /etc/hosts); printf "%s\\n" "$kept" > /etc/hosts'
    added = guest.run(f"{forget}; echo {line} >> /etc/hosts", timeout)
    if added.returncode:
        raise InfrastructureError(f"the guest does not learn what {where.name} is", evidence=added.stderr)
    try:
        yield
    finally:
        with suppress(InfrastructureError):  # a guest that is gone has forgotten it
            guest.run(forget, timeout)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
