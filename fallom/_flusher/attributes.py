"""Attributes to OTLP: ``KeyValue`` and ``AnyValue`` as protobuf bytes, the frequent ones remembered.

| message | field | key byte |
| --- | --- | --- |
| KeyValue | 1 key: string, 2 value: AnyValue | ``0a``, ``12`` |
| AnyValue, one of | 1 string, 2 bool, 3 int64, 4 double, 5 ArrayValue, 7 bytes | ``0a 10 18 21 2a 3a`` |
| ArrayValue | 1 values: AnyValue, repeated | ``0a`` |

Source: opentelemetry/proto/common/v1/common.proto, https://github.com/open-telemetry/opentelemetry-proto

Most attributes of an application are the same from span to span (model, provider, config, host), so a
pair is encoded once and then looked up. What is remembered is bounded in number and in size.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from fallom._flusher.wire import field, varint

__all__ = ["AttributeEncoder", "utf8"]

REMEMBERED_MAX = 4096  # of each kind: more than an application has that recur, and about a megabyte
REMEMBERED_BYTES_MAX = 256  # of one pair; longer ones are hardly ever the same

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_DOUBLE = struct.Struct("<Bd")
_TRUE, _FALSE = b"\x10\x01", b"\x10\x00"
_FLOAT = struct.Struct("<d").pack
_DOUBLE_BYTES = 8
# The keys and lengths before a text whose lengths are of one byte.
_SHORT_TEXT = [bytes((0x12, length + 2, 0x0A, length)) for length in range(126)]


class AttributeEncoder:
    """Encodes attributes. Threads may share one: at worst two of them encode the same pair."""

    def __init__(self, remembered_max: int = REMEMBERED_MAX) -> None:
        """Start with nothing remembered."""
        self._remembered_max = remembered_max
        # By name and value. Numbers apart from all others, because 1 and True are equal as keys.
        self._pairs: dict[tuple[str, Any], bytes] = {}
        self._numbers: dict[tuple[str, int], bytes] = {}
        self._names: dict[str, bytes] = {}
        self._floats: dict[str, bytes] = {}  # all of a pair but the eight bytes of the number

    def fields(self, key: bytes, attributes: Mapping[Any, Any]) -> bytes:
        """Give a repeated field of ``KeyValue`` messages; what is None is left out.

        Args:
            key: Key byte of the field that the pairs are of; each begins with it.
            attributes: Whatever msgpack can hold. A name becomes text, and so does a value that OTLP
                does not have.
        """
        known, numbers, floats = self._pairs, self._numbers, self._floats
        pairs = [b""]
        for name, value in attributes.items():
            kind = type(value)
            if kind is str:
                # A long text does not recur, and to look it up is to hash all of it.
                pair = known.get((name, value)) if len(value) <= REMEMBERED_BYTES_MAX else None
                pairs.append(pair if pair is not None else self._text_pair(name, value))
            elif kind is int:
                pair = numbers.get((name, value))
                pairs.append(pair if pair is not None else self._number_pair(name, value))
            elif kind is float:
                head = floats.get(name)
                pairs.append((head if head is not None else self._float_head(name)) + _FLOAT(value))
            elif value is not None:
                pairs.append(self._other_pair(name, value))
        return key.join(pairs)

    def _text_pair(self, name: Any, value: str) -> bytes:
        text = value.encode("utf-8", "replace")
        named, length = self._named(name), len(text)
        if length < len(_SHORT_TEXT):
            head = _SHORT_TEXT[length]
        else:
            inner = b"".join((b"\x0a", varint(length)))
            head = b"".join((b"\x12", varint(len(inner) + length), inner))
        pair = b"".join((varint(len(named) + len(head) + length), named, head, text))
        if len(pair) <= REMEMBERED_BYTES_MAX and type(name) is str:
            self._make_room(self._pairs)
            self._pairs[name, value] = pair
        return pair

    def _number_pair(self, name: Any, value: int) -> bytes:
        pair = self._pair(name, _any_value(value))
        if len(pair) <= REMEMBERED_BYTES_MAX and type(name) is str:
            self._make_room(self._numbers)
            self._numbers[name, value] = pair
        return pair

    def _float_head(self, name: Any) -> bytes:
        head = self._pair(name, _any_value(0.0))[:-_DOUBLE_BYTES]
        if len(head) <= REMEMBERED_BYTES_MAX and type(name) is str:
            self._make_room(self._floats)
            self._floats[name] = head
        return head

    def _other_pair(self, name: Any, value: Any) -> bytes:
        kind = type(value)
        is_texts = kind in (list, tuple) and all(type(each) is str for each in value)
        key = (name, tuple(value)) if is_texts else (name, value)
        if not (is_texts or kind is bool) or type(name) is not str:
            return self._pair(name, _any_value(value))
        pair = self._pairs.get(key)
        if pair is None:
            pair = self._pair(name, _any_value(value))
            if len(pair) <= REMEMBERED_BYTES_MAX:
                self._make_room(self._pairs)
                self._pairs[key] = pair
        return pair

    def _pair(self, name: Any, value: bytes) -> bytes:
        """Give a ``KeyValue`` behind its length."""
        named, held = self._named(name), field(b"\x12", value)
        return b"".join((varint(len(named) + len(held)), named, held))

    def _named(self, name: Any) -> bytes:
        """Give the field of a name."""
        named = self._names.get(name) if type(name) is str else None
        if named is None:
            text = utf8(name)
            named = field(b"\x0a", text) if text else b""
            if len(named) <= REMEMBERED_BYTES_MAX and type(name) is str:
                self._make_room(self._names)
                self._names[name] = named
        return named

    def _make_room(self, remembered: dict[Any, bytes]) -> None:
        """Forget all where it is full: what recurs is back at once, and no order has to be kept."""
        if len(remembered) >= self._remembered_max:
            remembered.clear()


def utf8(value: Any) -> bytes:
    """Give text as protobuf takes it: half of a surrogate pair becomes a question mark."""
    text = value if isinstance(value, str) else str(value)
    return text.encode("utf-8", "replace")


def _any_value(value: Any) -> bytes:
    """Give a value as OTLP has it; nested ones as JSON text.

    Nested AnyValues could be sent at any depth, but a parser refuses them, and their whole batch, at 100.
    """
    if isinstance(value, bytes):
        return field(b"\x3a", value)
    if _is_scalar(value):
        return _scalar(value)
    if isinstance(value, (list, tuple)) and all(map(_is_scalar, value)):
        values = b"".join([field(b"\x0a", _scalar(each)) for each in value])
        return field(b"\x2a", values)  # an empty list is a list
    return field(b"\x0a", utf8(_json(value)))


def _scalar(value: Any) -> bytes:
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int) and _INT64_MIN <= value <= _INT64_MAX:
        return b"\x18" + varint(value)
    if isinstance(value, float):
        return _DOUBLE.pack(0x21, value)
    return field(b"\x0a", utf8(value))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float))


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError, TypeError):
        return str(type(value).__name__)
