"""Steps of the application's own: spans that nest, whatever their functions are."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import _runtime, trace
from fallom._active_span import active_span
from fallom._core.span import Span, SpanStatus
from fallom.exceptions import ConfigurationError
from tests.support.spans import recorded_spans

HERE: Any = {f"{name}_url": "http://127.0.0.1:9" for name in ("traces", "configs", "prompts")}


@pytest.fixture(autouse=True)
def _begun() -> None:
    fallom.init(**HERE, flusher="external")


def by_name(state_dir: Path) -> dict[str, Span]:
    spans = recorded_spans(state_dir)
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def check_nested(outer: Span, inner: Span) -> None:
    assert (inner.trace_id, inner.parent_span_id) == (outer.trace_id, outer.span_id)
    assert outer.start_unix_ns <= inner.start_unix_ns <= inner.end_unix_ns <= outer.end_unix_ns


def test_a_block_is_a_span_and_a_block_within_it_its_child(state_dir: Path) -> None:
    with fallom.session("app", "s-1"), trace.step("plan", kind="agent", attributes={"a": 1}):
        with trace.step("search", kind="retrieval") as search:
            search.set_attribute("documents", 3)
            search.set_input("what is it")
            search.set_output(["this", "that"])
        assert active_span() is not None
    assert active_span() is None
    spans = by_name(state_dir)
    plan, search_span = spans["invoke_agent plan"], spans["retrieval search"]
    check_nested(plan, search_span)
    assert plan.parent_span_id == b""
    assert plan.attributes["gen_ai.agent.name"] == "plan"
    assert plan.attributes["a"] == 1
    assert search_span.attributes["documents"] == 3
    assert search_span.attributes["fallom.input"] == "what is it"
    assert search_span.attributes["fallom.output"] == '["this", "that"]'
    assert search_span.attributes["fallom.session_id"] == "s-1"


def test_a_function_s_call_is_a_step_each_time(state_dir: Path) -> None:
    @trace.step("add", kind="tool")
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    assert (add(1), add(2, b=3)) == (2, 5)
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    spans = recorded_spans(state_dir)
    assert [span.name for span in spans] == ["execute_tool add"] * 2
    assert len({span.trace_id for span in spans}) == 2
    assert spans[0].attributes["gen_ai.tool.name"] == "add"


async def test_asynchronous_steps_nest_by_task(state_dir: Path) -> None:
    @trace.step("inner")
    async def inner(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def outer(number: int) -> None:
        async with trace.step(f"outer {number}"):
            assert await asyncio.gather(inner(1), inner(2)) == [1, 2]

    await asyncio.gather(*(outer(number) for number in range(5)))
    spans = recorded_spans(state_dir)
    outers = {span.span_id: span for span in spans if span.name != "inner"}
    inners = [span for span in spans if span.name == "inner"]
    assert len(inners) == 10
    for span in inners:
        check_nested(outers[span.parent_span_id], span)


def test_a_generator_is_active_only_while_its_own_code_runs(state_dir: Path) -> None:
    @trace.step("numbers")
    def numbers() -> Iterator[int]:
        with trace.step("first"):
            pass
        got = yield 1
        assert got == "sent"
        try:
            yield 2
        except KeyError:
            yield 3
        with trace.step("last"):
            pass
        return "end"  # type: ignore[return-value]

    stream: Any = numbers()
    assert next(stream) == 1
    assert active_span() is None
    with trace.step("theirs"):
        assert stream.send("sent") == 2
    assert stream.throw(KeyError) == 3
    assert "numbers" not in by_name(state_dir)
    with pytest.raises(StopIteration) as stopped:
        next(stream)
    assert stopped.value.value == "end"
    spans = by_name(state_dir)
    check_nested(spans["numbers"], spans["first"])
    check_nested(spans["numbers"], spans["last"])
    assert spans["theirs"].parent_span_id == b""
    assert spans["numbers"].status == SpanStatus.UNSET


def test_a_generator_that_is_closed_early_is_no_error(state_dir: Path) -> None:
    closed: list[bool] = []

    @trace.step("numbers")
    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append(active_span() is not None)

    stream: Any = numbers()
    next(stream)
    stream.close()
    assert closed == [True]
    assert by_name(state_dir)["numbers"].status == SpanStatus.UNSET


async def test_what_a_generator_raises_when_it_is_closed_is_on_its_span(state_dir: Path) -> None:
    @trace.step("plain")
    def plain() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("plain")

    @trace.step("asynchronous")
    async def asynchronous() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("asynchronous")

    stream: Any = plain()
    next(stream)
    with pytest.raises(KeyError, match="plain"):
        stream.close()
    stream = asynchronous()
    await anext(stream)
    with pytest.raises(KeyError, match="asynchronous"):
        await stream.aclose()
    errors = {name: span.attributes["error.type"] for name, span in by_name(state_dir).items()}
    assert errors == {"plain": "KeyError", "asynchronous": "KeyError"}


async def test_an_asynchronous_generator_is_a_step(state_dir: Path) -> None:
    @trace.step("numbers")
    async def numbers(fail: bool = False) -> AsyncIterator[int]:
        yield 1
        assert active_span() is not None
        if fail:
            raise KeyError("x")
        yield 2

    found = []
    async for number in numbers():
        found.append(number)
        assert active_span() is None
    assert found == [1, 2]
    stream: Any = numbers()
    await anext(stream)
    await stream.aclose()
    with pytest.raises(KeyError):
        [_ async for _ in numbers(fail=True)]
    spans = recorded_spans(state_dir)
    assert [span.attributes.get("error.type") for span in spans] == [None, None, "KeyError"]


def test_an_error_is_on_the_span_and_reaches_the_caller(state_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError), trace.step("divide"):
        _ = 1 / 0
    span = by_name(state_dir)["divide"]
    assert (span.status, span.attributes["error.type"]) == (SpanStatus.ERROR, "ZeroDivisionError")
    assert span.status_message == "division by zero"


def look_for_a_secret() -> None:
    def look() -> None:
        with trace.step("look", kind="tool") as step:
            step.set_input({"query": "secret"})
            step.set_output("secret")
            raise ValueError("secret")

    with pytest.raises(ValueError, match="secret"):
        look()


def test_in_privacy_mode_no_content_is_recorded(state_dir: Path) -> None:
    fallom.init(**HERE, flusher="external", capture_content=False)
    look_for_a_secret()
    span = by_name(state_dir)["execute_tool look"]
    assert "secret" not in repr(span)


def test_a_mask_sees_content_and_errors(state_dir: Path) -> None:
    fallom.init(**HERE, flusher="external", mask=lambda text: text.replace("secret", "[x]"))
    look_for_a_secret()
    span = by_name(state_dir)["execute_tool look"]
    assert "secret" not in repr(span)
    assert "[x]" in span.status_message


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'tools'; expected one of 'tool'"):
        trace.step("x", kind="tools")  # type: ignore[arg-type]


def test_a_decorator_without_parentheses_is_refused() -> None:
    def weather(city: str) -> str:
        return f"Sun in {city}"

    with pytest.raises(TypeError, match="name must be a string, not function"):
        trace.step(weather)  # type: ignore[arg-type]  # else no call would run it


def test_a_step_joins_opentelemetry_s_span_and_is_the_parent_of_those_within(
    state_dir: Path,
) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    from fallom.opentelemetry import FallomSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(FallomSpanProcessor())
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("request"), trace.step("ours"):
        with tracer.start_as_current_span("query"):
            pass
        with trace.step("deeper"):
            pass
    spans = by_name(state_dir)
    check_nested(spans["request"], spans["ours"])
    check_nested(spans["ours"], spans["query"])
    check_nested(spans["ours"], spans["deeper"])


def test_opentelemetry_that_another_thread_is_just_importing_is_not_loaded_yet(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import trace as otel

    begun = types.ModuleType("opentelemetry.trace")
    for name in ("get_current_span", "set_span_in_context"):  # what its first lines import
        setattr(begun, name, getattr(otel, name))
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", begun)
    with trace.step("x"):
        pass
    assert by_name(state_dir)["x"].status == SpanStatus.UNSET


def test_a_foreign_span_that_says_too_little_costs_its_link_and_not_the_step(
    state_dir: Path,
) -> None:
    from opentelemetry import context as otel_context
    from opentelemetry import trace as otel

    class Foreign(otel.NonRecordingSpan):
        def get_span_context(self) -> Any:
            return types.SimpleNamespace(trace_id=1, span_id=2, is_valid=True)

    foreign = otel.set_span_in_context(Foreign(otel.INVALID_SPAN_CONTEXT))
    token = otel_context.attach(foreign)
    try:
        with trace.step("x"):
            assert otel_context.get_current() is foreign
    finally:
        otel_context.detach(token)
    assert active_span() is None
    assert by_name(state_dir)["x"].trace_id == (1).to_bytes(16, "big")
    assert fallom.status()["dropped"] == {"internal": 1}


def test_a_fault_of_ours_costs_the_span_and_not_the_step(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(_runtime.Runtime, "record_span", break_down)
    with trace.step("x"):
        pass
    monkeypatch.setattr("fallom._step.new_span_id", break_down)
    with trace.step("y") as step:
        step.set_attribute("a", 1)
    assert recorded_spans(state_dir) == []
    assert fallom.status()["dropped"] == {"internal": 2}
