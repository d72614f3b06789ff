"""A TCP line with bad days: between a service and a real server it passes on everything, or less."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["open", "mute", "deaf"]
TICK = 0.02


@dataclass
class FaultyLine:
    """Listens on ``port`` and passes on to 127.0.0.1:``target``.

    ``mode`` counts for connections that exist as well: ``mute`` holds the server's answers back, ``deaf`` what the
    client says; both are passed on when the line is ``open`` again.
    """

    target: int
    mode: Mode = "open"
    held: int = 0
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> FaultyLine:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as server:
            selector = selectors.DefaultSelector()
            selector.register(client, selectors.EVENT_READ, (server, "deaf"))
            selector.register(server, selectors.EVENT_READ, (client, "mute"))
            late: list[tuple[socket.socket, bytes]] = []
            while not self._ended.is_set():
                while late and self.mode == "open":
                    to, data = late.pop(0)
                    to.sendall(data)
                for key, _ in selector.select(TICK):
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(65536)
                    to, fault = key.data
                    if not data:
                        return
                    if self.mode == fault:
                        late.append((to, data))
                        self.held += 1
                    else:
                        to.sendall(data)
