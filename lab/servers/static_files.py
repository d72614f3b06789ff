"""Files over HTTP, as the lab's servers hand them out: text as text, nothing outside of a directory, nothing run."""

from __future__ import annotations

import html
import mimetypes
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

#: Shown in the browser as they are. Markup too: a package's own tests may have written it.
_TEXT = {".log", ".txt", ".yml", ".yaml", ".json", ".md", ".ks", ".spec", ".html", ".svg", ".xml", ""}


class FileHandler(BaseHTTPRequestHandler):
    """A request handler that knows how to answer with a file or a directory."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def send_path(self, base: Path, relative: str) -> None:
        """Answer with the file or the listing at ``relative`` below ``base``; 404 for everything outside of it."""
        path = (base / relative.replace("\0", "")).resolve()
        if not path.is_relative_to(base) or not path.exists():
            return self.send_error(HTTPStatus.NOT_FOUND)
        if path.is_dir():
            return self._directory(path)
        with path.open("rb") as stream:
            size = path.stat().st_size
            self._head(HTTPStatus.OK, _content_type(path), size)
            if self.command != "HEAD":
                self._copy(stream, size)

    def _copy(self, stream: IO[bytes], size: int) -> None:
        # Exactly what the header promised: a log may grow while it is read.
        while size and (chunk := stream.read(min(size, 1 << 16))):
            self.wfile.write(chunk)
            size -= len(chunk)

    def _directory(self, path: Path) -> None:
        if not urlsplit(self.path).path.endswith("/"):
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)
            self.send_header("Location", f"{urlsplit(self.path).path}/")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        names = [entry.name + "/" * entry.is_dir() for entry in sorted(path.iterdir())]
        rows = "".join(f'<li><a href="{quote(name)}">{html.escape(name)}</a></li>\n' for name in names)
        page = f"<!doctype html><meta charset=utf-8><title>{html.escape(path.name)}</title><ul>\n{rows}</ul>\n"
        self.send_body(HTTPStatus.OK, "text/html; charset=utf-8", page.encode())

    def send_body(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        """Answer with ``body``."""
        self._head(status, content_type, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, content_type: str, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(size))
        # A package's own tests write these files: a browser must never run what they hold.
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "sandbox")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        print(f"{self.log_date_time_string()} {self.command or '-'} {format % args}", flush=True)


def _content_type(path: Path) -> str:
    if path.suffix in _TEXT:
        return "text/plain; charset=utf-8"
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
