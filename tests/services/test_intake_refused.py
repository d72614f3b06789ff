"""A Prefect that refuses us is a fault of the configuration, and never makes a dead letter of a good push."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from fedora_messaging.message import Message

from distgate.ledger.ledger import Ledger
from distgate.prefect_api import PrefectApi
from distgate.settings import Settings
from services.intake import Intake

PUSH = {
    "repo": {"namespace": "rpms", "name": "tiny", "fullname": "rpms/tiny"},
    "branch": "f41",
    "end_commit": "ab" * 20,
    "agent": "jane",
}


class Refusing(BaseHTTPRequestHandler):
    """Answers 401 to everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_push_that_prefect_refuses_is_accepted_and_stays_to_be_offered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        api = PrefectApi(f"http://127.0.0.1:{server.server_address[1]}/api", patience=0.5)
        Intake(ledger, api, Settings()).handle(Message(topic="org.fedoraproject.prod.pagure.git.receive", body=PUSH))
        server.shutdown()
    assert [change.repo for change in ledger.unclaimed(-1)] == ["tiny"]
    assert ledger.counts()["queued"] == 1
    assert "Prefect refuses its event" in caplog.text
