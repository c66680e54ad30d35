"""Records to OTLP: what a backend reads is what was recorded, and anything at all can be sent."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from fallom._core.span import Dropped, Event, Link, Scope, span_of
from fallom._flusher.otlp import TraceEncoder, metrics_span, partial_success
from fallom._spool.frame import decode_record, pack
from fallom._version import __version__
from tests.support import otlp_classes
from tests.support.records import make_metrics, make_span


def decoded(*spans: Any, resource: Any = None) -> Any:
    pairs = [(span, {"service.name": "s"} if resource is None else resource) for span in spans]
    return ExportTraceServiceRequest.FromString(TraceEncoder().encode(pairs))


def only(request: Any) -> Any:
    return request.resource_spans[0].scope_spans[0].spans[0]


def attributes_of(found: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in found.attributes
    }


def test_a_span_is_sent_as_it_was_recorded() -> None:
    span = make_span(
        7,
        parent_span_id=b"parent12",
        status=2,
        status_message="what went wrong",
        attributes={"text": "ä", "flag": True, "number": -3, "share": 0.5, "raw": b"\0\xff"},
        events=[Event(5, "first token", {"n": 1})],
        links=[Link(bytes(16), bytes(8), "k=v", {"why": "retry"})],
        trace_state="vendor=1",
        flags=257,
    )
    found = only(decoded(span))
    assert (found.trace_id, found.span_id) == (span.trace_id, span.span_id)
    assert (found.parent_span_id, found.name, found.kind) == (b"parent12", "span 7", 3)
    assert found.start_time_unix_nano == span.start_unix_ns
    assert found.end_time_unix_nano == span.end_unix_ns
    assert (found.status.code, found.status.message) == (2, "what went wrong")
    assert attributes_of(found) == dict(span.attributes)
    [event] = found.events
    assert (event.time_unix_nano, event.name, attributes_of(event)) == (5, "first token", {"n": 1})
    [link] = found.links
    assert (link.trace_id, link.span_id, link.trace_state) == (bytes(16), bytes(8), "k=v")
    assert (found.trace_state, found.flags) == ("vendor=1", 257)


def test_the_kinds_of_values_stay_what_they_are() -> None:
    values = {"on": True, "one": 1, "half": 0.5, "list": ["a", 1, True], "none": None, "empty": []}
    found = {
        each.key: each.value for each in only(decoded(make_span(attributes=values))).attributes
    }
    assert found["on"].WhichOneof("value") == "bool_value"
    assert found["one"].WhichOneof("value") == "int_value"
    assert found["half"].WhichOneof("value") == "double_value"
    assert [each.WhichOneof("value") for each in found["list"].array_value.values] == [
        "string_value",
        "int_value",
        "bool_value",
    ]
    assert found["empty"].WhichOneof("value") == "array_value"
    assert "none" not in found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, {"b": "ä"}]}, '{"a": [1, {"b": "ä"}]}'),
        ([1, None], "[1, null]"),
        ([[1]], "[[1]]"),
        (1 << 63, str(1 << 63)),
        ("half \ud800 pair", "half ? pair"),
    ],
)
def test_what_otlp_does_not_have_becomes_text(value: Any, text: str) -> None:
    assert attributes_of(only(decoded(make_span(attributes={"x": value})))) == {"x": text}


def test_spans_of_one_resource_stand_together_in_order() -> None:
    first, second = {"a": 1, "b": 2}, {"a": 2}
    pairs = [(make_span(n), (first, second)[n % 2]) for n in range(1, 7)]
    pairs.append((make_span(7), {"b": 2, "a": 1}))
    request = ExportTraceServiceRequest.FromString(TraceEncoder().encode(pairs))
    found = [[span.name for span in group.scope_spans[0].spans] for group in request.resource_spans]
    assert found == [["span 1", "span 3", "span 5"], ["span 2", "span 4", "span 6", "span 7"]]
    assert attributes_of(request.resource_spans[1].resource) == first


def test_what_a_span_s_own_resource_says_wins_over_its_process_s() -> None:
    own = make_span(2, resource={"service.name": "shop", "more": 1})
    same = make_span(3, resource={"service.name": "shop", "more": 1}, scope=Scope("other"))
    groups = decoded(make_span(1), own, same, resource={"service.name": "s", "host.name": "h"})
    plain, other = groups.resource_spans
    assert attributes_of(plain.resource) == {"service.name": "s", "host.name": "h"}
    expected = {"service.name": "shop", "host.name": "h", "more": 1}
    assert attributes_of(other.resource) == expected
    assert [scope.spans[0].name for scope in other.scope_spans] == ["span 2", "span 3"]


def test_our_own_scope_is_named_and_others_keep_theirs() -> None:
    other = make_span(2, scope=Scope("other", "1", "https://schema", {"k": "v"}))
    scopes = decoded(make_span(1), other).resource_spans[0].scope_spans
    assert [(found.scope.name, found.scope.version) for found in scopes] == [
        ("fallom", __version__),
        ("other", "1"),
    ]
    assert scopes[1].schema_url == "https://schema"


@pytest.mark.parametrize(
    "changes",
    [
        {"start_unix_ns": -1},
        {"end_unix_ns": 1 << 70},
        {"kind": 99},
        {"kind": -1},
        {"status": 17},
        {"flags": 1 << 40},
        {"name": "\udcff"},
        {"attributes": {1: "x", b"y": 2, None: 3, "\ud800": 4}},
        {"resource": {1: "x", "a": 2}},
        {"scope": Scope("s", "1", "", {1: "x", b"y": 2})},
    ],
)
def test_odd_values_are_made_to_fit(changes: dict[str, Any]) -> None:
    assert only(decoded(make_span(**changes))).span_id == make_span().span_id


odd_keys = st.text() | st.integers(-9, (1 << 64) - 1) | st.binary() | st.none() | st.booleans()
odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(st.characters())
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_keys, inner, max_size=4),
    max_leaves=12,
)
odd_mapping = st.dictionaries(odd_keys, odd, max_size=4)


@given(
    odd_mapping,
    odd_mapping,
    odd_mapping,
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.text(st.characters()),
)
def test_whatever_can_be_read_from_disk_can_be_sent_and_parsed(
    attributes: Any, resource: Any, nested: Any, number: int, text: str
) -> None:
    record = make_span(
        name=text,
        kind=number,
        status=number,
        start_unix_ns=number,
        flags=number,
        status_message=text,
        attributes=attributes,
        resource=nested,
        scope=Scope(text, text, text, nested),
        events=[Event(number, text, attributes)],
        links=[Link(bytes(16), bytes(8), text, attributes)],
    )
    span = span_of(decode_record(pack(record)))
    pairs = [(span, resource), (make_span(2), {**resource}), (span, {**resource})]
    assert TraceEncoder().encode(pairs) == otlp_classes.encode_traces(pairs)
    request = decoded(span, make_span(2), resource=resource)
    assert sum(len(s.spans) for g in request.resource_spans for s in g.scope_spans) == 2


spans_of_people = st.builds(
    make_span,
    name=st.text(max_size=5),
    kind=st.integers(0, 6),
    status=st.integers(0, 3),
    status_message=st.text(max_size=5),
    start_unix_ns=st.integers(-1, 1 << 65),
    end_unix_ns=st.integers(-1, 3),
    parent_span_id=st.sampled_from([b"", bytes(8), b"parent12"]),
    attributes=odd_mapping,
    events=st.lists(st.builds(Event, st.integers(-1, 9), st.text(), odd_mapping), max_size=2),
    links=st.lists(
        st.builds(Link, st.just(bytes(16)), st.just(bytes(8)), st.text(), odd_mapping), max_size=2
    ),
    trace_state=st.text(max_size=3),
    flags=st.integers(-1, 1 << 33),
    scope=st.builds(
        Scope,
        st.sampled_from(["", "s"]),
        st.text(max_size=2),
        st.text(max_size=2),
        st.sampled_from([{}, {"k": 1}, {1: b""}]),
    ),
    resource=st.sampled_from([{}, {"service.name": "own"}]),
    dropped=st.builds(Dropped, st.integers(-1, 1 << 33), st.integers(0, 200), st.integers(0, 2)),
)


@given(st.lists(st.tuples(spans_of_people, st.sampled_from("abc")), max_size=8))
def test_the_bytes_are_those_of_protobuf_s_classes(spans: list[tuple[Any, str]]) -> None:
    processes = {name: {"service.name": name} for name in "ab"} | {"c": {"service.name": "a"}}
    pairs = [(span, processes[name]) for span, name in spans]
    encoder = TraceEncoder()
    assert encoder.encode(pairs) == otlp_classes.encode_traces(pairs)
    assert encoder.encode(pairs) == otlp_classes.encode_traces(pairs)  # now that it remembers


@pytest.mark.parametrize("depth", [50, 300, 500])
def test_a_deeply_nested_value_does_not_keep_its_batch_from_being_parsed(depth: int) -> None:
    deep: Any = "x"
    for _ in range(depth):
        deep = [deep]
    span = span_of(decode_record(pack(make_span(attributes={"deep": deep}))))
    assert only(decoded(span, resource={"deep": deep})).name == "span 1"


def test_metrics_are_a_span_without_length_that_names_config_and_session() -> None:
    metrics = make_metrics(3, score=0.5, nested={"a": 1}, ok=True)
    found = only(decoded(metrics_span(metrics)))
    assert found.name == "fallom.metrics"
    assert found.start_time_unix_nano == found.end_time_unix_nano == metrics.unix_ns
    assert (found.trace_id, found.span_id) == (metrics.trace_id, metrics.span_id)
    assert attributes_of(found) == {
        "fallom.config_key": "config",
        "fallom.session_id": "session 3",
        "gen_ai.conversation.id": "session 3",
        "fallom.metric.score": 0.5,
        "fallom.metric.nested": '{"a": 1}',
        "fallom.metric.ok": True,
    }
    assert MessageToDict(found)


def test_the_rejected_ones_of_a_partial_success_are_read() -> None:
    answer = ExportTraceServiceResponse()
    assert partial_success(answer.SerializeToString()) == (0, "")
    answer.partial_success.rejected_spans = 3
    answer.partial_success.error_message = "too old"
    assert partial_success(answer.SerializeToString()) == (3, "too old")
    answer.partial_success.rejected_spans = -3
    assert partial_success(answer.SerializeToString())[0] == 0


def test_what_was_rejected_counts_whatever_bytes_the_message_has() -> None:
    """The Collector's own encoder does not look whether a text is UTF-8."""
    assert partial_success(b"\x0a\x05\x08\x02\x12\x01\xff") == (2, "\ufffd")


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.text(), st.sampled_from([b"", b"\x12\x01x"]))
def test_an_answer_reads_as_by_protobuf_s_classes(count: int, text: str, later: bytes) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = count
    answer.partial_success.error_message = text
    body = answer.SerializeToString() + later  # a field that is not known yet
    assert partial_success(body) == otlp_classes.partial_success(body)


@given(st.binary())
def test_an_answer_that_is_no_otlp_says_nothing(body: bytes) -> None:
    rejected, message = partial_success(body)
    assert rejected >= 0
    assert isinstance(message, str)


def test_a_page_of_html_says_nothing() -> None:
    assert partial_success(b"<html><body>Welcome to nginx!</body></html>") == (0, "")
