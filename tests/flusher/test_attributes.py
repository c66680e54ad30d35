"""Attributes as bytes: what is remembered is never mixed up, and never much."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValueList

from fallom._flusher.attributes import REMEMBERED_BYTES_MAX, AttributeEncoder
from tests.support.otlp_classes import _key_values

FIELD_1 = b"\x0a"  # of a KeyValueList: its pairs

alike = st.sampled_from([0, 1, -1, 127, 128, True, False, 1.0, 0.0, -0.0, "1", "True", "", b"1"])
names = st.sampled_from(["a", "b", "", "1", "ä" * 80]) | st.sampled_from([1, True, None, b"1"])
values = alike | st.text() | st.integers(-(1 << 70), 1 << 70) | st.lists(alike, max_size=3)


def by_classes(attributes: dict[Any, Any]) -> bytes:
    found: bytes = KeyValueList(values=_key_values(attributes)).SerializeToString()
    return found


@given(st.lists(st.dictionaries(names, values, max_size=5), max_size=12), st.integers(1, 4))
def test_an_encoder_that_remembers_gives_the_bytes_of_one_that_does_not(
    spans: list[dict[Any, Any]], remembered_max: int
) -> None:
    encoder = AttributeEncoder(remembered_max)
    for attributes in spans:
        assert encoder.fields(FIELD_1, attributes) == by_classes(attributes)


@pytest.mark.parametrize("values", [(1, True, 1.0, "1"), ("1", 1.0, True, 1), (0, False, -0.0, "")])
def test_values_that_are_equal_in_python_stay_what_they_are(values: tuple[Any, ...]) -> None:
    encoder = AttributeEncoder()
    for value in (*values, *values):
        assert encoder.fields(FIELD_1, {"x": value}) == by_classes({"x": value})


def test_what_is_remembered_is_bounded_in_number_and_size() -> None:
    encoder = AttributeEncoder(remembered_max=10)
    for number in range(1000):
        long = "x" * REMEMBERED_BYTES_MAX
        many: dict[Any, Any] = {"n": number, f"name {number}": "v", "t": f"{number}"}
        encoder.fields(FIELD_1, {**many, "long": f"{long}{number}", f"{long}{number}": 1})
    kept = [*encoder._pairs.values(), *encoder._numbers.values(), *encoder._names.values()]
    assert len(kept) <= 30
    assert max(map(len, kept)) <= REMEMBERED_BYTES_MAX


@pytest.mark.parametrize("length", [0, 1, 123, 124, 125, 126, 127, 128, 16381, 16384, 70000])
def test_texts_around_the_lengths_of_a_varint_are_whole(length: int) -> None:
    attributes = {"text": "x" * length}
    assert AttributeEncoder().fields(FIELD_1, attributes) == by_classes(attributes)
