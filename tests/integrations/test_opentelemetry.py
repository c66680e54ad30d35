"""OpenTelemetry's spans in the spool: of the real SDK, across forks, with a session's attributes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult

import fallom
from fallom import _runtime, prompts
from fallom._context import CURRENT_PROMPT, PromptTag
from fallom._core.span import Span, span_of
from fallom.opentelemetry import FallomSpanExporter, FallomSpanProcessor
from tests.support.spans import recorded_spans

RESOURCE = Resource({"service.name": "shop", "deployment.environment": "test", "process.pid": 1})


@pytest.fixture(autouse=True)
def _begun() -> None:
    here = "http://127.0.0.1:9"
    fallom.init(traces_url=here, configs_url=here, prompts_url=here, flusher="external")


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(FallomSpanProcessor())
    yield provider
    provider.shutdown()


@pytest.fixture
def tracer(provider: TracerProvider) -> otel.Tracer:
    return provider.get_tracer(
        "shop.http", "1.2", schema_url="https://schema/1", attributes={"a": 1}
    )


def the_span(state_dir: Path) -> Span:
    (span,) = recorded_spans(state_dir)
    return span


def test_a_span_is_in_the_spool_when_it_has_ended(tracer: otel.Tracer, state_dir: Path) -> None:
    remote = otel.SpanContext(
        7,
        8,
        is_remote=True,
        trace_flags=otel.TraceFlags(1),
        trace_state=otel.TraceState([("k", "v")]),
    )
    parent = otel.set_span_in_context(otel.NonRecordingSpan(remote))
    link = otel.Link(otel.SpanContext(5, 6, is_remote=True), {"why": "batch"})
    span = tracer.start_span(
        "GET /cart", parent, otel.SpanKind.SERVER, {"n": 1, "l": (1, 2)}, [link]
    )
    span.add_event("cache", {"hit": True}, timestamp=99)
    span.set_status(otel.StatusCode.ERROR, "it broke")
    assert recorded_spans(state_dir) == []
    span.end()
    found = the_span(state_dir)
    context: Any = span.get_span_context()
    assert found.trace_id == (7).to_bytes(16, "big")
    assert found.span_id == context.span_id.to_bytes(8, "big")
    assert found.parent_span_id == (8).to_bytes(8, "big")
    assert (found.name, found.kind, found.status) == ("GET /cart", 2, 2)
    assert found.status_message == "it broke"
    assert found.attributes == {"n": 1, "l": [1, 2]}
    assert found.start_unix_ns == span.start_time  # type: ignore[attr-defined]
    assert found.end_unix_ns == span.end_time  # type: ignore[attr-defined]
    assert [tuple(event) for event in found.events] == [(99, "cache", {"hit": True})]
    (linked,) = found.links
    assert (linked.trace_id, linked.span_id) == ((5).to_bytes(16, "big"), (6).to_bytes(8, "big"))
    assert linked.attributes == {"why": "batch"}
    assert found.trace_state == "k=v"
    assert found.flags == 0x301
    assert tuple(found.scope) == ("shop.http", "1.2", "https://schema/1", {"a": 1})
    assert found.resource["service.name"] == "shop"
    assert "process.pid" not in found.resource  # the recording process's own stays


def test_what_the_sdk_dropped_is_counted(state_dir: Path) -> None:
    from opentelemetry.sdk.trace import SpanLimits

    limits = SpanLimits(max_span_attributes=1, max_events=1)
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(FallomSpanProcessor())
    with provider.get_tracer("t").start_as_current_span("s", attributes={"a": 1, "b": 2}) as span:
        span.add_event("one")
        span.add_event("two")
    assert tuple(the_span(state_dir).dropped) == (1, 1, 0)


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        (1.7e18, 1_700_000_000_000_000_000),
        (1_700_000_000.5, 1_700_000_000),
        (1 << 70, (1 << 63) - 1),
    ],
)
def test_times_that_are_no_whole_nanoseconds_are_recorded_as_such(
    tracer: otel.Tracer, state_dir: Path, given: Any, recorded: int
) -> None:
    span = tracer.start_span("s", start_time=given)
    span.add_event("e", timestamp=given)
    span.end(given)
    found = the_span(state_dir)
    assert [found.start_unix_ns, found.end_unix_ns, found.events[0].unix_ns] == [recorded] * 3


def test_names_that_are_no_text_are_recorded_as_such(
    provider: TracerProvider, state_dir: Path
) -> None:
    no_text: Any = 5
    span = provider.get_tracer("t", no_text).start_span(no_text)
    span.add_event(no_text)
    span.end()
    found = the_span(state_dir)
    assert (found.name, found.events[0].name, found.scope.version) == ("5", "5", "5")


def test_a_time_that_is_no_number_costs_the_span_and_is_counted(
    tracer: otel.Tracer, state_dir: Path
) -> None:
    no_time: Any = float("nan")
    tracer.start_span("s", start_time=no_time).end()
    assert recorded_spans(state_dir) == []
    assert fallom.status()["dropped"] == {"internal": 1}


def test_a_service_name_that_nobody_gave_is_not_that_of_the_process(state_dir: Path) -> None:
    provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
    provider.add_span_processor(FallomSpanProcessor())
    provider.get_tracer("t").start_span("s").end()
    assert "service.name" not in the_span(state_dir).resource


def test_a_span_has_the_session_of_the_context_it_began_in(
    tracer: otel.Tracer, state_dir: Path
) -> None:
    with fallom.session("app", "s-1", customer_id="c-1", tags=["t"]):
        span = tracer.start_span("inside")
    span.end()
    tracer.start_span("outside").end()
    inside, outside = recorded_spans(state_dir)
    assert inside.attributes["fallom.session_id"] == "s-1"
    assert inside.attributes["fallom.customer_id"] == "c-1"
    assert inside.attributes["fallom.tags"] == ["t"]
    assert "fallom.session_id" not in outside.attributes


def test_set_session_is_on_the_spans_that_follow(tracer: otel.Tracer, state_dir: Path) -> None:
    fallom.trace.set_session("app", "s-2")
    tracer.start_span("x").end()
    assert the_span(state_dir).attributes["fallom.session_id"] == "s-2"


@pytest.mark.parametrize(
    ("name", "attributes", "takes"),
    [
        ("chat gpt-4o", {"gen_ai.operation.name": "chat"}, True),
        ("generate_content g", {"gen_ai.operation.name": "generate_content"}, True),
        ("openai.chat", {"llm.request.type": "chat"}, True),
        ("embeddings e", {"gen_ai.operation.name": "embeddings"}, False),
        ("execute_tool t", {"gen_ai.operation.name": "execute_tool"}, False),
        ("GET", {}, False),
    ],
)
def test_the_prompt_tag_goes_to_the_next_generative_span_alone(
    tracer: otel.Tracer, state_dir: Path, name: str, attributes: Any, takes: bool
) -> None:
    CURRENT_PROMPT.set([PromptTag("greeting", 3, "ab", 1)])
    for _ in range(2):
        tracer.start_span(name, kind=otel.SpanKind.CLIENT, attributes=attributes).end()
    first, second = recorded_spans(state_dir)
    assert ("fallom.prompt_key" in first.attributes) is takes
    if takes:
        assert first.attributes["fallom.prompt_variant"] == 1
    assert "fallom.prompt_key" not in second.attributes


def test_the_exporter_records_what_it_is_handed(state_dir: Path) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(FallomSpanExporter()))
    provider.get_tracer("t").start_span("s").end()
    assert the_span(state_dir).name == "s"
    assert provider.force_flush()
    provider.shutdown()


class RecordOnly(Sampler):
    """Has spans recorded for processors in the application, and not sent."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        return "record only"


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, RecordOnly()], ids=["off", "record only"])
def test_a_span_that_its_sampler_left_out_is_not_recorded(
    state_dir: Path, sampler: Sampler
) -> None:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(FallomSpanProcessor())
    provider.get_tracer("t").start_span("s").end()
    assert recorded_spans(state_dir) == []


def test_only_llm_leaves_other_spans_to_others(state_dir: Path) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(FallomSpanProcessor(only_llm=True))
    provider.get_tracer("opentelemetry.instrumentation.flask").start_span("GET /").end()
    provider.get_tracer("mine").start_span("a", attributes={"gen_ai.operation.name": "chat"}).end()
    provider.get_tracer("opentelemetry.instrumentation.openai.v1").start_span("b").end()
    assert [span.name for span in recorded_spans(state_dir)] == ["a", "b"]


CONTENT = {
    "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"secret \\"x\\""}]}]',
    "gen_ai.prompt.0.content": "secret",
    "gen_ai.completion.0.content": "secret",
    "gen_ai.tool.call.arguments": "secret",
    "traceloop.entity.input": "secret",
    "llm.prompts.0": "secret",
    "input.value": "secret",
    "gen_ai.prompt.name": "greeting",
    "gen_ai.request.model": "gpt-4o",
}


def say_secret(tracer: otel.Tracer) -> None:
    with (
        pytest.raises(ValueError, match="secret"),
        tracer.start_as_current_span("s", attributes=CONTENT),
    ):
        raise ValueError("the provider said: secret")


def test_privacy_mode_leaves_the_content_of_instrumentations_out(
    tracer: otel.Tracer, state_dir: Path
) -> None:
    here = "http://127.0.0.1:9"
    fallom.init(
        traces_url=here,
        configs_url=here,
        prompts_url=here,
        flusher="external",
        capture_content=False,
    )
    say_secret(tracer)
    span = the_span(state_dir)
    assert "secret" not in repr(span)
    assert span.attributes == {"gen_ai.prompt.name": "greeting", "gen_ai.request.model": "gpt-4o"}
    assert span.events[0].attributes["exception.type"] == "ValueError"


def test_a_mask_sees_the_content_of_instrumentations(tracer: otel.Tracer, state_dir: Path) -> None:
    import json

    here = "http://127.0.0.1:9"
    fallom.init(
        traces_url=here,
        configs_url=here,
        prompts_url=here,
        flusher="external",
        mask=lambda text: text.replace('secret "x"', 'a "mask"').replace("secret", "mask"),
    )
    say_secret(tracer)
    span = the_span(state_dir)
    assert "secret" not in repr(span)
    said = json.loads(str(span.attributes["gen_ai.input.messages"]))
    assert said[0]["parts"][0]["content"] == 'a "mask"'


def test_a_forked_child_s_spans_are_its_own(
    provider: TracerProvider, tracer: otel.Tracer, state_dir: Path
) -> None:
    with tracer.start_as_current_span("parent"):
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                try:
                    tracer.start_span(f"child {number}").end()
                finally:
                    os.kill(os.getpid(), signal.SIGKILL)  # no exit hook helps
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
    spans = recorded_spans(state_dir)
    assert {span.name for span in spans} == {"parent", "child 0", "child 1", "child 2"}
    assert len({span.span_id for span in spans}) == 4
    (parent,) = [span for span in spans if span.name == "parent"]
    assert {span.parent_span_id for span in spans if span is not parent} == {parent.span_id}


def test_neither_class_starts_a_thread(tracer: otel.Tracer) -> None:
    import threading

    before = threading.active_count()
    tracer.start_span("s").end()
    assert threading.active_count() == before


def test_a_fault_of_ours_costs_the_span_and_not_the_call(
    tracer: otel.Tracer, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(_runtime.current(), "record_span", break_down)
    with tracer.start_as_current_span("s"):
        pass
    assert recorded_spans(state_dir) == []
    assert fallom.status()["dropped"] == {"internal": 1}


def test_an_old_record_has_the_new_fields_defaults() -> None:
    old = [b"t" * 16, b"s" * 8, b"", "n", 1, 2, 3, 0, "", {}, []]
    span = span_of(old)
    assert (span.links, span.scope.name, span.resource, span.trace_state) == ([], "", {}, "")
    with pytest.raises(ValueError, match="attributes of a Link"):
        span_of([*old, [[b"", b"", "", 1]]])


def test_metrics_and_wrapped_calls_join_the_active_span(
    tracer: otel.Tracer, state_dir: Path
) -> None:
    from fallom._tracing import ContextTracing

    with tracer.start_as_current_span("active") as active:
        context = active.get_span_context()
        expected = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
        assert ContextTracing().parent() == expected
        assert ContextTracing().parent_of_call() == expected
    assert ContextTracing().parent() is None
    assert prompts  # the tag's owner, see above
