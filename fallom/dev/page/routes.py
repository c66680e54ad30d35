"""The page's addresses: ``/`` and what is below ``/ui``. GET shows, POST changes, nothing else does."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from fallom.dev.body import read_body
from fallom.dev.overrides import OverrideError
from fallom.dev.page.details import detail_of
from fallom.dev.page.experiments import list_experiments, read_experiment
from fallom.dev.page.filters import LABELS, PERIODS, Filters
from fallom.dev.page.host import read_host
from fallom.dev.page.indexer import Indexer
from fallom.dev.page.lists import choices, list_sessions, list_traces, overview
from fallom.dev.page.live import Live
from fallom.dev.page.reading import Shelf
from fallom.dev.page.render import PAGE_HEADERS, Pages
from fallom.dev.page.sessions import read_session
from fallom.dev.page.traces import read_trace
from fallom.dev.page.versions import CONFIG, SESSIONS_MAX, TEST
from fallom.dev.page.workers import recent_workers, switch_of
from fallom.dev.serving import Desk

__all__ = ["page_routes"]

_FORM_BYTES_MAX: Final = 64 << 10
_ASSETS: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_PAYLOAD_KINDS: Final = {CONFIG: "configs", TEST: "prompt_ab_tests"}


def page_routes(
    shelf: Shelf, indexer: Indexer, desk: Desk, live: Live, bases: tuple[str, ...]
) -> list[Route]:
    """Give the routes of the page; ``bases`` are the state directories whose health it shows."""
    answers = _Answers(shelf, indexer, desk, live, bases)
    return [
        Route("/", answers.traces),
        Route("/ui/sessions", answers.sessions),
        Route("/ui/session/{session_id:path}", answers.session),
        Route("/ui/trace/{trace_id}", answers.trace),
        Route("/ui/experiments", answers.experiments),
        Route("/ui/experiment/{kind}/{key:path}", answers.experiment),
        Route("/ui/served", answers.served),
        Route("/ui/weights", answers.weights, methods=["POST"]),
        Route("/ui/host", answers.host),
        Route("/ui/events", live.stream),
        *[Route(f"/ui/static/{name}", _asset(name, kind)) for name, kind in _ASSETS.items()],
    ]


class _Answers:
    def __init__(
        self, shelf: Shelf, indexer: Indexer, desk: Desk, live: Live, bases: tuple[str, ...]
    ) -> None:
        self._shelf = shelf
        self._ask = shelf.ask
        self._indexer = indexer
        self._desk = desk
        self._live = live
        self._bases = bases
        self._pages = Pages()

    async def traces(self, request: Request) -> Response:
        filters = Filters.read(request.query_params.multi_items())
        after = _number(request, "after")
        listing = await self._ask(lambda index: list_traces(index, filters, after))
        return await self._list(request, "traces.html", filters, after, listing)

    async def sessions(self, request: Request) -> Response:
        filters = Filters.read(request.query_params.multi_items())
        after = _number(request, "after")
        listing = await self._ask(lambda index: list_sessions(index, filters, after))
        return await self._list(request, "sessions.html", filters, after, listing)

    async def _list(
        self, request: Request, template: str, filters: Filters, after: int, listing: Any
    ) -> Response:
        return await self._page(
            request,
            template,
            listing=listing,
            filters=filters,
            after=after,
            choices=await self._ask(choices),
            labels=LABELS,
            periods=PERIODS,
            counts=await self._ask(overview),
        )

    async def session(self, request: Request) -> Response:
        session_id = request.path_params["session_id"]
        found = await self._ask(
            lambda index: read_session(index, session_id, _number(request, "after"))
        )
        if found is None:
            return await self._missing(request, "No such session", session_id)
        rows = await self._shelf.rows(found.span_ids)
        return await self._page(
            request, "session.html", found=found, turns=found.turns(rows), session_id=session_id
        )

    async def trace(self, request: Request) -> Response:
        trace_id = request.path_params["trace_id"]
        wanted = request.query_params.get("span", "")
        found = await self._ask(lambda index: read_trace(index, trace_id, wanted))
        if found is None:
            return await self._missing(request, "No such trace", trace_id)
        rows = await self._shelf.rows([found.chosen, *found.retried])
        detail = next((detail_of(row) for row in rows if row["id"] == found.chosen), None)
        return await self._page(
            request, "trace.html", found=found, steps=found.steps(rows), detail=detail
        )

    async def experiments(self, request: Request) -> Response:
        current = await self._current()
        found = await self._ask(lambda index: list_experiments(index, current))
        return await self._page(request, "experiments.html", experiments=found)

    async def experiment(self, request: Request) -> Response:
        kind, key = request.path_params["kind"], request.path_params["key"]
        version = _number(request, "version") or None
        current = await self._current()
        found = await self._ask(lambda index: read_experiment(index, current, kind, key, version))
        if found is None:
            return await self._missing(request, "No such experiment", key)
        return await self._page(
            request,
            "experiment.html",
            found=found,
            compared_max=SESSIONS_MAX,
            keeps=self._indexer.spans_max is not None,
        )

    async def served(self, request: Request, trouble: str = "", status: int = 200) -> Response:
        catalogue = await self._desk.catalogue()
        current = await self._current()
        now_ns = time.time_ns()
        switches = {}
        for kind, key in current:
            if kind == CONFIG:
                question = partial(
                    switch_of, key=key, version=current[kind, key]["version"], now_ns=now_ns
                )
                switches[key] = await self._ask(question)
        fetches = await self._shelf.fetches_of("/configs", 1)
        return await self._page(
            request,
            "served.html",
            status,
            catalogue=catalogue,
            current=sorted(current.items()),
            overridden={
                (kind, key)
                for kind, payload in _PAYLOAD_KINDS.items()
                for of, key in self._desk.overridden
                if of == payload
            },
            switches=switches,
            fetched_ns=fetches[0]["received_unix_ns"] if fetches else 0,
            now_ns=now_ns,
            trouble=trouble,
        )

    async def weights(self, request: Request) -> Response:
        """Change weights, or take a change back; afterwards the browser is sent to what is served."""
        site = request.headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none"):
            raise HTTPException(403, "Weights are changed from this page alone.")
        form = await _form(request)
        kind, key = _PAYLOAD_KINDS.get(form.get("kind", [""])[0], ""), form.get("key", [""])[0]
        try:
            if "revert" in form:
                await self._desk.drop_weights(kind, key)
            else:
                await self._desk.set_weights(kind, key, form.get("weight", []))
        except OverrideError as error:
            return await self.served(request, str(error), 422)
        self._live.changed()
        return RedirectResponse("/ui/served", status_code=303)

    async def host(self, request: Request) -> Response:
        url = f"http://{request.headers.get('host', '')}"
        found = await self._shelf.run(lambda: read_host(self._bases, url))
        now_ns = time.time_ns()
        workers = await self._ask(lambda index: recent_workers(index, now_ns))
        fetches = await self._shelf.fetches_of("/configs", 1)
        return await self._page(
            request,
            "host.html",
            namespaces=found,
            workers=workers,
            fetched_ns=fetches[0]["received_unix_ns"] if fetches else 0,
            now_ns=now_ns,
            bases=self._bases,
        )

    async def _current(self) -> dict[tuple[str, str], dict[str, Any]]:
        catalogue = await self._desk.catalogue()
        return {
            (kind, entry["key"]): entry
            for kind, payload in _PAYLOAD_KINDS.items()
            for entry in catalogue.current(payload)
        }

    async def _page(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> Response:
        problems = (await self._desk.catalogue()).problems
        return self._pages.answer(
            template,
            status,
            path=request.url.path,
            behind=self._indexer.behind,
            problems=problems,
            **values,
        )

    async def _missing(self, request: Request, title: str, what: str) -> Response:
        return await self._page(request, "missing.html", 404, title=title, what=what)


def _asset(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files("fallom.dev.page") / "static" / name).read_bytes()

    async def asset(_: Request) -> Response:
        return Response(content, media_type=kind, headers={**PAGE_HEADERS})

    return asset


async def _form(request: Request) -> Mapping[str, list[str]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Send a form as a browser does.")
    try:
        text = (await read_body(request, _FORM_BYTES_MAX)).decode()
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise HTTPException(400, f"The form cannot be read: {error}") from None
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0
