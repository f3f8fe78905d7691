"""Delivers notices: to an HTTP server or to a command, again and again until they are taken."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.notify.queue import DiskQueue

URL_VARIABLE = "ANOMALY_DETECTOR_NOTIFY_URL"
AUTHORIZATION_VARIABLE = "ANOMALY_DETECTOR_NOTIFY_AUTHORIZATION"
"""Of the environment, since a command line is seen by everybody on the machine."""

_NEVER = (400, 413, 415, 422)
"""HTTP status codes that say that this notice will never be taken."""

_TAKEN = (409,)
"""And that it has been: the answer to an earlier try was lost."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class NotDelivered(Exception):
    """The notice has not been taken; ``is_final`` when it never will be."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class HttpTarget:
    """Posts JSON. Certificates are checked, redirects are not followed.

    Args:
        url: http or https.
        authorization: value of the header of that name; empty for none.
        timeout_s: for each step of the connection.

    Raises:
        AnomalyDetectorError: a URL that cannot be used, or that has a secret in it, or would carry
            one in the clear.
    """

    def __init__(self, url: str, authorization: str, timeout_s: float) -> None:
        host = ""
        with suppress(ValueError):  # brackets that do not match; a port that is none
            parts = urllib.parse.urlsplit(url)
            host = (parts.port != 0 and parts.hostname) or ""
        if not host or parts.scheme not in ("http", "https"):
            raise AnomalyDetectorError("the URL to post to is none: give https://HOST/PATH")
        # Of these urllib raises a ValueError, and not before a notice is sent.
        if not re.fullmatch("[!-~]+", url):
            raise AnomalyDetectorError(
                "the URL to post to has a space or a letter that no URL has: write it as %20"
            )
        if not re.fullmatch("[ -~]*", authorization):
            raise AnomalyDetectorError(
                f"{AUTHORIZATION_VARIABLE} has a line break or a letter that no header has: "
                "set it anew"
            )
        if parts.username or parts.password:
            raise AnomalyDetectorError(
                f"the URL to post to has a password in it: set {AUTHORIZATION_VARIABLE} in the "
                "environment, such as 'Bearer ...' or 'Basic ...'"
            )
        if authorization and parts.scheme == "http" and not _is_loopback(host):
            raise AnomalyDetectorError(
                f"{AUTHORIZATION_VARIABLE} would go to {host} in the clear: use https"
            )
        self.name = f"{parts.scheme}://{parts.netloc}"
        self._url = url
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json", "User-Agent": "anomaly_detector"}
        if authorization:
            self._headers["Authorization"] = authorization
        self._opener = urllib.request.build_opener(
            _NoRedirect(), urllib.request.HTTPSHandler(context=ssl.create_default_context())
        )

    def deliver(self, data: bytes, key: str) -> None:
        """Post a notice; a server may know by the key that it has it already.

        Raises:
            NotDelivered: with the reason.
        """
        headers = {**self._headers, "Idempotency-Key": key}
        request = urllib.request.Request(self._url, data, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s):
                return
        except urllib.error.HTTPError as error:
            with error:
                code = error.code
            if code in _TAKEN:
                return
            hint = ": give the URL that it redirects to" if 300 <= code < 400 else ""
            raise NotDelivered(f"status {code}{hint}", is_final=code in _NEVER) from error
        # OSError (and so URLError): no network, no server, a bad certificate, no time.
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise NotDelivered(as_one_line(reason) or type(reason).__name__) from error


class CommandTarget:
    """Runs a command with the JSON on its standard input; exit code 0 means that it was taken.

    Args:
        command: a line as in a shell, run without one.
        timeout_s: after which it is killed with all that it has started.

    Raises:
        AnomalyDetectorError: there is no such program.
    """

    def __init__(self, command: str, timeout_s: float) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise AnomalyDetectorError(f"--command is {command!r}: {error}") from error
        if not self._command or shutil.which(self._command[0]) is None:
            raise AnomalyDetectorError(
                f"--command is {command!r}: there is no such program, give its path"
            )
        self.name = self._command[0]
        self._timeout_s = timeout_s

    def deliver(self, data: bytes, key: str) -> None:
        """Run the command for a notice, with its key in the environment.

        Raises:
            NotDelivered: with the exit code and the last line of what it printed.
        """
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ANOMALY_DETECTOR_NOTICE": key},
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(data, self._timeout_s)
        except subprocess.TimeoutExpired:
            raise NotDelivered(f"no end in {self._timeout_s:g} s") from None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if process.returncode:
            lines = output.decode(errors="replace").split("\n")
            said = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
            raise NotDelivered(f"exit code {process.returncode}: {as_one_line(said)}")


class Courier:
    """Delivers what waits in a queue, in its own thread, the oldest first.

    Args:
        queue: of the notices.
        target: where they go.
        log: called with one line when something goes wrong, and when it goes right again.
    """

    def __init__(
        self, queue: DiskQueue, target: HttpTarget | CommandTarget, log: Callable[[str], None]
    ) -> None:
        self._queue, self._target, self._log = queue, target, log
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look at the queue now."""
        self._changed.set()

    def close(self, timeout_s: float) -> None:
        """End, and wait some seconds for what is under way; it stays in the queue otherwise."""
        self._ended.set()
        self._changed.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while True:
            self._changed.clear()
            if self._ended.is_set():
                return
            try:
                for path in self._queue.waiting():
                    if self._ended.is_set():
                        return
                    self._deliver(path)
                    if failures:
                        self._log(f"{self._target.name} takes notices again")
                    failures = 0
            except (NotDelivered, OSError) as error:  # OSError: of the queue's folder
                if not failures:
                    self._log(f"{self._target.name} takes no notices, trying again: {error}")
                # A new notice is no reason to ask sooner.
                self._ended.wait(min(_FIRST_PAUSE_S * 2.0 ** min(failures, 9), _LONGEST_PAUSE_S))
                failures += 1
            else:
                self._changed.wait()

    def _deliver(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            key = str(json.loads(data)["id"])
        except FileNotFoundError:
            return  # removed to make room
        except (OSError, ValueError, KeyError, TypeError):
            self._log(f"{path} is no notice: set aside as {self._queue.set_aside(path).name}")
            return
        try:
            self._target.deliver(data, key)
        except NotDelivered as error:
            if not error.is_final:
                raise
            aside = self._queue.set_aside(path)
            self._log(f"{self._target.name} refuses a notice for good, {error}: see {aside}")
            return
        self._queue.done(path)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the header with the secret to another server."""

    def redirect_request(self, *_: Any) -> None:
        """Return nothing: the status is the answer."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
