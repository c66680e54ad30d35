"""The one seam to the network: ``Http.send(request) -> Response``.

What requests does by default is unsafe here, so it is told otherwise: no netrc (it would replace our
Authorization), no redirects (they repeat body and headers to another host), no cookies, TLS verified,
answers read up to a bound and never decompressed by the library, and one deadline for the whole exchange
(its own timeout bounds only the pause between two bytes, so that a slow drip never ends).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import urlsplit

from fallom._version import __version__

__all__ = ["USER_AGENT", "Http", "NetworkError", "Request", "Response", "Sends"]

USER_AGENT = f"fallom-python/{__version__}"
ANSWER_BYTES_MAX = 4 << 20  # the OTLP specification asks for a bound and names 4 MiB
CONNECTIONS_KEPT = 16  # to one host: as many as all lanes together may use at once
_CHUNK_BYTES = 1 << 16
_TLS_ADVICE = "mend the certificate, or name its authority by REQUESTS_CA_BUNDLE"
_CONNECT_TIMEOUT_S = 5.0  # guess, not measured: three SYN retries take 7 s
_OPENSSL_NOISE = re.compile(r"\[SSL: \w+\] | \(_ssl\.c:\d+\)")
# Of urllib3, before what it says of a connection that never was; the second form is that of 2.0.
_POOL = re.compile(r"^(?:\w+\(host=.*?\)|<urllib3\.[^>]*>): ")
_SPEAKING = ("NewConnectionError", "NameResolutionError")
_NO_CONNECTION = "Failed to establish a new connection: "


@dataclass(frozen=True, slots=True)
class Request:
    """One exchange. ``deadline_s`` is for all of it: connect, send, and read the whole answer."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    deadline_s: float = 10.0
    body_bytes_max: int = ANSWER_BYTES_MAX  # of the answer, after decompression


@dataclass(frozen=True, slots=True)
class Response:
    """What came back; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NetworkError(Exception):
    """No whole answer came.

    Attributes:
        kind: "connect", "timeout", "reset", "tls", "too_large", "garbled" or "other".
        status: The HTTP status, where one came; 0 where none did.
    """

    def __init__(self, kind: str, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status


class Sends(Protocol):
    """What does an exchange as ``Http`` does, or raises its ``NetworkError``."""

    def send(self, request: Request) -> Response:
        """Do one exchange."""


class Http:
    """Keep-alive connections to a few hosts. Safe to use from several threads."""

    def __init__(self) -> None:
        """Open nothing yet; requests is imported here, 180 ms that only the flusher pays."""
        import requests  # a worker never loads it

        self._requests = requests
        self._local = threading.local()
        self._session = _new_session(self._local)

    def send(self, request: Request) -> Response:
        """Do one exchange; blocks for at most ``request.deadline_s`` and a little.

        Longer while a name is looked up, and where it has several addresses of which none answers: up to
        5 s for each.

        Raises:
            NetworkError: No whole answer within the deadline.
        """
        errors = self._requests.exceptions
        give_up_at = time.monotonic() + request.deadline_s
        abort = _Abort(request.deadline_s)
        try:
            with abort:
                return self._exchange(request, give_up_at, abort)
        except NetworkError:
            raise
        except Exception as error:  # noqa: BLE001 - urllib3 and http.client leak errors of their own
            is_late = abort.fired or time.monotonic() >= give_up_at
            if is_late or isinstance(error, errors.Timeout):
                message = f"no whole answer within {request.deadline_s:g} s"
                raise NetworkError("timeout", message) from None
            if isinstance(error, errors.SSLError) or "TLS CA certificate" in str(error):
                raise NetworkError("tls", f"{_short(error)}; {_TLS_ADVICE}") from None
            if isinstance(error, errors.ConnectionError):
                raise NetworkError(_kind(error), _short(error)) from None
            raise NetworkError("other", _short(error)) from None

    def _exchange(self, request: Request, give_up_at: float, abort: _Abort) -> Response:
        self._local.abort = abort
        answer = self._session.request(
            request.method,
            request.url,
            data=request.body,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **request.headers},
            timeout=(min(_CONNECT_TIMEOUT_S, request.deadline_s), request.deadline_s),
            proxies=_proxies(request.url),
            allow_redirects=False,
            stream=True,
        )
        with answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            try:
                body = _read(answer.raw, request.body_bytes_max, give_up_at)
                if abort.fired:  # then that is where we ended it, not where the server did
                    raise NetworkError("timeout", "the answer did not end within its deadline")
                if body and headers.get("content-encoding", "").lower() == "gzip":
                    body = _gunzip(body, request.body_bytes_max)
            except NetworkError as error:
                if error.kind in ("too_large", "garbled"):
                    error.status = answer.status_code
                raise
            return Response(answer.status_code, headers, body)


def _new_session(local: threading.local) -> Any:
    """Make a session whose connections show their socket to the abort of their thread's exchange."""
    import requests
    from requests.adapters import HTTPAdapter

    making = threading.Lock()

    # Sockets are handed over before the request's first byte is sent: a server can read, and send its
    # headers, as slowly as a body, and requests gives its caller nothing to close until then.
    def watched(pool: Any) -> Any:
        class Connection(pool.ConnectionCls):  # type: ignore[misc]  # of plain HTTP, TLS or SOCKS
            def send(self, data: Any) -> None:
                if self.sock is None:
                    self.connect()
                local.abort.watch(self.sock)
                super().send(data)

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

    def watching(manager: Any) -> Any:
        pools = manager.pool_classes_by_scheme.items()
        manager.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in pools}
        return manager

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            watching(self.poolmanager)

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            """Give the one of a proxy, which has pools of its own."""
            with making:  # else another thread may find it before its sockets are watched
                known = self.proxy_manager.get(proxy)
                return known or watching(super().proxy_manager_for(proxy, **kwargs))

    class Session(requests.Session):
        def get_redirect_target(self, resp: Any) -> None:
            """Give none: to prepare a redirect it would read the whole body, without any bound."""

    session = Session()
    for prefix in ("http://", "https://"):
        session.mount(prefix, Adapter(pool_maxsize=CONNECTIONS_KEPT, max_retries=0))
    # Off: netrc, and whatever else the environment says. The CA file, and the proxies (see _proxies),
    # are what users do expect to be read from there.
    session.trust_env = False
    # No cookies: a server could fill the memory, and every later request, with them.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    ca_bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    session.verify = ca_bundle or True
    return session


class _Abort:
    """Shuts the socket down when the deadline passes: a read in progress then ends at once."""

    def __init__(self, deadline_s: float) -> None:
        self.fired = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(deadline_s, self._fire)
        self._timer.daemon = True

    def __enter__(self) -> _Abort:
        self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()

    def watch(self, connection: Any) -> None:
        # Within TLS to a proxy, TLS is no socket but has that of the proxy.
        self._socket = getattr(connection, "socket", connection)
        if self.fired:  # the deadline passed while the request was still being sent
            self._fire()

    def _fire(self) -> None:
        self.fired = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it may have been closed at this very moment
                # Of the base class: that of SSLSocket would pull its state from under the reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _proxies(url: str) -> dict[str, str]:
    """Give the environment's proxies, none for a host that ``no_proxy`` names."""
    from requests.utils import should_bypass_proxies  # knows networks, 10.0.0.0/8, and plain IPv6

    host = urlsplit(url).netloc.rpartition("@")[2]
    is_named = urllib.request.proxy_bypass(host) or should_bypass_proxies(url, None)
    return {} if is_named else urllib.request.getproxies()


def _read(raw: Any, bytes_max: int, give_up_at: float) -> bytes:
    parts: list[bytes] = []
    total = 0
    while True:
        part = raw.read(min(_CHUNK_BYTES, bytes_max + 1 - total), decode_content=False)
        if not part:
            return b"".join(parts)
        parts.append(part)
        total += len(part)
        if total > bytes_max:
            raise NetworkError("too_large", f"the answer is longer than {bytes_max} bytes")
        if time.monotonic() > give_up_at:
            raise NetworkError("timeout", "the answer did not end within its deadline")


def _gunzip(body: bytes, bytes_max: int) -> bytes:
    """Decompress an answer that came compressed although identity was asked for."""
    decoder = zlib.decompressobj(wbits=31)
    try:
        plain = decoder.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise NetworkError("garbled", f"the answer is not valid gzip: {error}") from None
    if not decoder.eof and len(plain) <= bytes_max:
        raise NetworkError("garbled", "the answer is not valid gzip: it ends too early")
    if len(plain) > bytes_max:
        raise NetworkError("too_large", f"the answer is longer than {bytes_max} bytes")
    return plain


def _kind(error: BaseException) -> str:
    """Tell a connection that never was from one that broke."""
    text = repr(error)
    never = (
        "NewConnectionError",
        "NameResolutionError",
        "ConnectTimeout",
        "refused",
        "Max retries",
    )
    broken = ("ConnectionReset", "RemoteDisconnected", "BrokenPipe", "IncompleteRead", "Protocol")
    if any(word in text for word in broken):
        return "reset"
    return "connect" if any(word in text for word in never) else "reset"


def _short(error: BaseException) -> str:
    """Give the innermost reason, in one line; urllib3 wraps it several times."""
    reason, way = error, ""
    for _ in range(4):
        parts = (getattr(reason, "reason", None), *reason.args)
        inner = next((part for part in parts if isinstance(part, BaseException)), None)
        if inner is None:
            break
        if type(reason).__name__ == "ProxyError":
            way = "by the proxy: "
        reason = inner
    name = type(reason).__name__
    text = _POOL.sub("", _OPENSSL_NOISE.sub("", str(reason))).strip().replace("\n", " ")
    # These two say it all in their text, and of an error on the control page there are 128 bytes.
    said = text.removeprefix(_NO_CONNECTION) if name in _SPEAKING else f"{name}: {text}"
    return f"{way}{said}"[:200]
