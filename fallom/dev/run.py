"""``run_cloud``: bind, serve until a signal, say where."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import platformdirs
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from fallom._core.errors import ConfigurationError
from fallom._core.settings import resolve_settings
from fallom._folder.folder import Folder
from fallom._host.directory import state_bases
from fallom.dev.app import build_app
from fallom.dev.fault_injection import TRANSPORT
from fallom.dev.faults import Fault
from fallom.dev.guard import is_loopback
from fallom.dev.page.live import Live
from fallom.dev.traffic import SampleTraffic

__all__ = ["CloudOptions", "default_database", "run_cloud", "sample_folder"]

_SHUTDOWN_S = 2  # how long requests in flight may take once we were told to stop; a guess


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """What ``fallom dev`` was asked for."""

    folder: Path
    db: Path
    host: str = "127.0.0.1"
    port: int = 4499  # 0: any that is free
    hosts: Collection[str] = ()  # further names that the Host header may have
    faults: Collection[Fault] = ()
    port_file: Path | None = None
    quiet: bool = False
    spans_max: int | None = None  # how many spans are kept; None: all
    sample_traffic: bool = False  # workers that record what an application would
    until_stdin_closes: bool = False  # so that a cloud never outlives the test that started it


def default_database() -> Path:
    """Give the file that is used when no other is asked for."""
    return Path(platformdirs.user_state_dir("fallom", appauthor=False)) / "dev.db"


def sample_folder() -> Path:
    """Give the folder that is served when no other is asked for."""
    return Path(__file__).parent / "sample"


def run_cloud(options: CloudOptions) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: The folder, database, address or port file cannot be used.
    """
    with contextlib.ExitStack() as stack:
        _run(options, stack.enter_context(SampleTraffic()) if options.sample_traffic else None)


def _run(options: CloudOptions, traffic: SampleTraffic | None) -> None:
    folder = Folder(options.folder)
    if options.port_file and not os.access(options.port_file.parent, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"--port-file {options.port_file}: expected a file in a directory that may be written.",
            "port_file",
        )
    for note in (*_warnings(options), *folder.notes):
        _say(note, sys.stderr)
    listener = _bound(options.host, options.port)
    own_bases = state_bases(resolve_settings({}, os.environ).state_dir, os.environ)
    app = build_app(
        folder,
        options.db,
        hosts=(options.host, *options.hosts),
        addresses_allowed=not is_loopback(options.host),
        faults=options.faults,
        spans_max=options.spans_max,
        state_bases=(*([traffic.state_dir] if traffic else []), *own_bases),
        is_watched=not options.quiet,
    )
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    server = _Server(config, options, listener.getsockname()[1], traffic, app.state.live)

    def stop(*_: object) -> None:
        server.should_exit = True

    # The server re-raises the signal that ended it once it has shut down in order; without
    # handlers of ours that would turn an orderly end into a death by signal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if options.until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        options: CloudOptions,
        port: int,
        traffic: SampleTraffic | None,
        live: Live,
    ) -> None:
        super().__init__(config)
        self._live = live
        self._traffic = traffic
        self._options = options
        self._port = port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._traffic is not None:
            self._traffic.start(_url(self._options, self._port))
        if not self._options.quiet:
            _say(_banner(self._options, self._port), sys.stdout)
        if self._options.port_file:
            _write_whole(self._options.port_file, f"{self._port}\n")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._live.close()  # the page's streams end only when they are told to
        super().handle_exit(sig, frame)


class _Connection(H11Protocol):
    """HTTP/1.1 whose application can see the connection, to break it on purpose."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app: ASGIApp = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app: Any = with_transport


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # a restarted cloud must not wait for the old connections to be forgotten
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:  # the last of a name that is none
        raise ConfigurationError(
            f"--host {host} --port {port}: {error}. Stop what listens there, or give another "
            "port; --port 0 takes any that is free.",
            "port",
        ) from None
    return listener


def _banner(options: CloudOptions, port: int) -> str:
    url = _url(options, port)
    lines = [
        f"fallom dev: the page is at {url}",
        f"  serves  {options.folder}",
        f"  keeps   {options.db}",
        *(f"  fault   {fault.to_dict()}" for fault in options.faults),
        "Paste this into the shell of your application:",
        "",
        f"  export FALLOM_TRACES_URL={url} FALLOM_CONFIGS_URL={url} FALLOM_PROMPTS_URL={url}",
        f"  export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=anything",
        "  export FALLOM_SYNC_INTERVAL=2",
        "",
        "With the last one a changed file is taken up within 2 seconds; else it is 30.",
        "Ctrl-C stops it.",
    ]
    return "\n".join(lines)


def _url(options: CloudOptions, port: int) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    shown = "127.0.0.1" if options.host in ("0.0.0.0", "::", "") else host  # noqa: S104
    return f"http://{shown}:{port}"


def _warnings(options: CloudOptions) -> list[str]:
    if is_loopback(options.host):
        return []
    return [
        f"WARNING: listening on {options.host}: whoever reaches this address can read what is "
        "stored here, and nobody is asked for a key."
    ]


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever waits for it never sees a part of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    aside.replace(path)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _say(text: str, stream: Any) -> None:
    print(text, file=stream, flush=True)
