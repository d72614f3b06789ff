"""ResultsDB, a dist-git forge, a Matrix homeserver and a mail server: real servers that check as the real ones do.

Their rules follow the sources of ResultsDB (API v2.0) and pagure (commit flags) and Matrix's client-server API 1.x.
"""

from __future__ import annotations

import base64
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "a-very-secret-word"
USER = "distgate"
ROOM = "!room:example.org"
OUTCOMES = ("PASSED", "INFO", "FAILED", "NEEDS_INSPECTION")
FLAG_STATUSES = ("success", "failure", "error", "canceled", "pending")


class StandIn(ThreadingHTTPServer):
    """All three services on one port. ``faults`` are answered first, one per request: a status, or None for a hang-up
    after the work is done."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.results: list[dict[str, Any]] = []
        self.flags: dict[tuple[str, str], dict[str, str]] = {}
        self.flagged: list[dict[str, str]] = []
        self.said: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.faults: list[int | None] = []
        self.down = False
        self.commits: set[str] | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(Exception):
    """Ends a request."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status, self.body = status, body


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = self.server
        with server.lock:
            fault = server.faults.pop(0) if server.faults else 0
            status, body = (503, {"message": "away"}) if server.down else (fault, {"message": "a fault of the test"})
            if not status:
                status, body = self._answered(raw)
            server.requests.append((self.command, self.path, status))
        if fault is None:
            self.close_connection = True  # it was done, and nobody will know
            return
        said = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = handle_any

    def _answered(self, raw: bytes) -> tuple[int, Any]:
        path = urlsplit(self.path).path
        try:
            if path == "/api/v2.0/results":
                return self._post_result(raw) if self.command == "POST" else self._get_results()
            if found := re.fullmatch(r"/api/0/([^/]+)/([^/]+)/c/([0-9a-f]+)/flag", path):
                return self._flag(found, raw)
            if path.startswith("/_matrix/client/v3/rooms/"):
                return self._say(path, raw)
        except Answer as early:
            return early.status, early.body
        return 404, {"message": "no such page"}

    def _allow(self, *allowed: str) -> None:
        if self.headers.get("Authorization") not in allowed:
            raise Answer(401, {"message": "who are you?", "errcode": "M_UNKNOWN_TOKEN", "error_code": "EINVALIDTOK"})

    # -- ResultsDB -------------------------------------------------------------------------------------------------

    def _post_result(self, raw: bytes) -> tuple[int, Any]:
        basic = base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()
        self._allow(f"Bearer {TOKEN}", f"Basic {basic}")
        if self.headers.get("Content-Type") != "application/json":
            return 415, {"message": "Unsupported Media Type"}
        given = json.loads(raw)
        testcase = given.get("testcase")
        name = testcase.get("name") if isinstance(testcase, dict) else testcase
        if not name:
            return 400, {"validation_error": "testcase name must be non-empty"}
        if str(given.get("outcome", "")).strip().upper() not in OUTCOMES:
            return 400, {"validation_error": f"must be one of: {', '.join(OUTCOMES)}"}
        if any(":" in key for key in given.get("data") or {}):
            return 400, {"message": "Colon not allowed in key name"}
        if any(len(group) > 36 for group in given.get("groups") or () if isinstance(group, str)):
            return 500, {"message": "value too long for type character varying(36)"}
        result = {**given, "id": len(self.server.results) + 1, "testcase": {"name": name}}
        self.server.results.append(result)
        return 201, result

    def _get_results(self) -> tuple[int, Any]:
        wanted = parse_qs(urlsplit(self.path).query)
        limit = int(wanted.pop("limit", ["20"])[0])
        found = [
            one
            for one in self.server.results
            if all((one.get("data") or {}).get(key) in values for key, values in wanted.items())
        ]
        return 200, {"data": found[:limit], "next": None, "prev": None}

    # -- pagure ----------------------------------------------------------------------------------------------------

    def _flag(self, found: re.Match[str], raw: bytes) -> tuple[int, Any]:
        self._allow(f"token {TOKEN}")
        form = {name: values[0] for name, values in parse_qs(raw.decode()).items()}
        rev = found[3]
        if self.server.commits is not None and rev not in self.server.commits:
            return 404, {"error": "Commit not found in this repository", "error_code": "ENOCOMMIT"}
        if "percent" not in form:
            return 500, {"error": "'NoneType' object has no attribute 'strip'"}
        wrong = [name for name in ("username", "comment", "url", "status") if not form.get(name)]
        wrong += ["status"] if form.get("status") not in FLAG_STATUSES else []
        wrong += ["url"] if not re.match(r"(?i)(https?|ftp)://[^\s/]+", form.get("url", "")) else []
        if wrong or len(form.get("uid", "")) > 32:
            return 400, {
                "error": "Invalid or incomplete input submitted",
                "error_code": "EINVALIDREQ",
                "errors": wrong,
            }
        known = (rev, form["uid"]) in self.server.flags
        self.server.flags[rev, form["uid"]] = form
        self.server.flagged.append(form | {"rev": rev})
        return 200, {"message": f"Flag {'updated' if known else 'added'}", "uid": form["uid"], "flag": form}

    # -- Matrix ----------------------------------------------------------------------------------------------------

    def _say(self, path: str, raw: bytes) -> tuple[int, Any]:
        self._allow(f"Bearer {TOKEN}")
        words = [unquote(word) for word in path.split("/")]
        room, action, kind, transaction = words[5:9]
        if (self.command, action, kind) != ("PUT", "send", "m.room.message"):
            return 404, {"errcode": "M_UNRECOGNIZED"}
        if room != ROOM:
            return 403, {"errcode": "M_FORBIDDEN", "error": "User not in room"}
        body = json.loads(raw)
        if not body.get("msgtype") or not isinstance(body.get("body"), str):
            return 400, {"errcode": "M_BAD_JSON"}
        self.server.said.setdefault(transaction, body)
        return 200, {"event_id": f"${transaction}"}


@contextmanager
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


class MailHandler(socketserver.StreamRequestHandler):
    server: MailStandIn

    def handle(self) -> None:
        self._say("220 mail.example.org ESMTP")
        recipients: list[str] = []
        while line := self.rfile.readline().decode().strip():
            verb = line.upper()
            if verb.startswith("EHLO"):
                self._say("250 mail.example.org")
            elif verb.startswith("RCPT TO:"):
                address = line[8:].strip().strip("<>")
                answer = self.server.answers.get(address, "250 fine")
                if answer.startswith("250"):
                    recipients.append(address)
                self._say(answer)
            elif verb == "DATA":
                self._say("354 go on")
                self.server.keep(self._data(), recipients)
                self._say("250 taken")
            elif verb == "QUIT":
                return self._say("221 bye")
            else:
                self._say("250 fine")
        return None

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _data(self) -> str:
        lines = []
        while (line := self.rfile.readline().decode()) != ".\r\n":
            lines.append(line.removeprefix(".") if line.startswith("..") else line)
        return "".join(lines)


class MailStandIn(socketserver.ThreadingTCPServer):
    """``answers`` are what it says to a recipient; ``mails`` what it took, with the envelope's recipients."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MailHandler)
        self.answers: dict[str, str] = {}
        self.mails: list[tuple[EmailMessage, list[str]]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def keep(self, text: str, recipients: list[str]) -> None:
        self.mails.append((message_from_string(text, policy=policy.default), list(recipients)))  # type: ignore[arg-type]


@contextmanager
def mail_stand_in() -> Iterator[MailStandIn]:
    with MailStandIn() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
