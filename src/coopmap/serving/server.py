"""The server: files and listings of one folder, on the loopback interface."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from coopmap.config import ConfigError
from coopmap.report.pages import render
from coopmap.serving.paths import entries, find_inside, pages

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Hosts that a request may name; any other is a page of the web that leads a browser here."""
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
"""Reports hold their own scripts, and nothing from elsewhere."""
CHUNK = 1 << 20
"""Bytes of a file that are sent at a time."""
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".glb": "model/gltf-binary",
    **dict.fromkeys((".txt", ".csv", ".md", ".log", ".yaml"), "text/plain; charset=utf-8"),
}
"""Media types; anything else is a download."""


def build_server(folder: Path | str, port: int = 0) -> ThreadingHTTPServer:
    """A server that is not yet running; its ``server_port`` says where it will be.

    Raises:
        ConfigError: the port is taken.
    """
    root = Path(folder).expanduser().resolve()
    try:
        server = ThreadingHTTPServer((ADDRESS, port), partial(ReportHandler, root=root))
    except OSError as error:
        raise ConfigError(f"port={port}: {error.strerror}; take another, or port=0 for any that is free") from None
    server.daemon_threads = True
    return server


class ReportHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; everything else is refused.

    Args:
        request: see :class:`http.server.BaseHTTPRequestHandler`.
        root: the served folder, resolved.
    """

    server_version, sys_version = "coopmap", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, *request: Any, root: Path) -> None:
        self.root = root
        super().__init__(*request)

    def handle(self) -> None:
        """All requests of a connection, until the reader goes away."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """A file, or the listing of a folder."""
        if not self._is_for_us():
            self.send_error(HTTPStatus.FORBIDDEN, "This server answers on localhost only")
            return
        found = find_inside(self.root, self.path)
        if found is None and self.path == "/favicon.ico":  # browsers ask; a 404 would be a complaint in every console
            self._send_head(HTTPStatus.NO_CONTENT, {}, 0)
            return
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND, "No such report")
            return
        place, parts = found
        if place.is_file():
            self._send_file(place)
        elif not self.path.partition("?")[0].endswith("/"):
            shown = "/".join(quote(os.fsencode(part)) for part in parts)
            self._send_head(HTTPStatus.MOVED_PERMANENTLY, {"Location": f"/{shown}/"}, 0)
        else:
            self._send_listing(place, parts)

    do_HEAD = do_GET

    def _is_for_us(self) -> bool:
        host = self.headers.get("Host", "")
        name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
        return name.lower() in OWN_NAMES

    def _send_listing(self, folder: Path, parts: tuple[str, ...]) -> None:
        name = "/".join((self.root.name, *parts))
        try:
            found, (reports, left_out) = entries(self.root, folder), pages(folder)
        except PermissionError:
            self.send_error(HTTPStatus.FORBIDDEN, "This folder may not be read")
            return
        text = render(
            "listing.html",
            title=f"Reports in {name}",
            name=name,
            has_figures=False,
            is_root=not parts,
            reports=reports,
            left_out=left_out,
            entries=found,
        ).encode("utf-8", "replace")
        self._send_head(HTTPStatus.OK, {"Content-Type": KINDS[".html"]}, len(text))
        if self.command == "GET":
            self.wfile.write(text)

    def _send_file(self, file: Path) -> None:
        try:  # the path was resolved: what is a link now was put there since
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND, "No such report")
            return
        with os.fdopen(descriptor, "rb") as stream:
            kind = KINDS.get(file.suffix.lower(), "application/octet-stream")
            size = os.fstat(stream.fileno()).st_size
            self._send_head(HTTPStatus.OK, {"Content-Type": kind}, size)
            if self.command == "GET":
                self._copy(stream, size)

    def _copy(self, stream: BinaryIO, size: int) -> None:
        """As many bytes as were announced, of a file that may grow or shrink."""
        while size and (part := stream.read(min(size, CHUNK))):
            self.wfile.write(part)
            size -= len(part)
        if size:
            self.close_connection = True  # tells the reader that the rest will not come

    def _send_head(self, status: HTTPStatus, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        safety = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
        for name, value in {**headers, **safety, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests go to the log, below what is shown."""
        log.debug(format, *args)
