"""Notices reach a server that drops, delays and refuses, and a command that fails; and wait."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from notice_server import NoticeServer, notice_server, url_of

from anomaly_detector.errors import AnomalyDetectorError, OutputError
from anomaly_detector.notify import delivery
from anomaly_detector.notify.delivery import CommandTarget, Courier, HttpTarget, NotDelivered
from anomaly_detector.notify.queue import DiskQueue

DEADLINE_S = 60.0


@pytest.fixture
def server() -> Iterator[NoticeServer]:
    with notice_server() as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(delivery, "_LONGEST_PAUSE_S", 0.02)


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def test_server_that_does_not_answer_is_left(server: NoticeServer) -> None:
    server.script = ["delay"]
    with pytest.raises(NotDelivered, match="timed out"):
        HttpTarget(url_of(server), "", 0.1).deliver(b"{}", "k")
    assert server.taken == []


def test_server_that_drops_and_refuses_gets_all_in_order(
    server: NoticeServer, tmp_path: Path
) -> None:
    server.script = ["drop", 503, 302, 401, 200, 429, 409, 422, 200]
    queue = DiskQueue(tmp_path / "queue", 1e6)
    lines: list[str] = []
    for number in range(5):
        queue.put({"id": f"n{number}", "number": number})
    courier = Courier(queue, HttpTarget(url_of(server), "Bearer secret", DEADLINE_S), lines.append)
    wait_until(lambda: not queue.waiting(), f"an empty queue, there is {lines}")
    courier.close(DEADLINE_S)
    # Four tries in vain until the first was taken; the second was answered with 409: it had been
    # taken; the third is set aside.
    assert [content["number"] for content in server.taken] == [0, 3, 4]
    keys = [headers["Idempotency-Key"] for headers in server.asked]
    assert keys == ["n0"] * 5 + ["n1"] * 2 + ["n2", "n3", "n4"]
    assert {headers["Authorization"] for headers in server.asked} == {"Bearer secret"}
    (aside,) = (tmp_path / "queue").iterdir()
    assert json.loads(aside.read_text())["number"] == 2
    assert "takes no notices, trying again" in lines[0]
    assert lines[1].endswith("takes notices again")
    assert any(f"for good, status 422: see {aside}" in line for line in lines)
    assert "secret" not in "".join(lines)


def test_queue_is_delivered_after_a_restart(server: NoticeServer, tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path, 1e6)
    queue.put({"id": "kept"})
    server.script = [503] * 10_000
    courier = Courier(queue, HttpTarget(url_of(server), "", DEADLINE_S), lambda _: None)
    wait_until(lambda: len(server.asked) > 3, "some tries")
    courier.close(DEADLINE_S)
    server.script.clear()
    (tmp_path / "0.json").write_text("{half")
    again = DiskQueue(tmp_path, 1e6)
    courier = Courier(again, HttpTarget(url_of(server), "", DEADLINE_S), lambda _: None)
    wait_until(lambda: not again.waiting(), "an empty queue")
    again.put({"id": "new"})
    courier.wake()
    wait_until(lambda: len(server.taken) == 2, "the new one")
    courier.close(DEADLINE_S)
    assert server.taken == [{"id": "kept"}, {"id": "new"}]
    assert [path.name for path in tmp_path.iterdir()] == ["0.refused"]


def test_full_queue_loses_its_oldest(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path, 100.0)
    for number in range(5):
        newest = queue.put({"id": number, "text": "x" * 20})
    assert [json.loads(path.read_text())["id"] for path in queue.waiting()] == [3, 4]
    assert queue.removed == 3
    large = queue.put({"id": "large", "text": "x" * 500})
    assert queue.waiting() == [large] != [newest]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        DiskQueue(tmp_path / "file" / "queue", 1e6)


def test_certificate_is_checked(
    server: NoticeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no program openssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = url_of(server, "https")
    with pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
        HttpTarget(url, "Bearer secret", 5.0).deliver(b"{}", "k")
    assert server.asked == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    HttpTarget(url, "Bearer secret", 5.0).deliver(b"{}", "k")
    assert server.taken == [{}]


@pytest.mark.parametrize(
    ("url", "authorization", "message"),
    [
        ("", "", "the URL to post to is none: give https://HOST/PATH"),
        ("ftp://host/x", "", "the URL to post to is none"),
        ("http://[::1", "", "the URL to post to is none"),
        ("http://host:99999/x", "", "the URL to post to is none"),
        ("http://host/ü", "", "has a space or a letter that no URL has"),
        ("http://host/a b", "", "has a space or a letter that no URL has"),
        ("https://host/x", "Bearer secret\n", "has a line break or a letter that no header has"),
        ("https://host/x", "Bearer €", "has a line break or a letter that no header has"),
        ("https://me:secret@host/x", "", "has a password in it: set ANOMALY_DETECTOR_NOTIFY_AUTH"),
        ("http://host/x", "Bearer secret", "would go to host in the clear: use https"),
    ],
)
def test_url_that_is_none_or_shows_a_secret_is_refused(
    url: str, authorization: str, message: str
) -> None:
    with pytest.raises(AnomalyDetectorError) as caught:
        HttpTarget(url, authorization, 1.0)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def python(code: str, timeout_s: float = DEADLINE_S) -> CommandTarget:
    return CommandTarget(f"{sys.executable} -S -c '{code}'", timeout_s)


def test_command_gets_the_notice_and_its_exit_code_counts(tmp_path: Path) -> None:
    copy = f'import os, sys; open("{tmp_path}/" + os.environ["ANOMALY_DETECTOR_NOTICE"], "w")'
    python(f"{copy}.write(sys.stdin.read())").deliver(b'{"id": "k"}', "k")
    assert (tmp_path / "k").read_text() == '{"id": "k"}'
    with pytest.raises(NotDelivered, match=r"^exit code 3: no broker$"):
        python('print("no broker"); raise SystemExit(3)').deliver(b"{}", "k")
    with pytest.raises(NotDelivered, match=r"^no end in 0\.3 s$"):
        CommandTarget("sleep 1000", 0.3).deliver(b"{}", "k")
    with pytest.raises(AnomalyDetectorError, match="there is no such program, give its path"):
        CommandTarget("/no/such/program now", 1.0)
    with pytest.raises(AnomalyDetectorError, match="No closing quotation"):
        CommandTarget("'", 1.0)
