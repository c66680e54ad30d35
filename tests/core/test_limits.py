"""Whatever an application records becomes a record that can be packed, sent, and recognised as cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fallom._core.limits import SHED_MARK, clean_value, cut_record, shed_content
from fallom._core.span import Event, Metrics, Span, metrics_of, span_of
from fallom._flusher.otlp import TraceEncoder, metrics_span
from fallom._packing import Packing
from fallom._spool.frame import RECORD_BYTES_MAX, decode_record, pack
from fallom.dev.otlp import decode_request, span_attributes

packed = Packing().packed


class Model(BaseModel):
    name: str = "n"


class Raises:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class RaisingMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        return 3


class LyingText(str):
    def __str__(self) -> str:
        raise RuntimeError


def nested(depth: int) -> Any:
    value: Any = "deep"
    for level in range(depth):
        value = {"n": value} if level % 2 else [value]
    return value


def cycle() -> Any:
    ring: list[Any] = []
    ring.append({"ring": ring})
    return ring


ABSURD: dict[str, Callable[[], Any]] = {
    "two megabytes": lambda: "data:image/png;base64," + "A" * (2 << 20),
    "two megabytes within": lambda: [{"image": {"url": "A" * (2 << 20)}}],
    "two megabytes of bytes": lambda: b"\0" * (2 << 20),
    "nested 200 deep": lambda: nested(200),
    "nested 600 deep": lambda: nested(600),
    "nested 5,000 deep": lambda: nested(5000),
    "a cycle": cycle,
    "lone surrogates": lambda: "\ud800 and \udfff",
    "not a number": lambda: float("nan"),
    "infinite": lambda: [float("inf"), float("-inf")],
    "an int of 64 bits": lambda: (1 << 64) - 1,
    "an int of 200 bits": lambda: -(1 << 200),
    "an int of 100,000 bits": lambda: 1 << 100_000,
    "bytes": lambda: b"\xff\xfe",
    "a view": lambda: memoryview(b"abc"),
    "a pydantic object": Model,
    "a generator": lambda: (n for n in range(3)),
    "keys that are no text": lambda: {1: "a", None: "b", (1, 2): "c", b"k": "d", 1.5: "e"},
    "an object without a text": Raises,
    "a key without a text": lambda: {Raises(): 1},
    "a mapping that raises": RaisingMapping,
    "a text that raises": lambda: LyingText("x"),
    "a type": lambda: int,
    "a function": lambda: nested,
    "an exception": lambda: ValueError("v"),
    "a decimal": lambda: Decimal("1.10"),
    "many items": lambda: list(range(100_000)),
    "many keys": lambda: {str(n): n for n in range(200_000)},
    "a long key": lambda: {"k" * (2 << 20): 1},
    "a set": lambda: {1, "a"},
}


def span(attributes: Any, **fields: Any) -> Span:
    whole = Span(b"t" * 16, b"s" * 8, b"", "name", 3, 1, 2, 0, "", attributes)
    return whole._replace(**fields)


def sent(record: Any) -> dict[str, Any]:
    """Carry a record through the spool's format and OTLP; give the attributes that arrive."""
    payload = packed(record)
    assert len(payload) <= RECORD_BYTES_MAX
    read = decode_record(payload)
    found = metrics_span(metrics_of(read)) if isinstance(record, Metrics) else span_of(read)
    (attributes,) = span_attributes(decode_request(TraceEncoder().encode([(found, {})])))
    return dict(attributes)


@pytest.mark.parametrize("what", ABSURD)
def test_an_absurd_attribute_becomes_a_span_that_a_server_can_read(what: str) -> None:
    attributes = sent(span({"good": 7, "absurd": ABSURD[what]()}))
    assert attributes["good"] == 7
    assert "absurd" in attributes


@pytest.mark.parametrize("what", ABSURD)
def test_an_absurd_metric_and_absurd_metadata_become_a_record_that_a_server_can_read(
    what: str,
) -> None:
    metadata = {"fallom.metadata.m": clean_value(ABSURD[what]())}
    data = {"absurd": ABSURD[what](), "good": 7}
    attributes = sent(Metrics(b"t" * 16, b"s" * 8, 1, "app", "s", metadata, data))
    assert attributes["fallom.metric.good"] == 7
    assert "fallom.metric.absurd" in attributes


def test_what_was_cut_is_named() -> None:
    attributes = sent(span({"image": "A" * (2 << 20), "short": "s"}))
    assert attributes["fallom.cut"] == ["image"]
    assert attributes["image"].startswith("AAAA")
    assert "[cut: " in attributes["image"]
    assert attributes["short"] == "s"


def test_a_long_text_of_an_event_is_cut_and_the_event_stays() -> None:
    event = Event(1, "exception", {"exception.message": "m" * (2 << 20), "exception.type": "E"})
    read = span_of(decode_record(packed(span({}, events=[event]))))
    assert read.events[0].attributes["exception.type"] == "E"
    assert len(read.events[0].attributes["exception.message"]) < RECORD_BYTES_MAX
    assert read.attributes["fallom.cut"] == ["exception.message"]


@pytest.mark.parametrize("beyond", [1 << 64, 1 << 200, -(1 << 70)])
def test_a_time_beyond_64_bits_is_the_nearest_one_and_the_record_can_be_read(beyond: int) -> None:
    nearest = (1 << 63) - 1 if beyond > 0 else -(1 << 63) + 1
    event = Event(beyond, "late", {})
    read = span_of(decode_record(packed(span({"good": 7}, end_unix_ns=beyond, events=[event]))))
    assert (read.end_unix_ns, read.events[0].unix_ns) == (nearest, nearest)
    assert sent(span({"good": 7}, end_unix_ns=beyond, events=[event])) == {"good": 7}


def test_a_number_of_another_library_stays_a_number() -> None:
    class Float32:
        def __float__(self) -> float:
            return 0.5

    class Int64:
        def __index__(self) -> int:
            return 9

    assert clean_value([Float32(), Int64(), Decimal("0.1")]) == [0.5, 9, "0.1"]


def test_a_record_that_needs_no_help_is_packed_as_it_is() -> None:
    record = span({"a": 1, "b": ["x", 1.5], "c": True})
    assert span_of(decode_record(packed(record))) == record._replace(events=[], links=[])


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=20),
    lambda children: st.lists(children) | st.dictionaries(st.text() | st.integers(), children),
    max_leaves=20,
)


@given(_VALUES)
def test_a_cleaned_value_can_be_packed_and_said_in_json(value: Any) -> None:
    cleaned = clean_value(value)
    msgpack.packb(cleaned, unicode_errors="surrogatepass")
    json.dumps(cleaned)


@given(st.dictionaries(st.text(max_size=300), st.text(max_size=3000), max_size=8))
def test_a_cut_record_fits_and_keeps_its_ids(attributes: dict[str, str]) -> None:
    def size(record: Span) -> int:
        return len(msgpack.packb(record, unicode_errors="surrogatepass"))

    whole = span(attributes)
    shorter = cut_record(whole, size, 6000)
    assert size(shorter) <= 6000
    assert shorter[:8] == whole[:8]
    if size(whole) > 6000 or shorter.attributes != attributes:
        assert shorter.attributes["fallom.cut"]


BODIES = (
    "gen_ai.input.messages gen_ai.output.messages gen_ai.system_instructions gen_ai.tool.definitions "
    "gen_ai.tool.call.arguments gen_ai.tool.call.result gen_ai.prompt gen_ai.completion "
    "gen_ai.event.content gen_ai.choice gen_ai.retrieval.query.text gen_ai.retrieval.documents "
    "input.value output.value fallom.input fallom.output "
    # of instrumentations by their older names
    "gen_ai.prompt.0.content gen_ai.completion.0.content llm.input_messages.0.message.content "
    "traceloop.entity.input traceloop.entity.output"
).split()


def test_shedding_takes_bodies_and_leaves_all_else() -> None:
    kept: dict[Any, Any] = {"gen_ai.usage.input_tokens": 3, "error.type": "E", "fallom.tags": ["t"]}
    kept |= {"gen_ai.prompt.name": "p", "exception.message": "why", 5: "a name that is no text"}
    event = Event(1, "gen_ai.content.prompt", {"gen_ai.prompt": "p", "kept": 1})
    shed = shed_content(span({**dict.fromkeys(BODIES, "body"), **kept}, events=[event]))
    assert shed.attributes == {**kept, SHED_MARK: True}
    assert shed.events[0].attributes == {"kept": 1}
    bare = span(kept)
    assert shed_content(bare) is bare


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["\ud800", "half \udfff"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(1 << 63), (1 << 63) - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=12))
def test_a_record_is_packed_to_the_same_bytes_whichever_packer_takes_it(data: Any) -> None:
    fields = (b"t" * 16, b"s" * 8, 1, "app", "session", {"a": "b"}, data)
    assert packed(fields, Metrics) == packed(Metrics(*fields)) == pack(Metrics(*fields))


def test_a_packer_whose_record_failed_is_not_used_again() -> None:
    packing = Packing()
    fields = (b"t" * 16, b"s" * 8, 1, "app", "session", {})
    whole = packing.packed((*fields, {"a": 1}), Metrics)
    assert b"<object object" in packing.packed((*fields, {"a": object()}), Metrics)
    assert packing.packed((*fields, {"a": 1}), Metrics) == whole


def test_a_record_may_be_packed_while_another_one_is() -> None:
    class Meddling(dict[str, Any]):
        def items(self) -> Any:
            packed((b"t" * 16, b"s" * 8, 1, "app", "inner", {}, {}), Metrics)
            return super().items()

    outer = (b"t" * 16, b"s" * 8, 1, "app", "outer", {}, Meddling(a=1))
    assert decode_record(packed(outer, Metrics))[4:] == ["outer", {}, {"a": 1}]
