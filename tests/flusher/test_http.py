"""The network seam against real sockets: whatever a server does, an answer or an error in time."""

from __future__ import annotations

import contextlib
import errno
import gzip
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fallom._flusher.http import USER_AGENT, Http, NetworkError, Request
from tests.support.raw_server import Answer, RawServer, answer

SHORT_S = 0.3  # a deadline that is meant to pass
LONG_S = 30.0  # one that is not


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    servers: list[RawServer] = []

    def start(answer: Answer, is_eager: bool = False) -> RawServer:
        servers.append(RawServer(answer, is_eager))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def http() -> Http:
    return Http()


def always(data: bytes) -> Answer:
    return lambda connection, _: connection.sendall(data)


def refused(http: Http, request: Request) -> NetworkError:
    """Give the error of an exchange, which has to come before anything gets boring."""
    started = time.monotonic()
    with pytest.raises(NetworkError) as caught:
        http.send(request)
    assert time.monotonic() - started < LONG_S / 2, "the deadline did not bound it"
    return caught.value


def test_an_exchange_gives_status_headers_and_body(
    http: Http, serve: Callable[..., RawServer]
) -> None:
    server = serve(always(answer(201, b"made", "X-Thing: One", 'ETag: "a"')))
    response = http.send(Request("POST", f"{server.url}/v1/traces", {"X-Mine": "yes"}, b"body"))
    assert (response.status, response.body) == (201, b"made")
    assert response.headers["x-thing"] == "One"
    assert response.headers["etag"] == '"a"'
    [request] = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n")
    assert body == b"body"
    lines = head.decode().split("\r\n")
    assert "X-Mine: yes" in lines
    assert f"User-Agent: {USER_AGENT}" in lines
    assert "Accept-Encoding: identity" in lines
    assert not any(line.startswith(("Authorization", "Cookie")) for line in lines)


def test_one_connection_is_used_again(http: Http, serve: Callable[..., RawServer]) -> None:
    server = serve(always(answer(200, b"ok")))
    for _ in range(3):
        assert http.send(Request("GET", server.url)).body == b"ok"
    assert server.connections == 1


def test_threads_have_connections_of_their_own(http: Http, serve: Callable[..., RawServer]) -> None:
    barrier = threading.Barrier(3)

    def meet(connection: socket.socket, _: bytes) -> None:
        barrier.wait(LONG_S)
        connection.sendall(answer(200, b"ok"))

    server = serve(meet)
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(http.send(Request("GET", server.url)).body))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [b"ok"] * 3


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_refusal_is_an_answer(http: Http, serve: Callable[..., RawServer], status: int) -> None:
    server = serve(always(answer(status, b"why", "Retry-After: 3")))
    response = http.send(Request("POST", server.url, body=b"x"))
    assert (response.status, response.headers["retry-after"]) == (status, "3")


# Time.


def test_a_server_that_says_nothing_is_given_up_at_the_deadline(
    http: Http, serve: Callable[..., RawServer]
) -> None:
    server = serve(lambda *_: server.wait())
    assert refused(http, Request("GET", server.url, deadline_s=SHORT_S)).kind == "timeout"


@pytest.mark.parametrize(
    "slow",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000,
        answer(200, b"x" * 10_000),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 10_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000,
    ],
    ids=["headers", "body", "body without a length", "chunks"],
)
def test_a_slow_drip_is_given_up_at_the_deadline(
    http: Http, serve: Callable[..., RawServer], slow: bytes
) -> None:
    server = serve(lambda connection, _: server.drip(connection, slow))
    assert refused(http, Request("GET", server.url, deadline_s=SHORT_S)).kind == "timeout"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_drips_is_given_up_at_the_deadline(
    http: Http, serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    slow = b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000
    proxy = serve(lambda connection, _: proxy.drip(connection, slow))
    monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
    url = f"{scheme}://traces.test/v1/traces"
    assert refused(http, Request("GET", url, deadline_s=SHORT_S)).kind == "timeout"
    assert len(proxy.requests) == 1


def test_a_quick_head_and_a_slow_end_of_a_body_is_no_answer(
    http: Http, serve: Callable[..., RawServer]
) -> None:
    """Of a body that ends with its connection, the part that came looks like all of it."""

    def half(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"half of it")
        server.wait()

    server = serve(half)
    assert refused(http, Request("GET", server.url, deadline_s=SHORT_S)).kind == "timeout"


def test_a_server_that_does_not_read_is_given_up_at_the_deadline(http: Http) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        body = bytes(64 << 20)
        assert refused(http, Request("POST", url, {}, body, SHORT_S)).kind == "timeout"


def test_after_a_deadline_the_next_exchange_is_as_good_as_new(
    http: Http, serve: Callable[..., RawServer]
) -> None:
    def slow_first(connection: socket.socket, _: bytes) -> None:
        if len(server.requests) == 1:
            server.wait()
        connection.sendall(answer(200, b"ok"))

    server = serve(slow_first)
    refused(http, Request("GET", server.url, deadline_s=SHORT_S))
    assert http.send(Request("GET", server.url, deadline_s=LONG_S)).body == b"ok"


def test_no_thread_is_left_behind(http: Http, serve: Callable[..., RawServer]) -> None:
    server = serve(always(answer(200, b"ok")))
    for _ in range(5):
        http.send(Request("GET", server.url))
    assert not [
        t
        for t in threading.enumerate()
        if isinstance(t, threading.Timer) and t.is_alive() and not t.finished.is_set()
    ]


# What comes instead of an answer.


def close_hard(connection: socket.socket, _: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize(
    ("instead", "kind"),
    [
        (close_hard, "reset"),
        (lambda connection, _: connection.close(), "reset"),
        (always(b"SSH-2.0-OpenSSH_9.6\r\n"), "reset"),
        (lambda c, _: (c.sendall(answer(200, b"half", length=100)), c.close()), "other"),
    ],
    ids=["reset", "closed", "another protocol", "half a body"],
)
def test_no_answer_is_an_error_of_a_kind(
    http: Http, serve: Callable[..., RawServer], instead: Any, kind: str
) -> None:
    server = serve(instead)
    assert refused(http, Request("GET", server.url, deadline_s=LONG_S)).kind in (kind, "reset")


@pytest.mark.parametrize("seed", range(20))
def test_garbage_is_an_error_and_never_anything_else(
    http: Http, serve: Callable[..., RawServer], seed: int
) -> None:
    noise = zlib.compress(bytes([seed]) * 1000)[: seed * 5]
    starts = [
        b"",
        b"HTTP/1.1 ",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ]

    def garbage(connection: socket.socket, _: bytes) -> None:
        connection.sendall(starts[seed % 4] + noise)
        connection.close()

    server = serve(garbage)
    with contextlib.suppress(NetworkError):
        http.send(Request("GET", server.url, deadline_s=LONG_S))


def test_nobody_who_listens_is_told_from_a_connection_that_broke(http: Http) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = refused(http, Request("GET", f"http://127.0.0.1:{port}", deadline_s=LONG_S))
    assert error.kind == "connect"
    assert "\n" not in str(error)


@pytest.mark.parametrize("proxy", ["", "by the proxy: "])
def test_why_no_connection_came_is_said_in_a_few_words(
    http: Http, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        if proxy:
            monkeypatch.setenv("http_proxy", url)
            url = "http://far.invalid/"
        error = refused(http, Request("GET", url, deadline_s=LONG_S))
    assert str(error) == f"{proxy}[Errno {errno.ECONNREFUSED}] Connection refused"


def test_a_name_that_is_not_known_is_said(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = refused(http, Request("GET", "http://far.invalid/", deadline_s=LONG_S))
    assert error.kind == "connect"
    said = "Failed to resolve 'far.invalid' ([Errno -2] Name or service not known)"
    assert str(error) == said


def test_a_connection_that_broke_is_named_by_what_broke_it(
    http: Http, serve: Callable[..., RawServer]
) -> None:
    server = serve(close_hard)
    error = refused(http, Request("GET", server.url, deadline_s=LONG_S))
    assert (
        str(error) == f"ConnectionResetError: [Errno {errno.ECONNRESET}] Connection reset by peer"
    )


def test_a_server_without_tls_is_told(http: Http, serve: Callable[..., RawServer]) -> None:
    server = serve(always(answer(400)), is_eager=True)
    url = server.url.replace("http:", "https:")
    assert refused(http, Request("GET", url, deadline_s=LONG_S)).kind == "tls"


@pytest.mark.parametrize("headers", [{"bad name": "x"}, {"X": "line\r\nX-Injected: y"}, {"X": "π"}])
def test_headers_that_http_cannot_carry_are_an_error_and_nothing_is_sent(
    http: Http, serve: Callable[..., RawServer], headers: dict[str, str]
) -> None:
    server = serve(always(answer(200)))
    with contextlib.suppress(NetworkError):
        http.send(Request("GET", server.url, headers, deadline_s=LONG_S))
    assert not any(b"Injected" in request for request in server.requests)


# Size.


@pytest.mark.parametrize("size", [1000, 1001])
def test_an_answer_is_read_up_to_its_bound(
    http: Http, serve: Callable[..., RawServer], size: int
) -> None:
    server = serve(always(answer(500, b"x" * size)))
    request = Request("GET", server.url, body_bytes_max=1000, deadline_s=LONG_S)
    if size <= 1000:
        assert len(http.send(request).body) == size
    else:
        error = refused(http, request)
        assert (error.kind, error.status) == ("too_large", 500)


def test_an_endless_answer_is_given_up_when_it_is_too_large(
    http: Http, serve: Callable[..., RawServer]
) -> None:
    def endless(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))

    server = serve(endless)
    request = Request("GET", server.url, deadline_s=LONG_S, body_bytes_max=1 << 20)
    assert refused(http, request).kind == "too_large"


def test_an_answer_that_is_compressed_all_the_same_is_read(
    http: Http, serve: Callable[..., RawServer]
) -> None:
    server = serve(always(answer(200, gzip.compress(b"text"), "Content-Encoding: gzip")))
    assert http.send(Request("GET", server.url)).body == b"text"


@pytest.mark.parametrize("head", [b"304 Not Modified", b"200 OK\r\nContent-Length: 0"])
def test_no_body_is_none_whatever_its_encoding_is_said_to_be(
    http: Http, serve: Callable[..., RawServer], head: bytes
) -> None:
    server = serve(always(b"HTTP/1.1 " + head + b"\r\nContent-Encoding: gzip\r\n\r\n"))
    assert http.send(Request("GET", server.url)).body == b""


def test_a_bomb_is_too_large(http: Http, serve: Callable[..., RawServer]) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    server = serve(always(answer(200, bomb, "Content-Encoding: gzip")))
    error = refused(http, Request("GET", server.url, deadline_s=LONG_S))
    assert (error.kind, error.status) == ("too_large", 200)


@pytest.mark.parametrize(
    "body", [b"no gzip at all", gzip.compress(b"x" * 5000)[:-9]], ids=["not gzip", "cut short"]
)
def test_what_only_says_that_it_is_compressed_is_garbled(
    http: Http, serve: Callable[..., RawServer], body: bytes
) -> None:
    server = serve(always(answer(200, body, "Content-Encoding: gzip")))
    error = refused(http, Request("GET", server.url, deadline_s=LONG_S))
    assert (error.kind, error.status) == ("garbled", 200)


# What requests would do by itself.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    http: Http, serve: Callable[..., RawServer], status: int
) -> None:
    other = serve(always(answer(200, b"stolen")))
    server = serve(always(answer(status, b"", f"Location: {other.url}/")))
    response = http.send(Request("POST", server.url, {"Authorization": "Bearer k"}, b"body"))
    assert response.status == status
    assert other.requests == []
    assert len(server.requests) == 1


def test_the_body_of_a_redirect_is_bounded_like_any_other(
    http: Http, serve: Callable[..., RawServer]
) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    server = serve(always(answer(302, bomb, "Location: /elsewhere", "Content-Encoding: gzip")))
    request = Request("GET", server.url, deadline_s=LONG_S)
    error = refused(http, request)
    assert (error.kind, error.status) == ("too_large", 302)


def test_no_netrc_replaces_our_credentials(
    http: Http,
    serve: Callable[..., RawServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    server = serve(always(answer(200)))
    http.send(Request("GET", server.url, {"Authorization": "Bearer ours"}))
    http.send(Request("GET", server.url))
    assert b"Authorization: Bearer ours" in server.requests[0]
    assert b"Authorization" not in server.requests[1]


@pytest.mark.parametrize(
    "exempt", ["", "127.0.0.1", "*", "example.com,127.0.0.1", "10.0.0.0/8,127.0.0.0/8"]
)
def test_the_proxy_of_the_environment_is_used_unless_no_proxy_names_the_host(
    http: Http,
    serve: Callable[..., RawServer],
    monkeypatch: pytest.MonkeyPatch,
    exempt: str,
) -> None:
    proxy = serve(always(answer(200, b"by the proxy")))
    server = serve(always(answer(200, b"direct")))
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", exempt)
    body = http.send(Request("GET", server.url, deadline_s=LONG_S)).body
    assert body == (b"direct" if exempt else b"by the proxy")
    assert len(proxy.requests) == (0 if exempt else 1)


@pytest.mark.parametrize("exempt", ["::1", "[::1]", "localhost,127.0.0.1,::1"])
def test_no_proxy_names_an_ipv6_host_with_brackets_or_without(
    http: Http, serve: Callable[..., RawServer], monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    proxy = serve(always(answer(200, b"by the proxy")))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", exempt)
    assert refused(http, Request("GET", "http://[::1]:1/", deadline_s=LONG_S)).kind == "connect"
    assert proxy.requests == []


def test_no_cookie_is_kept(http: Http, serve: Callable[..., RawServer]) -> None:
    server = serve(always(answer(200, b"", "Set-Cookie: lb=1; Path=/; Max-Age=3600")))
    for _ in range(2):
        http.send(Request("GET", server.url))
    assert not any(b"Cookie" in request for request in server.requests)
