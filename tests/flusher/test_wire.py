"""Protobuf's wire format by hand: the bytes that protobuf's own code writes, and reads."""

from __future__ import annotations

import pytest
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from fallom._flusher.wire import field, fields, varint

# Field numbers and values as ``fields`` gives them.
numbers = st.integers(0, (1 << 64) - 1)
messages = st.lists(
    st.tuples(st.integers(1, (1 << 29) - 1), numbers | st.binary(max_size=300)), max_size=6
)


def message(*contents: tuple[int, int | bytes]) -> bytes:
    parts = []
    for number, value in contents:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            parts.append(field(varint(number << 3 | 2), value))
    return b"".join(parts)


def test_the_documented_example_reads_as_documented() -> None:
    example = bytes.fromhex("0a 02 68 69 18 ac 02")
    assert message((1, b"hi"), (3, 300)) == example
    assert list(fields(example)) == [(1, b"hi"), (3, 300)]


@given(numbers)
def test_a_varint_is_that_of_protobuf(number: int) -> None:
    assert varint(number) == _VarintBytes(number)


@pytest.mark.parametrize("number", [-1, -300, -(1 << 63), (1 << 63) - 1])
def test_a_signed_number_reads_as_itself(number: int) -> None:
    assert AnyValue.FromString(b"\x18" + varint(number)).int_value == number


@given(messages)
def test_fields_read_back_as_written(contents: list[tuple[int, int | bytes]]) -> None:
    assert list(fields(message(*contents))) == contents


def test_numbers_of_fixed_width_are_stepped_over() -> None:
    found = list(fields(b"\x09" + bytes(8) + b"\x15" + bytes(4) + b"\x18\x07"))
    assert found == [(1, bytes(8)), (2, bytes(4)), (3, 7)]


@pytest.mark.parametrize(
    "broken",
    [
        b"\x0a",  # no length
        b"\x0a\x05hi",  # shorter than its length
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 64 bits
        b"\x09\x00",  # a fixed64 of one byte
        b"\x00\x00",  # field 0
        b"\x0b\x0c",  # a group
        b"\x18" + b"\x80" * 11,  # a varint without an end
        b"<html>",
    ],
)
def test_what_is_no_message_is_told(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"field|varint"):
        list(fields(broken))
