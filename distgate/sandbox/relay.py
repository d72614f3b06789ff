"""The forwards out of a sandbox: connections to a loopback port inside, carried to one guest's port outside."""

from __future__ import annotations

import contextlib
import socket
import threading

#: Connections at one time; a suite needs a few, and what it opens beyond that is closed at once.
_CONNECTIONS = 32
_CHUNK = 1 << 16
_CONNECT_SECONDS = 30.0


class GuestRelay:
    """Carries what arrives at ``listener`` to ``host``:``port``, in threads of the caller's network namespace."""

    def __init__(
        self, listener: socket.socket, port: int, host: str = "127.0.0.1", connections: int = _CONNECTIONS
    ) -> None:
        self._listener = listener
        self._address = (host, port)
        self._free = threading.BoundedSemaphore(connections)

    def start(self) -> None:
        """Serve until this process ends."""
        threading.Thread(target=self._accept, name="guest relay", daemon=True).start()

    def _accept(self) -> None:
        while True:
            inside, _ = self._listener.accept()
            if self._free.acquire(blocking=False):
                threading.Thread(target=self._carry, args=(inside,), daemon=True).start()
            else:
                inside.close()

    def _carry(self, inside: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            inside,
            socket.create_connection(self._address, _CONNECT_SECONDS) as outside,
        ):
            outside.settimeout(None)
            for link in (inside, outside):
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pump, args=(outside, inside), daemon=True)
            back.start()
            _pump(inside, outside)
            back.join()
        self._free.release()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
