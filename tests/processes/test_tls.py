"""TLS with a certificate authority of one's own: who is believed, and what happens to spans otherwise."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

import fallom
from fallom import trace
from tests.support.flushers import wait_for

SPANS = 5


class Sink(ThreadingHTTPServer):
    """Takes whatever is posted, by TLS, and notes the paths and keys."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.posted: list[str] = []
        self.keys: list[str] = []
        super().__init__(("127.0.0.1", 0), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: handshakes that the client ends are what these tests are about."""


class Answer(BaseHTTPRequestHandler):
    server: Sink

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append(self.path)
        self._answer()

    def _answer(self) -> None:
        self.server.keys.append(self.headers.get("Authorization", ""))
        body = json.dumps({"configs": [], "prompts": [], "prompt_ab_tests": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if self.command == "GET" else 0))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[trustme.LeafCert], Sink]]:
    """Serve with a certificate; this process and its flusher are pointed there."""
    sinks = []

    def start(certificate: trustme.LeafCert) -> Sink:
        sink = Sink(certificate)
        sinks.append(sink)
        threading.Thread(target=sink.serve_forever, kwargs={"poll_interval": 0.02}).start()
        for name in ("CONFIGS", "PROMPTS", "TRACES"):
            monkeypatch.setenv(f"FALLOM_{name}_URL", f"https://127.0.0.1:{sink.server_port}")
        monkeypatch.setenv("FALLOM_API_KEY", "a-key-of-this-test")
        monkeypatch.setenv("FALLOM_LINGER", "1")
        return sink

    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    yield start
    for sink in sinks:
        sink.shutdown()
        sink.server_close()


def record() -> None:
    for number in range(SPANS):
        trace.span({"n": number}, config_key="app", session_id=f"s{number}")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_an_authority_that_the_environment_names_is_believed(
    serve: Callable[[trustme.LeafCert], Sink],
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
    sink = serve(authority.issue_cert("127.0.0.1"))
    fallom.init()
    record()
    assert fallom.flush(30) == 0
    assert "/v1/traces" in sink.posted
    assert set(sink.keys) == {"Bearer a-key-of-this-test"}


def expired(authority: trustme.CA) -> trustme.LeafCert:
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    return authority.issue_cert("127.0.0.1", not_after=yesterday)


DISTRUSTED = {
    "an authority that nobody named": lambda _: trustme.CA().issue_cert("127.0.0.1"),
    "another host's certificate": lambda ca: ca.issue_cert("elsewhere.example"),
    "an expired certificate": expired,
}


@pytest.mark.parametrize("what", DISTRUSTED)
def test_a_server_that_is_not_believed_gets_nothing_and_no_span_is_lost(
    serve: Callable[[trustme.LeafCert], Sink],
    authority: trustme.CA,
    tmp_path: Path,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    sink = serve(DISTRUSTED[what](authority))
    fallom.init()
    record()
    said = wait_for(lambda: _said_of_traces(state_dir), 60, what="the reason in the log")
    assert "certificate verify failed" in said
    assert "REQUESTS_CA_BUNDLE" in said
    wait_for(lambda: "certificate verify" in fallom.status()["last_error"], what="it in the status")
    assert fallom.flush(0) == SPANS
    wait_for(lambda: "something has to be mended" in _logged(caplog), what="the application's log")
    assert fallom.status()["dropped"] == {}
    assert (sink.posted, sink.keys) == ([], [])


def test_an_authority_s_file_that_is_not_there_is_said_and_no_span_is_lost(
    serve: Callable[[trustme.LeafCert], Sink],
    authority: trustme.CA,
    tmp_path: Path,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "not-there.pem"))
    sink = serve(authority.issue_cert("127.0.0.1"))
    fallom.init()
    record()
    said = wait_for(lambda: _said_of_traces(state_dir), 60, what="the reason in the log")
    assert "not-there.pem" in said
    assert "REQUESTS_CA_BUNDLE" in said
    assert fallom.flush(0) == SPANS
    assert sink.posted == []


def _logged(caplog: pytest.LogCaptureFixture) -> str:
    """Give what this process logged, after it had a cause to look."""
    fallom.wait_until_ready(0)
    return caplog.text


def _said_of_traces(state_dir: Path) -> str:
    """Give what the flusher logged of the lane of spans; the status shows what was said last by any."""
    for log in state_dir.glob("v1/*/flusher.log"):
        for line in log.read_text().splitlines():
            if "traces:" in line or "metrics:" in line:
                return line
    return ""
