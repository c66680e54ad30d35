"""A program written against fallom 0.2.7, line by line as its documentation has it, runs unchanged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import _runtime, prompts, trace
from fallom.dev.server import LocalCloud
from fallom.testing import Capture, capture
from tests.support.flushers import wait_for
from tests.support.scripts import run_script

PROGRAM = """
import asyncio
import os

import fallom
from fallom import models, prompts, trace
from fallom.trace.types import SessionContext
from fallom.trace.wrappers import wrap_openai
from openai import OpenAI

URL = os.environ["FALLOM_TRACES_URL"]
trace.init(api_key="key", base_url=URL)
models.init(api_key="key", base_url=URL)
prompts.init(api_key="key", base_url=URL)
assert trace.is_initialized() and trace.should_capture_content() and not trace.is_debug_mode()

model = models.get("summarizer-config", "session-1", None, "gpt-4o-mini", None, None, False)
prompt = prompts.get("onboarding", variables={"user_name": "John", "company": "Acme"})
assert prompts.get_prompt_context()["prompt_key"] == "onboarding"

context = SessionContext("summarizer-config", "session-1", customer_id="user-1", tags=["old"])
openai = wrap_openai(OpenAI(), context)
openai.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt.user}])

session = fallom.FallomSession("summarizer-config", "session-2", metadata={"plan": "pro"})
assert session.get_context().metadata == {"plan": "pro"}
asyncio.run(session.get_model(fallback="gpt-4o-mini"))
trace.set_session("summarizer-config", "session-2")
trace.span({"score": 0.5})
trace.clear_session()
fallom.shutdown()
"""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        monkeypatch.setenv("FALLOM_COLD_START_TIMEOUT", "30")  # a busy machine takes more than 1 s
        yield running


def test_program_runs_and_its_call_arrives(cloud: LocalCloud, tmp_path: Path) -> None:
    run_script(PROGRAM, tmp_path)
    spans = wait_for(lambda: [span for span in cloud.spans() if span["name"].startswith("chat")])
    attributes = spans[0]["attributes"]
    assert attributes["fallom.session_id"] == "session-1"
    assert attributes["fallom.prompt_key"] == "onboarding"
    assert attributes["fallom.tags"] == ["old"]


@pytest.fixture
def captured() -> Iterator[Capture]:
    with capture() as captured:
        yield captured


def sent(**changes: Any) -> None:
    values: dict[str, Any] = {
        "config_key": "agent",
        "session_id": "s-1",
        "trace_id": "ab" * 16,
        "span_id": "cd" * 8,
        "name": "chat.completions.create",
        "start_time": "2026-01-02T03:04:05.678901+00:00",
        "end_time": "2026-01-02T03:04:06Z",
        "duration_ms": 321,
        "status": "OK",
        **changes,
    }
    trace.send_trace(trace.TraceData(**values))


def test_sent_trace_is_a_span(captured: Capture) -> None:
    sent(kind="llm", model="gpt-4o", attributes={"a": 1, "nested": {"b": [2]}}, tags=["t"])
    span = captured.span()
    assert (span.trace_id, span.span_id, span.parent_span_id) == ("ab" * 16, "cd" * 8, None)
    start = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
    assert span.start_unix_ns == int(start.timestamp()) * 10**9 + 678_901_000
    assert span.end_unix_ns - span.start_unix_ns == 321_099_000
    assert (span.kind, span.status, span.model, span.tags) == ("client", "ok", "gpt-4o", ["t"])
    assert span.attributes["a"] == 1


def test_sent_trace_with_other_ids_keeps_them_together(captured: Capture) -> None:
    sent(trace_id="mine", span_id="first")
    sent(trace_id="mine", span_id="second", parent_span_id="first")
    first, second = captured.spans
    assert first.trace_id == second.trace_id
    assert second.parent_span_id == first.span_id


def test_sent_trace_holds_no_content_in_privacy_mode() -> None:
    with capture(capture_content=False) as captured:
        sent(
            status="ERROR",
            error_message="of the secret",
            attributes={"fallom.raw.request": "the secret", "fallom.method": "create"},
        )
    span = captured.span()
    assert "secret" not in repr(span)
    assert span.status == "error"
    assert span.attributes["fallom.method"] == "create"


def test_a_mask_sees_the_content_of_a_sent_trace(captured: Capture) -> None:
    _runtime.current().use_mask(lambda text: text.replace("secret", "[x]"))
    sent(
        status="ERROR",
        error_message="of the secret",
        attributes={
            "fallom.raw.request": '{"messages": ["the secret"]}',
            "fallom.method": "secret",
        },
    )
    span = captured.span()
    assert span.status_message == "of the [x]"
    assert span.attributes["fallom.raw.request"] == '{"messages": ["the [x]"]}'
    assert span.attributes["fallom.method"] == "secret"


def test_sent_trace_that_cannot_be_read_costs_the_span_only(captured: Capture) -> None:
    sent(start_time="yesterday")
    assert captured.spans == []


def test_sent_trace_with_values_of_other_types_is_a_span_all_the_same(captured: Capture) -> None:
    sent(name=5, status="ERROR", error_message=ValueError("said"), end_time="9999-12-31T00:00:00Z")
    span = captured.span("5")
    assert span.status_message == "said"
    assert span.end_unix_ns == (1 << 63) - 1


def test_module_wise_init_changes_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    fallom.init(api_key="k", capture_content=False, sample_rate=0.5)
    fallom.models.init(base_url="http://127.0.0.1:1")
    prompts.init(api_key="other", base_url="http://127.0.0.1:2")
    trace.init(base_url="http://127.0.0.1:3")
    settings = _runtime.current().settings
    assert (settings.configs_url, settings.prompts_url, settings.traces_url) == (
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        "http://127.0.0.1:3",
    )
    assert (settings.api_key, settings.sample_rate, settings.capture_content) == (
        "other",
        0.5,
        False,
    )
    assert trace.get_api_key() == "other"
    assert trace.get_base_url() == "http://127.0.0.1:3"


def test_trace_init_with_debug_logs_at_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    logger = logging.getLogger("fallom")
    before = logger.level
    try:
        trace.init(api_key="k")
        assert logger.level == before
        trace.init(debug=True)
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)


def test_prompt_context_can_be_looked_at_and_cleared() -> None:
    with capture(prompts={"hello": "Hello"}):
        assert prompts.get_prompt_context() is None
        prompts.get("hello")
        assert prompts.get_prompt_context() == {
            "prompt_key": "hello",
            "prompt_version": 1,
            "ab_test_key": None,
            "variant_index": None,
        }
        prompts.clear_prompt_context()
        assert prompts.get_prompt_context() is None


def test_handlers_for_langchain_are_the_sessions() -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.runnables import RunnableLambda

    with capture() as captured:
        handler = trace.FallomCallbackHandler("agent", "s-1", tags=["t"])
        RunnableLambda(lambda text: text).invoke("x", config={"callbacks": [handler]})
        other = trace.callback_handler_from_session(fallom.session("agent", "s-2"))
        RunnableLambda(lambda text: text).invoke("x", config={"callbacks": [other]})
    assert [span.session_id for span in captured.spans] == ["s-1", "s-2"]


def test_get_model_is_awaited_as_before() -> None:
    with capture(models={"agent": "gpt-4o"}):
        assert asyncio.run(trace.session("agent", "s").get_model()) == "gpt-4o"
