"""TLS to a proxy, and within it TLS to the host: the deadline of an exchange holds there as well."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from fallom._flusher.http import Http, NetworkError, Request

SHORT_S = 0.5  # a deadline that is meant to pass
LONG_S = 30.0


class DrippingProxy:
    """Plays the host behind it as well, which answers byte after byte for as long as it is listened to."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}"
        self.asked = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=10)
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            accepted, _ = self._listening.accept()
            with self._context.wrap_socket(accepted, server_side=True) as outer:
                while b"\r\n\r\n" not in self.asked:
                    self.asked += outer.recv(4096)
                outer.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
                inner = self._context.wrap_bio(came, goes, server_side=True)
                while not self._is_shaken(inner):
                    outer.sendall(goes.read())
                    came.write(outer.recv(4096))
                inner.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                for _ in range(1000):
                    inner.write(b"x")
                    outer.sendall(goes.read())
                    if self._ended.wait(0.02):
                        return

    @staticmethod
    def _is_shaken(inner: ssl.SSLObject) -> bool:
        with contextlib.suppress(ssl.SSLWantReadError):
            inner.do_handshake()
            return True
        return False


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DrippingProxy]:
    authority = trustme.CA()
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    proxy = DrippingProxy(authority.issue_cert("127.0.0.1", "traces.test"))
    monkeypatch.setenv("https_proxy", proxy.url)
    yield proxy
    proxy.close()


def test_a_host_that_drips_behind_a_proxy_of_tls_is_given_up_at_the_deadline(
    proxy: DrippingProxy,
) -> None:
    started = time.monotonic()
    with pytest.raises(NetworkError) as caught:
        Http().send(Request("GET", "https://traces.test/v1/traces", deadline_s=SHORT_S))
    assert caught.value.kind == "timeout"
    assert time.monotonic() - started < LONG_S / 2, "the deadline did not bound it"
    assert proxy.asked.startswith(b"CONNECT traces.test:443 ")
