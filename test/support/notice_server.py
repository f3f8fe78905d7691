"""A server that takes notices, or does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DEADLINE_S = 60.0


class NoticeServer(ThreadingHTTPServer):
    """Does with each request what the script says next, and keeps what it has taken."""

    def __init__(self) -> None:
        self.script: list[int | str] = []
        self.asked: list[dict[str, str]] = []
        self.taken: list[Any] = []
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that give up are what is tested."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: NoticeServer

    def do_POST(self) -> None:
        """Take a notice, or do what else the script says."""
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        server.asked.append(dict(self.headers))
        what = server.script.pop(0) if server.script else 200
        if what == "drop":
            self.close_connection = True
            return
        if what == "delay":
            server.ended.wait(DEADLINE_S)
            return
        assert isinstance(what, int)
        if what == 200:
            server.taken.append(content)
        self.send_response(what)
        if what == 302:
            self.send_header("Location", f"http://127.0.0.1:{server.server_port}/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        """Note that a redirect was followed."""
        self.server.asked.append({"Idempotency-Key": "redirected"})

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def notice_server() -> Iterator[NoticeServer]:
    """Run a server for the time of the block."""
    server = NoticeServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


def url_of(server: NoticeServer, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.server_port}/robots?a=1"
