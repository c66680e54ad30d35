"""``LoopbackGuard``: who may talk to a server on this machine.

Any web page that a browser shows can send requests to loopback. Two checks keep pages out: the Host
header must name this server (a page that had its own name rebound to 127.0.0.1 still sends that
name), and an Origin header, which browsers add to cross-origin requests, must be our own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fallom.dev.answers import JsonAnswer

__all__ = ["LoopbackGuard", "is_loopback"]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only mean this machine; False for a name that must be looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class LoopbackGuard:
    """ASGI middleware that answers 403 to requests that come from elsewhere."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], addresses_allowed: bool) -> None:
        """Guard ``app``.

        Args:
            app: What is guarded.
            hosts: Names that are ours beside those of loopback.
            addresses_allowed: Whether any literal address is ours, for a server that listens on
                all interfaces; rebinding needs a name, so addresses are harmless.
        """
        self._app = app
        self._hosts = _LOOPBACK_NAMES | {host.lower() for host in hosts}
        self._addresses_allowed = addresses_allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or pass on."""
        reason = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else ""
        if reason:
            await JsonAnswer({"error": reason}, status_code=403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str:
        host = headers.get("host", "")
        if not self._is_ours(_host_name(host)):
            return (
                f"The Host header says {host!r}, which is not a name of this server. Ask for "
                "127.0.0.1, or start `fallom dev` with --allow-host and that name."
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host}".lower():
            return f"Requests from pages of another origin ({origin!r}) are not answered."
        return ""

    def _is_ours(self, name: str) -> bool:
        if name in self._hosts:
            return True
        if not self._addresses_allowed:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _host_name(host: str) -> str:
    """Give the name of ``name:port`` or ``[address]:port``, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()
