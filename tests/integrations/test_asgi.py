"""The ASGI middleware: what a request sets ends with it, also where its client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import fallom
from fallom import trace
from fallom._active_span import active_span
from fallom._context import CURRENT_PROMPT, PromptTag
from fallom.integrations.asgi import FallomMiddleware

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def whose() -> str | None:
    session = trace.get_session()
    return None if session is None else str(session["session_id"])


async def nothing(message: Any = None) -> Any:
    return None


async def call(app: Any, kind: str = "http") -> None:
    await app({"type": kind, "headers": []}, nothing, nothing)


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_session_and_a_prompt_that_a_request_set_are_gone_when_it_has_ended(
    kind: str,
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        assert whose() is None
        assert CURRENT_PROMPT.get() is None
        trace.set_session("app", "leaks")
        await asyncio.sleep(0)
        CURRENT_PROMPT.set([PromptTag("hello", 1)])
        assert whose() == "leaks"

    for _ in range(3):  # one task, as of a server that runs all requests of a connection in one
        await call(FallomMiddleware(app), kind)
        assert whose() is None
        assert CURRENT_PROMPT.get() is None


async def test_a_request_sees_the_session_that_surrounds_it_and_leaves_it() -> None:
    seen = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.append(whose())
        await fallom.session("app", "inner").__aenter__()

    async with fallom.session("app", "outer"):
        await call(FallomMiddleware(app))
        assert whose() == "outer"
    assert seen == ["outer"]
    assert whose() is None


async def test_what_the_start_of_a_server_sets_is_left_alone() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        trace.set_session("app", "lifespan")

    await call(FallomMiddleware(app), "lifespan")
    assert whose() == "lifespan"


async def test_a_cancelled_request_ends_its_context() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        trace.set_session("app", "cancelled")
        await asyncio.Event().wait()

    async def serve() -> str | None:
        try:
            await call(FallomMiddleware(app))
        except asyncio.CancelledError:
            return whose()
        return "not cancelled"

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    assert await task is None


async def test_an_error_of_the_application_passes_through_and_ends_the_context() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        trace.set_session("app", "broken")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await call(FallomMiddleware(app))
    assert whose() is None


async def test_requests_of_one_loop_do_not_mix() -> None:
    seen = {}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        trace.set_session("app", scope["path"])
        await asyncio.sleep(0)
        seen[scope["path"]] = whose()

    wrapped = FallomMiddleware(app)
    scopes = [{"type": "http", "headers": [], "path": str(number)} for number in range(10)]
    await asyncio.gather(*(wrapped(scope, nothing, nothing) for scope in scopes))
    assert seen == {scope["path"]: scope["path"] for scope in scopes}


async def test_a_request_is_of_its_caller_s_session_and_trace_if_that_is_asked_for() -> None:
    seen = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        seen.append((whose(), active_span()))

    carried: dict[str, str] = {}
    with fallom.session("app", "caller's"), trace.step("call"):
        trace.inject(carried)
    headers = [(name.encode(), value.encode()) for name, value in carried.items()]
    twice = [*headers, (b"traceparent", carried["traceparent"].encode())]
    for given in (headers, twice):
        scope = {"type": "http", "headers": given}
        await FallomMiddleware(app, extract=True)(scope, nothing, nothing)
        await FallomMiddleware(app)(scope, nothing, nothing)
    _, trace_id, span_id, _ = carried["traceparent"].split("-")
    caller = bytes.fromhex(trace_id), bytes.fromhex(span_id)
    none = (None, None)
    assert seen == [("caller's", caller), none, ("caller's", None), none], "two parents are none"
    assert (whose(), active_span()) == none


async def test_starlette_takes_it_as_its_own() -> None:
    async def page(request: Request) -> PlainTextResponse:
        trace.set_session("app", "starlette")
        return PlainTextResponse("good")

    app = Starlette(routes=[Route("/", page)])
    app.add_middleware(FallomMiddleware)
    sent = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await app(scope, nothing, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert whose() is None
