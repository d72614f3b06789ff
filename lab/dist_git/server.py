"""dist-git's web side on one loopback port: git over HTTP, the lookaside cache, and what the runs leave.

/rpms/<name>.git                                                   read access by git (smart protocol)
/repo/pkgs/<ns>/<name>/<file>/<hashtype>/<hash>/<file>             source files
/artifacts/...                                                     logs, results and images of the runs
/trees/<branch>/ostree, /trees/<branch>/images                     what Atomic Host's runs publish
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
import tempfile
import threading
from email.message import Message
from email.parser import Parser
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from distgate.errors import InfrastructureError
from distgate.process import run
from lab.dist_git.repository import PLAIN_GIT
from lab.servers.static_files import FileHandler

_GIT = re.compile(r"^(?P<repo>/[a-z]+/[A-Za-z0-9][\w.+-]*?)(\.git)?(?P<service>/info/refs|/git-upload-pack)$")
#: Of a branch's directory, what clients may see.
_PUBLISHED = re.compile(r"^/trees/[\w.-]+/(ostree|images)(/|$)")
_REQUEST_LIMIT = 1 << 20
_CLONE_SECONDS = 300.0


class DistGitServer(ThreadingHTTPServer):
    """The server; a context manager that listens on loopback as long as it is entered. Port 0 picks a free one."""

    daemon_threads = True

    def __init__(self, root: Path, artifacts: Path, port: int = 0, trees: Path | None = None) -> None:
        self.root = root.resolve()
        self.artifacts = artifacts.resolve()
        self.trees = trees.resolve() if trees else None
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """The address that clients use, without a slash at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> DistGitServer:
        threading.Thread(target=self.serve_forever, name="dist-git", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(FileHandler):
    server: DistGitServer
    server_version = "dist-git"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/health":
            self.send_body(HTTPStatus.OK, "text/plain; charset=utf-8", b"ok\n")
        elif _GIT.match(path):
            self._git(path)
        elif path.startswith("/repo/pkgs/"):
            self.send_path(self.server.root / "lookaside", path.removeprefix("/repo/pkgs/"))
        elif path.startswith("/artifacts/"):
            self.send_path(self.server.artifacts, path.removeprefix("/artifacts/"))
        elif self.server.trees and _PUBLISHED.match(path):
            self.send_path(self.server.trees, path.removeprefix("/trees/"))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if _GIT.match(path):
            self._git(path)
        else:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    def _git(self, path: str) -> None:
        body = self._request_body()
        if body is None:
            return
        parts = _GIT.match(path)
        assert parts  # noqa: S101 - the callers looked
        with tempfile.NamedTemporaryFile(prefix="distgate-git-") as answer:
            try:
                run(
                    ["git", "http-backend"],
                    env=self._cgi(f"{parts['repo']}.git{parts['service']}", len(body)),
                    stdin=body,
                    log_to=Path(answer.name),
                    split_errors=True,
                    timeout=_CLONE_SECONDS,
                    allowed=range(256),  # also when it fails: its answer gives the client the reason
                )
            except InfrastructureError as error:
                self.log_error("git: %s", error)
                return self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            self._cgi_answer(Path(answer.name))

    def _request_body(self) -> str | None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _REQUEST_LIMIT:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        raw = self.rfile.read(length)
        if self.headers.get("Content-Encoding") == "gzip":
            raw = gzip.decompress(raw)
        try:
            return raw.decode("ascii")  # what a fetching git sends is pkt-lines of hashes and capabilities
        except UnicodeDecodeError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return None

    def _cgi(self, path: str, length: int) -> dict[str, str]:
        return {
            **PLAIN_GIT,
            "GIT_PROJECT_ROOT": str(self.server.root / "repositories"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "REQUEST_METHOD": self.command,
            "QUERY_STRING": urlsplit(self.path).query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(length),
            "REMOTE_ADDR": self.client_address[0],
        }

    def _cgi_answer(self, answer: Path) -> None:
        if not answer.stat().st_size:
            return self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
        with answer.open("rb") as stream:
            head = iter(stream.readline, b"\r\n")
            headers: Message = Parser().parsestr(b"".join(head).decode("latin-1"))
            status = int((headers.get("Status") or "200").split()[0])
            size = answer.stat().st_size - stream.tell()
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() != "status":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command != "HEAD":
                shutil.copyfileobj(stream, self.wfile)


def main() -> None:
    """Serve until killed; the first line on standard output is the address."""
    parser = argparse.ArgumentParser(prog="lab.dist_git.server", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="repositories/ and lookaside/ lie below it")
    parser.add_argument("--artifacts", type=Path, required=True, help="directory shown at /artifacts/")
    parser.add_argument("--trees", type=Path, help="directory whose published parts are shown at /trees/")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 picks a free one")
    options = parser.parse_args()
    server = DistGitServer(options.root, options.artifacts, options.port, options.trees)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
