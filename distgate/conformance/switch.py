"""The private Ethernet of one cluster: a small switch of ours between its guests, and nothing else on it.

Frames go as datagrams over unix sockets in a directory that only this user can enter. No port of this host and no
multicast group is involved: guests of two clusters cannot meet, and no guest reaches this host.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import queue
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distgate.guests.domain_xml import Wire

#: Longer than any frame that an emulator sends.
_LONGEST_FRAME = 1 << 17
#: Frames that wait for a guest that does not read; what comes beyond is lost, as on any Ethernet.
_WAITING = 1024
#: Seconds after which a frame that a guest does not take is lost.
_PATIENCE = 2.0
_GROUP_BIT = 0x01
_BUFFER = 4 << 20
#: So many addresses of one guest are remembered (containers have their own); a flood of invented ones is not.
_MOST_ADDRESSES = 4096


class Switch:
    """Carries frames between the guests at ``wires``, learning which address is behind which wire."""

    def __init__(self, wires: Sequence[Wire]) -> None:
        """Opens the socket that all ``wires`` lead to and serves it until ``close``."""
        self._ports = {os.fspath(wire.ours): _Port(wire.ours) for wire in wires}
        self._port_of: dict[bytes, str] = {}
        self._closed = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind(os.fspath(wires[0].switch))
        self._thread = threading.Thread(target=self._serve, name="cluster switch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Carry no more; the threads have ended when this returns."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        for port in self._ports.values():
            port.close()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                frame, source = self._socket.recvfrom(_LONGEST_FRAME)
            except OSError:
                return
            if self._closed:
                return
            if source:  # a socket without a name is no wire
                self._carry(frame, os.fsdecode(source))

    def _carry(self, frame: bytes, source: str) -> None:
        if source not in self._ports or len(frame) < 14:
            return
        target, sender = frame[:6], frame[6:12]
        if not sender[0] & _GROUP_BIT and (sender in self._port_of or len(self._port_of) < _MOST_ADDRESSES):
            self._port_of[sender] = source
        port = None if target[0] & _GROUP_BIT else self._port_of.get(target)
        for name in [port] if port else self._ports:
            if name != source:
                self._ports[name].send(frame)


class _Port:
    """One guest's end: frames wait here for a guest that is slow, and hold up no other."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._frames: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_PATIENCE)
        self._thread = threading.Thread(target=self._serve, name="cluster wire", daemon=True)
        self._thread.start()

    def send(self, frame: bytes) -> None:
        with contextlib.suppress(queue.Full):
            self._frames.put_nowait(frame)

    def close(self) -> None:
        while True:
            with contextlib.suppress(queue.Full):
                self._frames.put_nowait(None)
                break
            with contextlib.suppress(queue.Empty):
                self._frames.get_nowait()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while (frame := self._frames.get()) is not None:
            with contextlib.suppress(OSError):  # the guest is not there yet, has gone, or does not read
                self._socket.sendto(frame, self._path)


@contextmanager
def switched(directory: Path, count: int) -> Iterator[tuple[Wire, ...]]:
    """``count`` wires of one new switch, whose sockets lie in a new directory below the existing ``directory``.

    The path of ``directory`` must be short: that of a socket has at most 107 bytes. All of it is gone on exit.
    """
    sockets = directory / f"net-{uuid.uuid4().hex[:8]}"
    sockets.mkdir(mode=0o700)
    wires = tuple(Wire(sockets / str(number), sockets / "switch", _mac(number)) for number in range(1, count + 1))
    switch = Switch(wires)
    try:
        yield wires
    finally:
        switch.close()
        for path in sockets.iterdir():
            path.unlink()
        sockets.rmdir()


def _mac(number: int) -> str:
    return f"52:54:00:c1:{number >> 8:02x}:{number & 0xFF:02x}"


def addresses(network: str, count: int) -> tuple[str, ...]:
    """The first ``count`` host addresses of ``network`` from its tenth on, each with the prefix (10.0.0.10/24)."""
    net = ipaddress.ip_network(network)
    return tuple(f"{net.network_address + 10 + number}/{net.prefixlen}" for number in range(count))
