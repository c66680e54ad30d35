"""Sampling: whole sessions, the same everywhere, and of all variants alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallom
from fallom import _runtime, trace
from fallom._core.assignment import bucket_of
from fallom._core.sampling import is_sampled
from fallom._host.counts import Drop
from fallom._tracing import ContextTracing
from tests.support.spans import recorded_spans

HERE: Any = {f"{name}_url": "http://127.0.0.1:9" for name in ("traces", "configs", "prompts")}


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_who_is_kept_at_a_rate_is_kept_at_any_higher_one(
    session_id: str, a: float, b: float
) -> None:
    low, high = sorted((a, b))
    assert is_sampled(session_id, high) or not is_sampled(session_id, low)
    assert is_sampled(session_id, 1.0)
    assert not is_sampled(session_id, 0.0)


def test_the_share_is_the_rate_and_does_not_depend_on_the_assignment() -> None:
    sessions = [f"session-{number}" for number in range(20_000)]
    for rate in (0.1, 0.5):
        kept = [session for session in sessions if is_sampled(session, rate)]
        assert abs(len(kept) / len(sessions) - rate) < 0.02
        first_half = [session for session in kept if bucket_of(session) < 500_000]
        assert abs(len(first_half) / len(kept) - 0.5) < 0.03


def test_the_decision_is_the_same_in_every_release() -> None:
    kept = [number for number in range(20) if is_sampled(f"s-{number}", 0.3)]
    assert kept == [12, 14, 17]


def test_a_session_that_is_left_out_has_no_spans_and_is_no_drop(state_dir: Path) -> None:
    fallom.init(**HERE, flusher="external", sample_rate=0.5)
    kept = {number for number in range(40) if is_sampled(f"s-{number}", 0.5)}
    for number in range(40):
        with fallom.session("app", f"s-{number}"):
            assert ContextTracing().content_captured is (number in kept)
            for _ in range(2):
                with trace.step("x"):
                    pass
    sessions = [span.attributes["fallom.session_id"] for span in recorded_spans(state_dir)]
    assert sorted(sessions) == sorted(f"s-{number}" for number in kept for _ in range(2))
    status = fallom.status()
    assert status["sampled_out"] == 2 * (40 - len(kept))
    assert status["dropped"] == {}


def test_spans_without_a_session_are_kept_by_trace(state_dir: Path) -> None:
    fallom.init(**HERE, flusher="external", sample_rate=0.5)
    for _ in range(40):
        with trace.step("outer"), trace.step("inner"):
            pass
    spans = recorded_spans(state_dir)
    assert 0 < len(spans) < 80
    traces = [span.trace_id for span in spans]
    assert all(traces.count(trace_id) == 2 for trace_id in traces)


def test_metrics_are_recorded_whatever_the_rate(state_dir: Path) -> None:
    fallom.init(**HERE, flusher="external", sample_rate=0)
    trace.span({"score": 1}, config_key="app", session_id="s")
    assert fallom.status()["spool"]["unaccepted_bytes"] > 0


def test_what_is_left_out_is_no_news_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    fallom.init(**HERE, flusher="external", sample_rate=0)
    for _ in range(3):
        with trace.step("x"):
            pass
        pass_drops_on()
    assert fallom.status()["sampled_out"] == 3
    assert not caplog.records
    _runtime.current().count_drop(Drop.DISK)
    pass_drops_on()
    assert "dropped: disk" in caplog.text


def pass_drops_on() -> None:
    runtime = _runtime.current()
    runtime._looked_ns = 0  # a second has passed
    runtime.look()
