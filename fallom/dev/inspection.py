"""What tests and people ask the cloud about itself: ``/_dev/...`` and a plain page at ``/``."""

from __future__ import annotations

import html
import json
import os
import secrets
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
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

    async def stats() -> dict[str, Any]:
        problems = (await desk.catalogue()).problems
        return {
            **await recorder.stats(),
            "errors": [p.to_dict() for p in problems if p.is_error],
            "warnings": [p.to_dict() for p in problems if not p.is_error],
            "pid": os.getpid(),
            "version": __version__,
        }

    async def show_stats(_: Request) -> Response:
        return JsonAnswer(await stats())

    async def show_rows(request: Request) -> Response:
        after = _number(request, "after", 0, 1 << 62)
        limit = _number(request, "limit", 1000, _PAGE_ROWS_MAX)
        rows = await recorder.rows(request.path_params["table"], after, limit)
        return JsonAnswer([_decoded(row) for row in rows])

    async def clear(_: Request) -> Response:
        await recorder.clear()
        return Response(status_code=204)

    async def page(_: Request) -> Response:
        return _page(await stats())

    tables = [Route(f"/_dev/{name}", _for_table(show_rows, name)) for name in _TABLES]
    return [
        Route("/", page),
        Route("/_dev/stats", show_stats),
        Route("/_dev/data", clear, methods=["DELETE"]),
        *tables,
    ]


def _for_table(endpoint: Any, table: str) -> Any:
    async def bound(request: Request) -> Response:
        request.path_params["table"] = table
        response: Response = await endpoint(request)
        return response

    return bound


def _number(request: Request, name: str, default: int, high: int) -> int:
    raw = request.query_params.get(name, str(default))
    if not raw.isascii() or not raw.isdigit() or int(raw) > high:
        raise HTTPException(400, f"{name}={raw!r}; expected a whole number up to {high}.")
    return int(raw)


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {k: json.loads(v) if k in _JSON_COLUMNS else v for k, v in row.items()}


def _page(stats: dict[str, Any]) -> Response:
    """Give a plain page: no script, and nothing from outside that is not escaped."""
    counts = [
        (f"{name.replace('_', ' ')}, {what}", stats[name][what])
        for name in ("spans", "metric_spans", "exposures", "metrics")
        for what in ("received", "distinct")
    ]
    nonce = secrets.token_urlsafe(16)
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>fallom dev</title>'
        f'<style nonce="{nonce}">body{{font:16px/1.5 system-ui,sans-serif;max-width:48rem;'
        "margin:2rem auto;padding:0 1rem}td{padding-right:2rem}:root{color-scheme:light dark}"
        f"</style><h1>fallom dev {html.escape(stats['version'])}</h1>"
        f"<h2>Received</h2>{_table(counts)}"
        f"<h2>Requests</h2>{_table(sorted(stats['fetches'].items()))}"
        f"<h2>Files</h2>{_problems(stats['errors'] + stats['warnings'])}"
    )
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    return HTMLResponse(body, headers=headers)


def _table(rows: list[tuple[str, int]]) -> str:
    if not rows:
        return "<p>Nothing yet.</p>"
    cells = (f"<tr><td>{html.escape(name)}</td><td>{number}</td></tr>" for name, number in rows)
    return f"<table>{''.join(cells)}</table>"


def _problems(problems: list[dict[str, Any]]) -> str:
    if not problems:
        return "<p>All files are served.</p>"
    items = (
        f"<li>{html.escape(p['file'])}:{p['line']}:{p['column']}: {html.escape(p['message'])}</li>"
        for p in problems
    )
    return f"<ul>{''.join(items)}</ul>"
