"""Capturing for tests of applications: the whole way into a spool and out, and nothing left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import ConfigurationError, NotFoundError, _runtime, masks, models, prompts, trace
from fallom._core.span import Span
from fallom.testing import Capture, capture
from tests.support.descriptors import nothing_left_open
from tests.support.records import make_span


@pytest.fixture
def captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A capture whose directory is in the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with capture() as captured:
        yield captured


def record(number: int = 1, **changes: Any) -> Span:
    span = make_span(number, **changes)
    _runtime.current().record_span(span)
    return span


def test_spans_are_objects(captured: Capture) -> None:
    attributes = {"fallom.session_id": "s", "gen_ai.request.model": "gpt-4o"}
    span = record(name="chat gpt-4o", attributes=attributes, parent_span_id=b"12345678", status=2)
    found = captured.span()
    assert captured.spans == [found]
    assert (found.name, found.kind, found.status) == ("chat gpt-4o", "client", "error")
    assert (found.trace_id, found.span_id) == (span.trace_id.hex(), span.span_id.hex())
    assert found.parent_span_id == b"12345678".hex()
    assert (found.session_id, found.model, found.customer_id) == ("s", "gpt-4o", None)


def test_steps_have_their_tree_and_order(captured: Capture) -> None:
    with (
        fallom.session("agent", "s-1", customer_id="c", tags=["a"]),
        trace.step("plan", "agent"),
        trace.step("weather", "tool"),
    ):
        pass
    inner, outer = captured.spans
    assert inner.parent_span_id == outer.span_id
    assert outer.parent_span_id is None
    assert [span.name for span in (inner, outer)] == ["execute_tool weather", "invoke_agent plan"]
    assert (outer.config_key, outer.customer_id, outer.tags) == ("agent", "c", ["a"])
    assert captured.span("invoke") == outer


def test_metrics_and_exposures_are_captured() -> None:
    with capture(models={"agent": "gpt-4o"}) as captured:
        assert models.get("agent", "s-1") == "gpt-4o"
        trace.span({"score": 0.5}, "agent", "s-1")
    [metrics], [exposure] = captured.metrics, captured.exposures
    assert (metrics.config_key, metrics.session_id, metrics.data) == (
        "agent",
        "s-1",
        {"score": 0.5},
    )
    assert (exposure.config_key, exposure.session_id, exposure.model) == ("agent", "s-1", "gpt-4o")


def test_what_was_recorded_is_there_after_the_block() -> None:
    with capture() as captured:
        record()
    assert len(captured.spans) == 1
    assert len(captured.spans) == 1


def test_one_span_is_asserted_with_a_list_of_those_there(captured: Capture) -> None:
    with pytest.raises(AssertionError, match="found 0; recorded were: none"):
        captured.span()
    record(1, name="first")
    record(2, name="second")
    with pytest.raises(AssertionError, match="found 2; recorded were: 'first', 'second'"):
        captured.span()
    assert captured.span("sec").name == "second"


def test_cleared_is_what_came_before(captured: Capture) -> None:
    record(1)
    trace.span({"a": 1}, "agent", "s-1")
    captured.clear()
    assert (captured.spans, captured.metrics) == ([], [])
    record(2, name="later")
    assert captured.span().name == "later"


def test_models_are_fixed_by_name_by_weights_and_as_the_server_lists_them() -> None:
    listed = {
        "variants": [{"model": "a", "weight": 100}, {"model": "b", "weight": 0}],
        "targeting": {
            "enabled": True,
            "individualTargets": [{"field": "customerId", "value": "vip", "variantIndex": 1}],
        },
    }
    with capture(models={"one": "gpt-4o", "split": {"a": 50, "b": 50}, "listed": listed}):
        assert models.get("one", "s") == "gpt-4o"
        assert {models.get("split", f"s-{n}") for n in range(50)} == {"a", "b"}
        assert models.get("listed", "s") == "a"
        assert models.get("listed", "s", customer_id="vip") == "b"


def test_prompts_and_their_tests_are_fixed() -> None:
    given = {"hello": "Hello {{name}}", "full": {"system": "Be kind", "user": "Hi", "version": 3}}
    with capture(prompts=given, ab_tests={"greeting": {"hello": 0, "full": 100}}):
        assert prompts.get("hello", {"name": "Ann"}).user == "Hello Ann"
        found = prompts.get_ab("greeting", "s")
        assert (found.key, found.version, found.system, found.variant_index) == (
            "full",
            3,
            "Be kind",
            1,
        )


def test_what_is_not_fixed_is_not_known_at_once(captured: Capture) -> None:
    assert models.get("other", "s", fallback="f") == "f"
    with pytest.raises(NotFoundError):
        models.get("other", "s")
    with pytest.raises(NotFoundError):
        prompts.get("other")
    assert fallom.wait_until_ready(timeout=0)


def test_published_later_is_seen_by_the_next_call(captured: Capture) -> None:
    captured.publish(models={"agent": "a"})
    assert models.get("agent", "s") == "a"
    captured.publish(models={"agent": "b"})
    assert models.get("agent", "s") == "b"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"models": {"agent": {}}}, "variants"),
        ({"models": {"agent": {"gpt-4o": -1}}}, "weight"),
        ({"prompts": {"hello": 3}}, "user_template"),
        ({"ab_tests": {"test": {"hello": "much"}}}, "weight"),
        ({"models": {"agent": ["gpt-4o"]}}, "model is a list"),
        ({"models": "gpt-4o"}, "models must be a mapping of keys to what they give, not str"),
        ({"prompts": ["Hello."]}, "prompts must be a mapping"),
        ({"ab_tests": 3}, "ab_tests must be a mapping"),
        ({"sample_rate": "tenth"}, "sample_rate is 'tenth'"),
        ({"capture_content": "never"}, "expected true or false"),
    ],
)
def test_what_cannot_be_served_or_used_is_refused(arguments: Any, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what), capture(**arguments):
        pass


def test_settings_of_the_application_hold_as_far_as_they_say_what_is_recorded(
    captured: Capture,
) -> None:
    fallom.init(
        api_key="real",
        traces_url="https://traces.example.com",
        state_dir="/nowhere",
        capture_content=False,
        mask=masks.api_keys,
    )
    settings = _runtime.current().settings
    assert settings.capture_content is False
    assert _runtime.current().mask is not None
    assert (settings.flusher, settings.api_key) == ("none", "capture")
    record()
    assert len(captured.spans) == 1


def test_privacy_mode_of_before_holds_within(state_dir: Path) -> None:
    fallom.init(api_key="k", capture_content=False, flusher="external", mask=masks.api_keys)
    with capture():
        assert _runtime.current().settings.capture_content is False
        assert _runtime.current().given_mask is masks.api_keys


def test_nothing_is_left_behind(
    tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", None)
    fallom.init(api_key="k", flusher="external")
    trace.set_session("outer", "s-0")
    before, threads = _runtime.current(), threading.active_count()
    there = sorted(tmp_path.iterdir())
    with nothing_left_open(), capture(models={"agent": "gpt-4o"}) as captured:
        trace.set_session("agent", "s-1")
        fallom.init(api_key="other")
        record()
        assert fallom.flush() == 0
        assert len(captured.spans) == 1
    assert _runtime.current() is before
    assert trace.get_session() == {"config_key": "outer", "session_id": "s-0"}
    assert sorted(tmp_path.iterdir()) == there
    assert threading.active_count() <= threads  # those of other tests may end in between
    assert not list(state_dir.rglob("traces-*"))


def test_failing_block_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail() -> None:
        with capture():
            record()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_nested_captures_keep_apart(captured: Capture) -> None:
    record(1, name="outer")
    with capture() as inner:
        record(2, name="inner")
    record(3, name="outer again")
    assert inner.span().name == "inner"
    assert [span.name for span in captured.spans] == ["outer", "outer again"]


def test_forked_child_is_captured_and_leaves_the_directory(captured: Capture) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            record(7, name="of the child")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert captured.span().name == "of the child"


def test_child_that_leaves_the_block_takes_nothing_along() -> None:
    pid = None
    with capture() as captured:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            record()
            assert len(captured.spans) == 1
    if not pid:
        os._exit(0)


def test_importing_it_loads_no_database() -> None:
    code = (
        "import sys, fallom.testing.pytest_plugin\n"
        "found = {'diskcache', 'sqlite3', 'requests', 'google.protobuf'} & set(sys.modules)\n"
        "sys.exit(repr(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
