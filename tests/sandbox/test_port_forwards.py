"""A sandbox with several forwards out: each leads to one service, and there is no other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distgate.sandbox.sandbox import PortForward, Sandbox


@contextmanager
def service(says: str) -> Iterator[int]:
    """The port of a service of this host that says one line to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                with link:
                    link.sendall(f"{says}\n".encode())

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_each_way_leads_to_its_own_service_and_nothing_else_answers(tmp_path: Path) -> None:
    with service("one") as one, service("two") as two:
        ports = (22001, 22002, 22003, one, two)
        ask = "read -r -t 30 said < /dev/tcp/127.0.0.1/{0} && echo {0} $said || echo {0} nothing"
        script = "; ".join(ask.format(port) for port in ports)
        ended = Sandbox().run(
            ["bash", "-c", script],
            env={"PATH": "/usr/bin:/bin"},
            timeout=200,
            log_to=tmp_path / "log",
            forwards=[PortForward(22001, "127.0.0.1", one), PortForward(22002, "127.0.0.1", two)],
        )
    assert ended.returncode == 0
    answers = [line for line in (tmp_path / "log").read_text().splitlines() if not line.startswith("bash:")]
    assert answers == ["22001 one", "22002 two", "22003 nothing", f"{one} nothing", f"{two} nothing"]
