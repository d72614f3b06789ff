"""A Prefect server that wants a password: real header checks, by a server that answers as Prefect's does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from distgate.errors import ConfigurationError
from distgate.prefect_api import PrefectApi
from distgate.settings import Settings, settings

#: Header, the variables that make it.
CASES = [
    ("Basic ZGlzdGdhdGU6c2VjcmV0", {"PREFECT_API_AUTH_STRING": "distgate:secret"}),
    ("Bearer key-1", {"PREFECT_API_KEY": "key-1"}),
    ("Basic ZGlzdGdhdGU6c2VjcmV0", {"PREFECT_API_AUTH_STRING": "distgate:secret", "PREFECT_API_KEY": "key-1"}),
    ("Bearer key-2", {"DISTGATE_PREFECT_API_KEY": "key-2", "PREFECT_API_KEY": "key-1"}),
]


class Protected(BaseHTTPRequestHandler):
    """Tells its version to whoever has the header ``wanted``."""

    wanted = ""

    def do_GET(self) -> None:
        let_in = self.headers.get("Authorization", "") == self.wanted
        self.send_response(200 if let_in else 401)
        body = b'"3.8.8"' if let_in else b'{"exception_message":"Unauthorized"}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the test says what it saw."""


@pytest.fixture
def server() -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Protected)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/api"
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.parametrize(("header", "variables"), CASES)
def test_a_protected_server_lets_in_whom_the_variables_of_prefect_name(
    header: str, variables: dict[str, str], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Protected.wanted = header
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert PrefectApi(server).version() == "3.8.8"


def test_a_server_that_refuses_us_is_a_mistake_of_the_site_that_names_the_variables(server: str) -> None:
    Protected.wanted = "Basic somebody-else"
    with pytest.raises(ConfigurationError, match="401") as caught:
        PrefectApi(server, patience=30).version()
    assert "PREFECT_API_AUTH_STRING" in caught.value.hint


def test_no_password_is_shown_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "distgate:hunter2")
    assert "hunter2" not in repr(Settings())
