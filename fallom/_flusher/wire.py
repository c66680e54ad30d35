"""Protobuf's wire format, as much of it as OTLP needs.

A message is a run of fields. A field is a key, then a value; the key is the varint of
``field number << 3 | wire type``:

| wire type | value | for |
| --- | --- | --- |
| 0 | a varint | int64, uint32, bool, enum |
| 1 | 8 bytes, little-endian | fixed64, double |
| 2 | a varint, the length, then that many bytes | string, bytes, messages, packed lists |
| 5 | 4 bytes, little-endian | fixed32, float |

A varint has seven bits a byte, the lowest first, and the highest bit set in all but the last; a negative
int64 is its two's complement, ten bytes. Fields may come in any order, unknown ones are skipped, and of
a field that comes twice the last holds. Source: https://protobuf.dev/programming-guides/encoding/

Worked example, a message whose field 1 is the text "hi" and whose field 3 is the number 300::

    0a 02 68 69  18 ac 02
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["field", "fields", "varint"]

_VARINT_BYTES_MAX = 10
_FIXED_BYTES = {1: 8, 5: 4}  # by wire type
_ONE_BYTE = [bytes((number,)) for number in range(0x80)]


def varint(number: int) -> bytes:
    """Give a number of 64 bits as a varint; a negative one as its two's complement."""
    if 0 <= number < 0x80:
        return _ONE_BYTE[number]
    if 0 <= number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    number &= (1 << 64) - 1
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def field(key: bytes, value: bytes) -> bytes:
    """Give a field of wire type 2."""
    return b"".join((key, varint(len(value)), value))


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Give the fields of a message: field number, and the number or bytes as they stand there.

    Raises:
        ValueError: This is no message.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = _read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        value: int | bytes
        if not number:
            raise ValueError("a field without a number")
        if wire_type == 0:
            value, position = _read_varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _read_varint(message, position)
        else:
            length = _FIXED_BYTES.get(wire_type, end + 1)
        if position + length > end:
            raise ValueError(f"a field of wire type {wire_type} that does not end")
        yield number, message[position : position + length]
        position += length


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """Give the number that begins at ``position``, and where it ends."""
    number = 0
    for count, byte in enumerate(message[position : position + _VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return number & (1 << 64) - 1, position + count + 1
    raise ValueError("a varint that does not end")
