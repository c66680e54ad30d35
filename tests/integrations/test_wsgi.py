"""The WSGI middleware: what a request sets ends with it, and servers see the answer that they know."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.simple_server import make_server
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

import fallom
from fallom import trace
from fallom._active_span import active_span
from fallom._context import CURRENT_PROMPT, PromptTag
from fallom.integrations.wsgi import FallomMiddleware

StartResponse = Callable[..., Any]


def call(app: Any, **environ: Any) -> Any:
    """Begin one request as a server does."""
    given: dict[str, Any] = dict(environ)
    setup_testing_defaults(given)
    return app(given, lambda status, headers, exc_info=None: lambda written: None)


def whose() -> str | None:
    session = trace.get_session()
    return None if session is None else str(session["session_id"])


def test_a_session_and_a_prompt_that_a_request_set_are_gone_when_it_has_returned() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        assert whose() is None
        assert CURRENT_PROMPT.get() is None
        trace.set_session("app", "leaks")
        CURRENT_PROMPT.set([PromptTag("hello", 1)])
        return [b"done"]

    wrapped = FallomMiddleware(app)
    for _ in range(3):
        assert call(wrapped) == [b"done"]
        assert whose() is None
        assert CURRENT_PROMPT.get() is None


def test_a_session_entered_and_never_left_is_gone_with_its_request() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        fallom.session("app", "entered").__enter__()
        return []

    call(FallomMiddleware(app))
    assert whose() is None
    with fallom.session("app", "outer"):
        call(FallomMiddleware(app))
        assert whose() == "outer"
    assert whose() is None


def test_a_request_sees_the_session_that_surrounds_it_and_leaves_it() -> None:
    seen = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        seen.append(whose())
        trace.set_session("app", "inner")
        return []

    with fallom.session("app", "outer"):
        call(FallomMiddleware(app))
        assert whose() == "outer"
    assert seen == ["outer"]


class Streamed:
    """An answer in parts that notes whose session it is at each of them."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Streamed:
        trace.set_session("app", "streamed")
        return self

    def __iter__(self) -> Iterator[bytes]:
        self.seen.append(whose())
        yield b"one"
        self.seen.append(whose())
        trace.set_session("app", "changed")
        yield b"two"
        self.seen.append(whose())

    def close(self) -> None:
        self.seen.append(whose())


def test_the_parts_of_an_answer_and_its_end_are_made_with_the_context_of_the_request() -> None:
    app = Streamed()
    body = call(FallomMiddleware(app))
    assert whose() is None
    for _ in body:
        assert whose() is None
    body.close()
    assert whose() is None
    assert app.seen == ["streamed", "streamed", "changed", "changed"]


def test_two_streamed_answers_by_turns_in_one_thread_do_not_mix() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        trace.set_session("app", environ["PATH_INFO"])
        for _ in range(3):
            yield str(whose()).encode()

    wrapped = FallomMiddleware(app)
    first, second = call(wrapped, PATH_INFO="/1"), call(wrapped, PATH_INFO="/2")
    parts = [(next(first), next(second)) for _ in range(3)]
    assert parts == [(b"/1", b"/2")] * 3
    assert whose() is None


def test_an_answer_that_a_server_reads_in_another_thread_keeps_its_context() -> None:
    app = Streamed()
    body = call(FallomMiddleware(app))
    thread = threading.Thread(target=lambda: [*body, body.close()])
    thread.start()
    thread.join()
    assert app.seen == ["streamed", "streamed", "changed", "changed"]


def test_an_answer_that_is_given_up_leaves_nothing_behind() -> None:
    body = call(FallomMiddleware(Streamed()))
    next(body)
    assert whose() is None
    del body  # never closed
    assert whose() is None


@pytest.mark.parametrize("at", ["call", "part", "close"])
def test_an_error_of_the_application_passes_through_and_ends_the_context(at: str) -> None:
    class Broken(Streamed):
        def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Streamed:
            trace.set_session("app", "broken")
            if at == "call":
                raise LookupError(at)
            return self

        def __iter__(self) -> Iterator[bytes]:
            if at == "part":
                raise LookupError(at)
            return iter([])

        def close(self) -> None:
            raise LookupError("close")

    def serve() -> None:
        body = call(FallomMiddleware(Broken()))
        list(body)
        body.close()

    with pytest.raises(LookupError, match=at):
        serve()
    assert whose() is None


def carried() -> dict[str, str]:
    """Give the headers of a request that another service makes, as a server gives them to WSGI."""
    headers: dict[str, str] = {}
    with fallom.session("app", "caller's"), trace.step("call"):
        trace.inject(headers)
    return {f"HTTP_{name.upper()}": value for name, value in headers.items()}


def test_a_request_is_of_its_caller_s_session_and_trace_if_that_is_asked_for() -> None:
    seen = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        seen.append((whose(), active_span()))
        yield b"one"
        trace.set_session("app", "changed")
        yield b"two"
        seen.append((whose(), active_span()))

    headers = carried()
    list(call(FallomMiddleware(app, extract=True), **headers))
    assert (whose(), active_span()) == (None, None)
    _, trace_id, span_id, _ = headers["HTTP_TRACEPARENT"].split("-")
    caller = bytes.fromhex(trace_id), bytes.fromhex(span_id)
    assert seen == [("caller's", caller), ("changed", caller)]
    seen.clear()
    list(call(FallomMiddleware(app), **headers))
    assert seen == [(None, None), ("changed", None)], "not asked for: anybody can write them"


@pytest.mark.parametrize("extract", [False, True])
def test_a_step_that_is_open_between_the_parts_of_an_answer_is_active_in_each(
    extract: bool,
) -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        before = active_span()
        with trace.step("answer", kind="agent"):
            step = active_span()
            yield b"one"
            assert active_span() == step
            yield b"two"
            assert active_span() == step
        assert active_span() == before
        yield b"three"
        assert active_span() == before

    headers = carried()
    for _ in range(2):
        for _part in call(FallomMiddleware(app, extract=extract), **headers):
            assert active_span() is None


def test_a_step_that_was_left_open_is_gone_with_its_request() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        trace.step("left open").__enter__()
        return []

    call(FallomMiddleware(app))
    assert active_span() is None
    with trace.step("around"):
        around = active_span()
        call(FallomMiddleware(app))
        assert active_span() == around


@pytest.mark.parametrize("header", ["TRACEPARENT", "FALLOM"])
def test_a_damaged_header_is_as_good_as_none(header: str) -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        return [str(whose()).encode(), str(active_span()).encode()]

    given = {f"HTTP_{header}": "\xff,{]", "HTTP_TRACESTATE": "="}
    assert call(FallomMiddleware(app, extract=True), **given) == [b"None", b"None"]


def test_an_answer_that_runs_no_code_is_passed_on_as_it_is() -> None:
    with open(__file__, "rb") as opened:
        for answer in ([b"x"], (b"x",), FileWrapper(io.BytesIO(b"x")), opened):
            app = FallomMiddleware(lambda environ, start_response, answer=answer: answer)
            assert call(app, **{"wsgi.file_wrapper": FileWrapper}) is answer


def test_it_keeps_to_the_protocol() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one "
        yield b"two"

    wrapped = validator(FallomMiddleware(validator(app)))
    with make_server("127.0.0.1", 0, wrapped) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as answer:
            assert answer.read() == b"one two"
        thread.join()
