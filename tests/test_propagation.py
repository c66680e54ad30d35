"""Session and active span across processes, threads and pools, and what contexts do by themselves."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import multiprocessing
import pickle
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import fallom
from fallom import trace
from fallom._active_span import active_span, parent_here
from fallom._context import CURRENT_PROMPT, PromptTag
from tests.support.spans import recorded_spans

HERE: Any = {f"{name}_url": "http://127.0.0.1:9" for name in ("traces", "configs", "prompts")}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
SESSION = '{"config_key":"app","session_id":"s-1"}'
METADATA = {"deployment": "eu", "n": 1}


@pytest.fixture(autouse=True)
def _begun() -> None:
    fallom.init(**HERE, flusher="external")


def session_id() -> str | None:
    """What a function of an application sees."""
    session = trace.get_session()
    return None if session is None else session["session_id"]


# Sessions.


def test_a_session_whose_generator_the_collector_closes_elsewhere_changes_nothing_there() -> None:
    def streamed() -> Iterator[int]:
        with fallom.session("app", "s-other"):
            yield 1

    def begin() -> None:
        stream = streamed()
        next(stream)
        held.append(stream)

    held: list[Iterator[int]] = []
    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    with fallom.session("app", "s-1"):
        held.clear()
        assert session_id() == "s-1"
        with fallom.session("app", "s-2"):
            assert session_id() == "s-2"
        assert session_id() == "s-1"
    assert session_id() is None


def test_a_session_whose_generator_is_dropped_within_a_later_one_leaves_that_as_it_is() -> None:
    def streamed() -> Iterator[int]:
        with fallom.session("app", "s-other"):
            yield 1

    stream = streamed()
    next(stream)
    assert session_id() == "s-other"
    with fallom.session("app", "s-1"), fallom.session("app", "s-2"):
        del stream
        assert session_id() == "s-2"
    assert session_id() is None


def test_a_session_whose_generator_is_dropped_leaves_one_that_was_carried_here() -> None:
    def streamed() -> Iterator[int]:
        with fallom.session("app", "s-other"):
            yield 1

    stream = streamed()
    next(stream)
    with trace.extract({"fallom": SESSION}):
        del stream
        assert session_id() == "s-1"


def test_a_session_that_was_entered_within_another_and_never_left_ends_with_it() -> None:
    forgotten, session = fallom.session("app", "s-forgotten"), fallom.session("app", "s-1")
    with session, session:
        forgotten.__enter__()
        assert session_id() == "s-forgotten"
    assert session_id() is None
    forgotten.__exit__(None, None, None)
    assert session_id() is None


# Headers.


def test_what_is_injected_is_extracted(state_dir: Path) -> None:
    headers: dict[str, str] = {"other": "stays"}
    with fallom.session("app", "s-1", "c-1", METADATA, ["t"]), trace.step("request"):
        before = trace.get_session()
        trace.inject(headers)
    assert sorted(headers) == ["fallom", "other", "traceparent"]
    assert trace.get_session() is None
    with trace.extract(headers), trace.step("task"):
        assert trace.get_session() == before
    assert trace.get_session() is None
    assert active_span() is None
    request, task = recorded_spans(state_dir)
    assert (task.trace_id, task.parent_span_id) == (request.trace_id, request.span_id)
    assert task.attributes["fallom.session_id"] == "s-1"
    assert task.attributes["fallom.customer_id"] == "c-1"
    assert task.attributes["fallom.metadata.n"] == 1
    assert task.attributes["fallom.tags"] == ["t"]


def test_nothing_is_injected_where_there_is_nothing() -> None:
    headers: dict[str, str] = {}
    trace.inject(headers)
    assert headers == {}


@pytest.mark.parametrize("has_opentelemetry", [True, False])
def test_headers_whose_generator_is_dropped_within_later_ones_leave_those_as_they_are(
    monkeypatch: pytest.MonkeyPatch, has_opentelemetry: bool
) -> None:
    if not has_opentelemetry:
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    before = otel.get_current_span()
    other = TRACEPARENT.replace(TRACE_ID, "ab" * 16)

    def streamed() -> Iterator[int]:
        with trace.extract({"traceparent": other, "fallom": SESSION.replace("s-1", "s-other")}):
            yield 1

    stream = streamed()
    next(stream)
    with trace.extract({"traceparent": TRACEPARENT, "fallom": SESSION}):
        del stream
        assert session_id() == "s-1"
        found = active_span()
        assert found is not None
        assert found[0].hex() == TRACE_ID
    assert session_id() is None
    assert active_span() is None
    assert otel.get_current_span() is before


class Refusing(otel.NonRecordingSpan):
    """A span of some tracer's own class whose context cannot be asked for."""

    def __init__(self) -> None:
        super().__init__(otel.INVALID_SPAN_CONTEXT)

    def get_span_context(self) -> otel.SpanContext:
        raise RuntimeError


class Odd(Refusing):
    """One whose context is not what OpenTelemetry says."""

    def get_span_context(self) -> Any:
        return SimpleNamespace(
            is_valid=True, trace_id="a", span_id=None, trace_flags="", trace_state=1
        )


@pytest.mark.parametrize("kind", [Refusing, Odd])
def test_a_span_that_cannot_be_asked_is_no_trouble_of_the_application(kind: type[Refusing]) -> None:
    mine = kind()
    with otel.use_span(mine):
        headers: dict[str, str] = {}
        with fallom.session("app", "s-1"), trace.step("request"):
            trace.inject(headers)
            assert trace.propagate(session_id)() == "s-1"
        assert "s-1" in headers["fallom"]
        with trace.extract({"traceparent": TRACEPARENT, "fallom": SESSION}):
            assert session_id() == "s-1"
        assert session_id() is None
        assert otel.get_current_span() is mine


def test_a_request_to_somebody_else_has_no_session_in_it() -> None:
    headers: dict[str, str] = {}
    with fallom.session("app", "whose-session", "whose-customer"), trace.step("request"):
        trace.inject(headers, with_session=False)
    assert list(headers) == ["traceparent"]
    assert "whose" not in str(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "nonsense", "fallom": "{", "tracestate": "\n"},
        {"traceparent": None, "fallom": 3},
        {1: 2, None: None},
        {},
        None,
        "traceparent",
    ],
)
def test_bad_headers_change_nothing(headers: Any) -> None:
    with fallom.session("app", "outer"), trace.step("outer"):
        here = active_span()
        with trace.extract(headers):
            assert (session_id(), active_span()) == ("outer", here)


def test_a_block_of_headers_is_left_as_it_was_found() -> None:
    with fallom.session("app", "outer"), trace.step("outer"):
        here = active_span()
        with trace.extract({"fallom": SESSION, "traceparent": TRACEPARENT}):
            trace.set_session("app", "set-within")
            CURRENT_PROMPT.set([PromptTag("p", 1)])
        assert (session_id(), active_span(), CURRENT_PROMPT.get()) == ("outer", here, None)


async def test_concurrent_blocks_of_headers_are_apart() -> None:
    async def handle(number: int) -> None:
        text = SESSION.replace("s-1", f"s-{number}")
        async with trace.extract({"fallom": text}):
            await asyncio.sleep(0)
            assert session_id() == f"s-{number}"
        assert session_id() is None

    await asyncio.gather(*(handle(number) for number in range(20)))


def test_a_block_that_is_left_in_another_context_changes_nothing_there() -> None:
    def numbers() -> Iterator[int]:
        with trace.extract({"fallom": SESSION, "traceparent": TRACEPARENT}):
            yield 1

    stream: Any = numbers()
    contextvars.Context().run(next, stream)
    with fallom.session("app", "outer"), trace.step("outer"):
        here = active_span()
        stream.close()
        assert (session_id(), active_span()) == ("outer", here)


# OpenTelemetry.


@pytest.fixture
def tracer() -> otel.Tracer:
    return TracerProvider(shutdown_on_exit=False).get_tracer("app")


def test_an_active_span_of_opentelemetry_is_what_is_injected(tracer: otel.Tracer) -> None:
    ours: dict[str, str] = {}
    theirs: dict[str, str] = {}
    state = otel.TraceState([("vendor", "1"), ("other", "x y")])
    ids = otel.SpanContext(5, 6, True, otel.TraceFlags(1), state)
    with (
        otel.use_span(otel.NonRecordingSpan(ids)),
        tracer.start_as_current_span("request"),
    ):
        trace.inject(ours)
        TraceContextTextMapPropagator().inject(theirs)
    assert ours == theirs
    assert ours["tracestate"] == "vendor=1,other=x y"


def test_opentelemetry_reads_what_a_step_injects() -> None:
    headers: dict[str, str] = {}
    with trace.step("request"):
        here = active_span()
        trace.inject(headers)
    read = otel.get_current_span(TraceContextTextMapPropagator().extract(headers))
    assert here is not None
    assert read.get_span_context().trace_id == int.from_bytes(here[0], "big")
    assert read.get_span_context().span_id == int.from_bytes(here[1], "big")


def test_spans_of_opentelemetry_are_children_of_an_extracted_span(tracer: otel.Tracer) -> None:
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    with trace.extract(headers):
        assert otel.get_current_span().get_span_context().is_remote
        with tracer.start_as_current_span("task") as span:
            onward: dict[str, str] = {}
            trace.inject(onward)
        with trace.step("step"):
            stepped: dict[str, str] = {}
            trace.inject(stepped)
    assert span.get_span_context().trace_id == int(TRACE_ID, 16)
    for sent in (onward, stepped):
        assert sent["traceparent"].startswith(f"00-{TRACE_ID}-")
        assert sent["traceparent"] != TRACEPARENT
        assert sent["tracestate"] == "vendor=1"
    assert not otel.get_current_span().get_span_context().is_valid


def test_a_nearer_span_of_the_same_trace_stays_the_parent(tracer: otel.Tracer) -> None:
    parent = TraceContextTextMapPropagator().extract({"traceparent": TRACEPARENT})
    with tracer.start_as_current_span("consumer", parent) as consumer:
        with trace.extract({"traceparent": TRACEPARENT}):
            assert otel.get_current_span() is consumer
        assert otel.get_current_span() is consumer


def test_who_detaches_later_than_we_do_brings_nothing_of_ours_back(tracer: otel.Tracer) -> None:
    """Signals of Celery come to its OpenTelemetry instrumentation after us, at the end as well."""
    block = trace.extract({"traceparent": TRACEPARENT})
    block.__enter__()
    token = otel_context.attach(baggage.set_baggage("a", "b"))
    block.__exit__(None, None, None)
    otel_context.detach(token)
    with trace.extract({}):
        assert not otel.get_current_span().get_span_context().is_valid
        assert active_span() is None


def test_who_detaches_earlier_than_we_do_is_not_undone(tracer: otel.Tracer) -> None:
    token = otel_context.attach(otel.set_span_in_context(tracer.start_span("theirs")))
    block = trace.extract({"traceparent": TRACEPARENT})
    block.__enter__()
    otel_context.detach(token)
    block.__exit__(None, None, None)
    assert not otel.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("headers", [{"traceparent": TRACEPARENT}, {}])
def test_a_step_that_was_left_open_within_a_block_ends_with_it(headers: dict[str, str]) -> None:
    with trace.extract(headers):
        trace.step("left open").__enter__()
    assert active_span() is None
    assert not otel.get_current_span().get_span_context().is_valid


def test_state_and_flags_go_on_where_opentelemetry_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fallom._active_span._loaded", lambda: (None, None))
    headers = {"traceparent": TRACEPARENT[:-2] + "00", "tracestate": "vendor=1"}
    sent: dict[str, str] = {}
    with trace.extract(headers), trace.step("step"):
        trace.inject(sent)
    assert sent["traceparent"][:36] == TRACEPARENT[:36]
    assert sent["traceparent"].endswith("-00")
    assert sent["tracestate"] == "vendor=1"
    with trace.step("another trace"):
        trace.inject(fresh := {})
    assert list(fresh) == ["traceparent"]
    assert fresh["traceparent"].endswith("-01")


# What contexts do by themselves, and ``propagate``.


def test_a_new_thread_has_no_session_and_one_that_is_given_it_has() -> None:
    seen: list[str | None] = []
    with fallom.session("app", "s-1"):
        for target in (session_id, trace.propagate(session_id)):
            thread = threading.Thread(target=lambda target=target: seen.append(target()))
            thread.start()
            thread.join()
    assert seen == [None, "s-1"]


async def test_asyncio_copies_the_context_but_run_in_executor_does_not() -> None:
    async def in_task() -> str | None:
        trace.set_session("app", "of the task")
        return session_id()

    loop = asyncio.get_running_loop()
    with fallom.session("app", "s-1"):
        assert await asyncio.to_thread(session_id) == "s-1"
        assert await asyncio.create_task(in_task()) == "of the task"
        assert session_id() == "s-1"
        assert await loop.run_in_executor(None, session_id) is None
        assert await loop.run_in_executor(None, trace.propagate(session_id)) == "s-1"


def test_work_in_a_pool_is_its_submitter_s_and_leaves_nothing_behind(state_dir: Path) -> None:
    barrier = threading.Barrier(4)

    def work() -> str | None:
        barrier.wait(20)  # all at once, and each in a thread of its own
        with trace.step("work"):
            return session_id()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = []
        for number in range(4):
            with fallom.session("app", f"s-{number}"), trace.step("request"):
                found.append(pool.submit(trace.propagate(work)))
        assert [each.result(20) for each in found] == [f"s-{number}" for number in range(4)]
        left = [
            pool.submit(lambda: (barrier.wait(20), session_id(), active_span())) for _ in "abcd"
        ]
        assert [each.result(20)[1:] for each in left] == [(None, None)] * 4
    spans = recorded_spans(state_dir)
    requests = {span.span_id: span for span in spans if span.name == "request"}
    works = [span for span in spans if span.name == "work"]
    assert len(works) == 4
    for work_span in works:
        request = requests[work_span.parent_span_id]
        assert work_span.trace_id == request.trace_id
        assert work_span.attributes["fallom.session_id"] == request.attributes["fallom.session_id"]


def test_one_propagated_function_may_run_in_many_threads_and_within_itself() -> None:
    with fallom.session("app", "s-1"):
        seen = trace.propagate(session_id)

        def nested(depth: int) -> str | None:
            return again(depth - 1) if depth else seen()

        again = trace.propagate(nested)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(again, [3] * 50)) == {"s-1"}


def test_what_was_propagated_from_nowhere_has_no_session_anywhere() -> None:
    function = trace.propagate(session_id)
    spans = trace.propagate(active_span)
    with fallom.session("app", "s-1"), trace.step("request"):
        assert function() is None
        assert spans() is None
        assert session_id() == "s-1"


def test_a_propagated_function_is_the_child_of_the_span_that_it_was_given(
    tracer: otel.Tracer,
) -> None:
    with tracer.start_as_current_span("one") as one:
        here = active_span()
        function = trace.propagate(active_span)
    with otel.use_span(otel.NonRecordingSpan(one.get_span_context())), trace.step("sibling"):
        assert active_span() != here
        assert function() == here
        remote = trace.propagate(lambda: otel.get_current_span().get_span_context().is_remote)
        assert remote() is False


def test_a_prompt_tags_one_call_wherever_it_is_made() -> None:
    CURRENT_PROMPT.set([PromptTag("p", 1)])
    function = trace.propagate(CURRENT_PROMPT.get)
    CURRENT_PROMPT.set(None)
    assert function() == [PromptTag("p", 1)]
    assert pickle.loads(pickle.dumps(trace.propagate(session_id)))._prompt is None


async def test_coroutine_functions_and_generators_keep_what_they_are() -> None:
    with fallom.session("app", "s-1"):

        @trace.propagate
        async def coroutine() -> list[str | None]:
            first = session_id()
            await asyncio.sleep(0)
            return [first, session_id()]

        @trace.propagate
        def generator(fail: bool = False) -> Iterator[Any]:
            got = yield session_id()
            try:
                yield (got, session_id())
            except KeyError:
                yield session_id()
            return "end"  # type: ignore[return-value]

        @trace.propagate
        async def asynchronous() -> AsyncIterator[str | None]:
            yield session_id()
            await asyncio.sleep(0)
            yield session_id()

    assert asyncio.iscoroutinefunction(coroutine)
    assert await coroutine() == ["s-1", "s-1"]
    assert await asyncio.gather(coroutine(), coroutine()) == [["s-1", "s-1"]] * 2
    stream: Any = generator()
    assert next(stream) == "s-1"
    assert session_id() is None
    assert stream.send("sent") == ("sent", "s-1")
    assert stream.throw(KeyError) == "s-1"
    with pytest.raises(StopIteration) as stopped:
        next(stream)
    assert stopped.value.value == "end"
    found = []
    async for each in asynchronous():
        found.append((each, session_id()))
    assert found == [("s-1", None)] * 2
    early: Any = generator()
    next(early)
    early.close()
    started: Any = asynchronous()
    await anext(started)
    await started.aclose()
    assert session_id() is None


def test_errors_of_a_propagated_function_are_its_own_and_the_context_is_left() -> None:
    def fail() -> None:
        raise KeyError("theirs")

    with fallom.session("app", "s-1"):
        function = trace.propagate(fail)
    with pytest.raises(KeyError, match="theirs"):
        function()
    assert session_id() is None
    assert function.__name__ == "fail"


def in_process() -> tuple[str | None, Any]:
    """Importable, so that a pool of processes can have it."""
    return session_id(), active_span()


def test_a_plain_function_takes_its_context_to_a_pool_of_processes() -> None:
    with fallom.session("app", "s-1", metadata={"a": [1]}), trace.step("request"):
        here = active_span()
        function = trace.propagate(in_process)
    copied = pickle.loads(pickle.dumps(function))
    assert copied() == ("s-1", here)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(function).result(60) == ("s-1", here)
        assert pool.submit(in_process).result(60) == (None, None)


def test_a_parent_is_told_with_its_flags() -> None:
    with trace.extract({"traceparent": TRACEPARENT}):
        parent = parent_here()
        assert parent is not None
        assert parent.flags == 1
