"""A Koji hub stand-in: the calls that the koji client makes for a scratch build, over koji's own XML-RPC.

/kojihub                                        XML-RPC
/kojifiles/work/tasks/<id%10000>/<id>/<file>    task output, as below a real hub's topurl
/kojifiles/packages/<name>/<version>/<release>/ what was built for good
/lab/fault/<kind>/<count>                       the next <count> calls fail: offline, error, traceback, drop;
                                                the next <count> uploads do: cut, corrupt
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import threading
from collections.abc import Collection
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import koji

from lab.distribution.rpm_repository import ensure_repository
from lab.koji.build_root import BuildRoots
from lab.koji.builds import Builds
from lab.koji.calls import HUB_VERSION, Hub
from lab.koji.package_builder import PackageBuilder
from lab.koji.rpc import answer, respond
from lab.koji.tasks import TaskStore
from lab.servers.static_files import FileHandler

_REQUEST_LIMIT = 16 << 20
CALL_FAULTS = ("offline", "error", "traceback", "drop")
UPLOAD_FAULTS = ("cut", "corrupt")


class HubServer(ThreadingHTTPServer):
    """The HTTP side; a context manager that listens on loopback while entered. Port 0 picks a free one."""

    daemon_threads = True

    def __init__(self, hub: Hub, builds: Builds, files: Path, port: int = 0) -> None:
        self.hub = hub
        self.builds = builds
        self.files = files.resolve()
        self.faults: dict[str, int] = {}
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """The address without a path; the hub is at ``/kojihub``, its files are at ``/kojifiles``."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take_fault(self, kinds: Collection[str] = CALL_FAULTS) -> str:
        """The fault of these kinds that the current request has to show, or nothing."""
        for kind, count in self.faults.items():
            if count > 0 and kind in kinds:
                self.faults[kind] = count - 1
                return kind
        return ""

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, name="koji-hub", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self.builds.close()


class _Handler(FileHandler):
    server: HubServer
    server_version = "koji-hub"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/health":
            self.send_body(HTTPStatus.OK, "text/plain; charset=utf-8", b"ok\n")
        elif path.startswith(("/kojifiles/work/", "/kojifiles/packages/")):
            self.send_path(self.server.files, path.removeprefix("/kojifiles/"))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        length = int(self.headers.get("Content-Length") or 0)
        if length > _REQUEST_LIMIT:
            return self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if path == "/kojihub" and self.headers.get("Content-Type") == "application/octet-stream":
            return self._upload(length)
        body = self.rfile.read(length)
        if path in ("/kojihub", "/kojihub/ssllogin"):
            self._call(body)
        elif ordered := re.match(r"^/lab/fault/([a-z]+)/(\d+)$", path):
            self.server.faults[ordered[1]] = int(ordered[2])
            self.send_body(HTTPStatus.OK, "text/plain; charset=utf-8", b"ok\n")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _call(self, body: bytes) -> None:
        kind = self.server.take_fault()
        if kind == "drop":
            self.close_connection = True
        elif kind == "error":
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
        else:
            response = answer(self.server.hub.calls(), body, self._before(kind), extended=kind == "traceback")
            self.send_body(HTTPStatus.OK, "text/xml", response)

    def _upload(self, length: int) -> None:
        kind = self.server.take_fault(UPLOAD_FAULTS)
        if kind == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        chunk = self.rfile.read(length)
        if kind == "corrupt":
            chunk = bytes([chunk[0] ^ 1]) + chunk[1:]
        query = parse_qs(urlsplit(self.path).query)

        def work() -> object:
            self._before("")("rawUpload")
            return self.server.hub.upload(query, chunk)

        self.send_body(HTTPStatus.OK, "text/xml", respond(work))

    def _before(self, kind: str) -> Any:
        query = parse_qs(urlsplit(self.path).query)
        session_id = self.headers.get("Koji-Session-Id") or query.get("session-id", [""])[0]
        key = self.headers.get("Koji-Session-Key") or query.get("session-key", [""])[0]

        def look(method: str) -> None:
            if kind == "offline":
                raise koji.ServerOffline("database outage: the hub is offline")
            # A client that logs in again still sends the session that has expired.
            fresh = method in ("login", "sslLogin")
            self.server.hub.identify("" if fresh else session_id, "" if fresh else key)

        return look

    def end_headers(self) -> None:
        self.send_header("Koji-Version", HUB_VERSION)
        super().end_headers()


def make_server(state: Path, builder: PackageBuilder, *, port: int = 0, user: str = "koji") -> HubServer:
    """A hub whose tasks live in ``state`` and are built by ``builder``, for this machine's architecture.

    ``user`` may log in with the name as password: the hub listens on loopback only, and guards nothing.
    """
    store = TaskStore(state)
    builds = Builds(store, builder, arch=os.uname().machine)
    return HubServer(Hub(store, builds, user), builds, store.files, port)


def main() -> None:
    """Serve until SIGTERM; the first line on standard output is the address."""
    parser = argparse.ArgumentParser(prog="lab.koji.hub", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="tasks and their output")
    parser.add_argument("--cache", type=Path, required=True, help="the RPM repository and the build roots")
    parser.add_argument("--dist-git", required=True, metavar="URL", help="the one dist-git that may be built from")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 picks a free one")
    parser.add_argument("--user", default="koji", help="the account that may log in, also its password")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    roots = BuildRoots(ensure_repository(options.cache, logging.info), options.cache)
    builder = PackageBuilder(roots, options.dist_git.rstrip("/"))
    with make_server(options.state, builder, port=options.port, user=options.user) as server:
        print(server.url, flush=True)
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()


if __name__ == "__main__":
    main()
