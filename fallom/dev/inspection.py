"""What tests and scripts ask the cloud about itself: ``/_dev/...``, in JSON."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fallom._version import __version__
from fallom.dev.answers import JsonAnswer
from fallom.dev.recorder import Recorder
from fallom.dev.serving import Desk

__all__ = ["inspection_routes"]

_PAGE_ROWS_MAX: Final = 10_000
_JSON_COLUMNS: Final = ("resource", "attributes", "events", "data")
_TABLES: Final = ("spans", "exposures", "metrics", "fetches")


def inspection_routes(recorder: Recorder, desk: Desk) -> list[Route]:
    """Give the routes, bound to what was received and what is served."""

    async def stats(_: Request) -> Response:
        problems = (await desk.catalogue()).problems
        found = {
            **await recorder.stats(),
            "errors": [p.to_dict() for p in problems if p.is_error],
            "warnings": [p.to_dict() for p in problems if not p.is_error],
            "pid": os.getpid(),
            "version": __version__,
        }
        return JsonAnswer(found)

    def rows_of(table: str) -> Route:
        async def show_rows(request: Request) -> Response:
            after = _number(request, "after", 0, 1 << 62)
            limit = _number(request, "limit", 1000, _PAGE_ROWS_MAX)
            rows = await recorder.rows(table, after, limit)
            return JsonAnswer([_decoded(row) for row in rows])

        return Route(f"/_dev/{table}", show_rows)

    async def clear(_: Request) -> Response:
        await recorder.clear()
        return Response(status_code=204)

    return [
        Route("/_dev/stats", stats),
        Route("/_dev/data", clear, methods=["DELETE"]),
        *map(rows_of, _TABLES),
    ]


def _number(request: Request, name: str, default: int, high: int) -> int:
    raw = request.query_params.get(name, str(default))
    if not raw.isascii() or not raw.isdigit() or int(raw) > high:
        raise HTTPException(400, f"{name}={raw!r}; expected a whole number up to {high}.")
    return int(raw)


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: json.loads(v) if k in _JSON_COLUMNS else v for k, v in row.items()}
