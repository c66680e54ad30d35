"""``build_app``: the local cloud's rooms put together as one ASGI application.

A request's walk: log (everything is counted) -> guard (strangers out) -> faults -> the routes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from fallom._folder.folder import Folder
from fallom.dev.answers import JsonAnswer
from fallom.dev.fault_board import FaultBoard, fault_routes
from fallom.dev.fault_injection import FaultInjection
from fallom.dev.faults import Fault
from fallom.dev.guard import LoopbackGuard
from fallom.dev.ingest import ingest_routes
from fallom.dev.inspection import inspection_routes
from fallom.dev.page.indexer import Indexer
from fallom.dev.page.live import Live
from fallom.dev.page.reading import Shelf
from fallom.dev.page.routes import page_routes
from fallom.dev.provider import provider_routes
from fallom.dev.recorder import Recorder
from fallom.dev.request_log import RequestLog
from fallom.dev.serving import Desk, serving_routes

__all__ = ["build_app"]


def build_app(
    folder: Folder,
    database: Path,
    *,
    hosts: Collection[str] = (),
    addresses_allowed: bool = False,
    faults: Collection[Fault] = (),
    spans_max: int | None = None,
    state_bases: Collection[str] = (),
    is_watched: bool = False,
) -> Starlette:
    """Give the application; it closes what it opened when it is shut down.

    Args:
        folder: What is served.
        database: Where rows go.
        hosts: Names of this server beside those of loopback.
        addresses_allowed: See ``LoopbackGuard``.
        faults: Those that are set from the start.
        spans_max: How many spans are kept, and as many requests; None for all.
        state_bases: State directories whose health the page shows.
        is_watched: Whether a person is there: then the page's index is filled from the start, and
            otherwise from the first look at the page, or from the start where spans are given up.

    Raises:
        ConfigurationError: The database cannot be used.
    """
    desk = Desk(folder)
    desk.look()
    board = FaultBoard(faults)
    live = Live()
    indexer = Indexer(database, desk, live.changed, spans_max)
    recorder = Recorder(database, indexer.wake, indexer.clear, spans_max)
    shelf = Shelf(database, indexer)
    desk.tell(indexer.wake)
    if is_watched or spans_max is not None:
        indexer.start()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        live.close()
        shelf.close()
        indexer.close()
        desk.close()
        recorder.close()

    app = Starlette(
        routes=[
            *serving_routes(desk),
            *ingest_routes(recorder),
            *provider_routes(),
            *inspection_routes(recorder, desk),
            *fault_routes(board),
            *page_routes(shelf, indexer, desk, live, tuple(state_bases)),
        ],
        middleware=[
            Middleware(RequestLog, recorder=recorder),
            Middleware(LoopbackGuard, hosts=hosts, addresses_allowed=addresses_allowed),
            Middleware(FaultInjection, board=board),
        ],
        exception_handlers={HTTPException: _refused, sqlite3.Error: _not_stored},
        lifespan=lifespan,
    )
    app.state.live = live
    return app


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JsonAnswer({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _not_stored(_: Request, error: Exception) -> Response:
    """A full disk is no fault of the sender: 503 has it try again."""
    return JsonAnswer({"error": f"The database refused: {error}."}, status_code=503)
