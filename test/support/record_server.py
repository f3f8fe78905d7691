"""A small Zenodo on 127.0.0.1 that misbehaves on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class RecordServer:
    """One record and how the server treats those who ask for it.

    Attributes:
        record_id: the only record there is.
        files: name to content.
        api_url: what to give as ``--api-url``.
        ranges: answer range requests; otherwise the whole file is sent.
        drop_after: for each of the next answers with file bytes, after how many of them the
            connection is closed.
        statuses: answers to the next requests of any kind, instead of what was asked for.
        corrupt: send other bytes than the checksum was made of.
        range_status: what to answer a range request instead of 206.
        shift: bytes by which an answer to a range request starts too early.
        requests: path and Range header of every request.
        entries: replaces the record's list of files.
        record_body: replaces the record as a whole.
    """

    record_id: int = 7074958
    files: dict[str, bytes] = field(default_factory=dict)
    api_url: str = ""
    ranges: bool = True
    drop_after: deque[int] = field(default_factory=deque)
    statuses: deque[int] = field(default_factory=deque)
    corrupt: bool = False
    range_status: int | None = None
    shift: int = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    entries: list[dict[str, Any]] | None = None
    record_body: bytes | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The record as the API gives it."""
        entries = [
            {
                "key": name,
                "size": len(data),
                "checksum": f"md5:{hashlib.md5(data, usedforsecurity=False).hexdigest()}",
                "links": {"self": f"{self.api_url}/records/{self.record_id}/files/{name}/content"},
            }
            for name, data in self.files.items()
        ]
        return {"id": self.record_id, "files": entries if self.entries is None else self.entries}

    def file_requests(self, name: str) -> list[str | None]:
        """Return the Range headers of the requests for a file, in order."""
        return [ranged for path, ranged in self.requests if f"/files/{name}/" in path]


class _Handler(BaseHTTPRequestHandler):
    timeout = 10
    protocol_version = "HTTP/1.1"
    behaviour: RecordServer

    def do_GET(self) -> None:
        server = self.behaviour
        ranged = self.headers.get("Range")
        server.requests.append((self.path, ranged))
        if server.statuses:
            self._answer(server.statuses.popleft(), b"no", {"Retry-After": "0"})
            return
        match = re.fullmatch(rf"/api/records/{server.record_id}(/files/(.+)/content)?", self.path)
        if match is None or (match[2] is not None and match[2] not in server.files):
            self._answer(404, b'{"status": 404}')
        elif match[2] is None:
            self._answer(200, server.record_body or json.dumps(server.record).encode())
        else:
            self._send_file(server.files[match[2]], ranged)

    def _send_file(self, data: bytes, ranged: str | None) -> None:
        server = self.behaviour
        size = len(data)
        if server.corrupt:
            data = bytes(byte ^ 255 for byte in data)
        start, status, headers = 0, 200, {}
        if ranged is not None and server.range_status is not None:
            self._answer(server.range_status, b"")
            return
        if ranged is not None and server.ranges:
            start = int(ranged.removeprefix("bytes=").removesuffix("-")) - server.shift
            status = 206
            headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        body = data[start:]
        cut = server.drop_after.popleft() if server.drop_after else len(body)
        self._answer(status, body, headers, cut)

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int = 1 << 60
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut < len(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def record_server(**settings: Any) -> Iterator[RecordServer]:
    """Serve a record while the block runs."""
    behaviour = RecordServer(**settings)
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    behaviour.api_url = f"http://127.0.0.1:{server.server_port}/api"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield behaviour
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
