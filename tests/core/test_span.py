"""Records on their way through the disk: read back as written, or told to be none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.span import (
    Event,
    Exposure,
    Link,
    Metrics,
    Scope,
    Span,
    SpanKind,
    SpanStatus,
    Wish,
    exposure_of,
    metrics_of,
    new_span_id,
    new_trace_id,
    span_of,
    wish_of,
)
from fallom._spool.frame import decode_record, pack
from tests.support.processes import in_child
from tests.support.records import make_span

attributes = st.dictionaries(
    st.text(), st.text() | st.integers(-5, 5) | st.booleans() | st.lists(st.text())
)
ids = st.tuples(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=8, max_size=8) | st.just(b""),
)
times = st.integers(0, 1 << 63)
spans = st.builds(
    lambda found, *rest: Span(*found, *rest),
    ids,
    st.text(),
    st.sampled_from(list(SpanKind)),
    times,
    times,
    st.sampled_from(list(SpanStatus)),
    st.text(),
    attributes,
    st.lists(st.builds(Event, times, st.text(), attributes), max_size=3),
    st.lists(
        st.builds(Link, st.just(bytes(16)), st.just(bytes(8)), st.text(), attributes), max_size=2
    ),
)
plain = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.binary(max_size=16)
)
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=18) | st.dictionaries(st.text(max_size=2), inner)
)


def through_the_disk(record: Any) -> Any:
    return decode_record(pack(record))


@given(spans)
def test_a_span_survives_the_disk(span: Span) -> None:
    found = span_of(through_the_disk(span))
    assert found == span
    assert isinstance(found.scope, Scope)
    assert all(isinstance(event, Event) for event in found.events)


@given(
    st.builds(
        Metrics,
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=8, max_size=8),
        times,
        st.text(),
        st.text(),
        attributes,
        attributes,
    )
)
def test_metrics_survive_the_disk(metrics: Metrics) -> None:
    assert metrics_of(through_the_disk(metrics)) == metrics


@given(st.builds(Exposure, st.text(), st.integers(0, 99), st.text(), st.text(), times))
def test_an_exposure_survives_the_disk(exposure: Exposure) -> None:
    assert exposure_of(through_the_disk(exposure)) == exposure


@given(st.builds(Wish, st.text(), st.integers(0, 1 << 40)))
def test_a_wish_survives_the_disk(wish: Wish) -> None:
    assert wish_of(through_the_disk(wish)) == wish


@pytest.mark.parametrize("count", range(10, len(Span._fields) + 1))
def test_a_span_of_an_earlier_version_has_the_defaults_for_what_came_later(count: int) -> None:
    span = make_span()
    assert span_of(through_the_disk(tuple(span)[:count])) == span


def test_fields_of_a_later_version_are_left_out() -> None:
    span = make_span(events=[Event(1, "e", {})])
    assert span_of(through_the_disk((*span, {"new": 1}, "field"))) == span
    wish = Wish("k", 2)
    assert wish_of(through_the_disk((*wish, "later"))) == wish


@pytest.mark.parametrize("read", [span_of, metrics_of, exposure_of, wish_of])
@given(record=anything)
def test_what_is_no_record_is_told_and_nothing_else_happens(read: Any, record: Any) -> None:
    try:
        read(record)
    except ValueError:
        return
    assert isinstance(record, list)


@pytest.mark.parametrize("name", Span._fields)
@pytest.mark.parametrize(
    "value", [None, "text", 1.5, b"", [None], [[1, 2, 3]], [[b"", b"", "", {}]]]
)
def test_a_span_with_one_field_of_another_type_is_told_or_still_a_span(
    name: str, value: Any
) -> None:
    record = through_the_disk(make_span()._replace(**{name: value}))
    try:
        span = span_of(record)
    except (ValueError, TypeError):
        return
    assert span == make_span()._replace(**{name: value})


@pytest.mark.parametrize("lengths", [(15, 8, 8), (16, 7, 8), (16, 8, 7), (0, 8, 0), (16, 0, 0)])
def test_ids_of_another_length_are_told(lengths: tuple[int, int, int]) -> None:
    record = tuple(map(bytes, lengths)) + tuple(make_span())[3:]
    with pytest.raises(ValueError, match="16, 8, and 0 or 8 bytes"):
        span_of(list(record))


def test_ids_are_random_and_differ_after_a_fork() -> None:
    def make() -> tuple[bytes, bytes]:
        return new_trace_id(), new_span_id()

    found = [make(), make(), in_child(make), in_child(make)]
    assert len({trace for trace, _ in found}) == len({span for _, span in found}) == 4
    assert {(len(trace), len(span)) for trace, span in found} == {(16, 8)}
