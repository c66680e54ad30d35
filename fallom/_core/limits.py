"""What a record may hold: values made fit for the spool and for OTLP, and records cut to size.

Nothing that an application records is ever refused for what it is: it is replaced or cut, and says so in
its place. The methods of recorded objects are the application's code, and may raise or lie.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from fallom._core.content import is_body
from fallom._core.span import Span

__all__ = [
    "SHED_MARK",
    "clean_mapping",
    "clean_record",
    "clean_value",
    "cut_record",
    "cut_text",
    "shed_content",
]

DEPTH_MAX = 8
ITEMS_MAX = 1000
RECORDS_MAX = 100  # within a record: events, links
NAME_MAX = 256  # characters of an attribute's name
TEXT_MAX = 256 << 10  # characters of one text
CUT_MARK = "fallom.cut"  # attribute: names of the attributes that were cut to make the record fit
CUT_NAMES_MAX = 50
SHED_MARK = "fallom.shed"  # attribute: bodies were left out because the spool is near its limit

_INT64_MAX = (1 << 63) - 1
_Record = TypeVar("_Record", bound=Any)


def clean_record(record: _Record) -> _Record:
    """Give a record, a named tuple, with values that msgpack, JSON and OTLP can say."""
    fields = {name: _clean_field(value) for name, value in record._asdict().items()}
    cleaned: _Record = record._replace(**fields)
    return cleaned


def clean_mapping(values: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """Give a mapping with text keys and values that msgpack, JSON and OTLP can say; None is left out."""
    found: dict[str, Any] = {}
    for name, value in _first(values.items()):
        if value is not None or depth:
            found[cut_text(_text_of(name), NAME_MAX)] = clean_value(value, depth + 1)
    if len(values) > ITEMS_MAX:
        found["..."] = f"<{len(values) - ITEMS_MAX} more>"
    return found


def clean_value(value: Any, depth: int = 0) -> Any:
    """Give a value that msgpack, JSON and OTLP can say; cycles end at a depth of 8. Never raises."""
    try:
        return _cleaned(value, depth)
    except Exception:  # noqa: BLE001 - the methods of the value are the application's code
        return f"<{type(value).__name__}>"


def cut_text(text: str, characters_max: int) -> str:
    """Cut a text, saying how much is missing."""
    if len(text) <= characters_max:
        return text
    return f"{text[:characters_max]}[cut: {len(text) - characters_max} characters]"


def cut_record(record: _Record, size_of: Callable[[_Record], int], bytes_max: int) -> Any:
    """Cut the largest texts of a record until it fits.

    Args:
        record: A named tuple with values that can be packed.
        size_of: Gives the packed size.
        bytes_max: What it has to fit into.

    Returns:
        The record with shorter texts, and where it has attributes one that names them; None if it
        never fits.
    """
    limit = bytes_max // 4
    while limit >= 64:
        cut: set[str] = set()
        fields = {name: _cut_field(name, v, limit, cut) for name, v in record._asdict().items()}
        if cut and "attributes" in fields:
            fields["attributes"][CUT_MARK] = sorted(cut)[:CUT_NAMES_MAX]
        shorter = record._replace(**fields)
        if size_of(shorter) <= bytes_max:
            return shorter
        limit //= 4
    return None


def shed_content(span: Span) -> Span:
    """Give the span without bodies of messages, and with a mark if it had any."""
    named = [*span.attributes, *(name for event in span.events for name in event.attributes)]
    if not any(map(_holds_body, named)):
        return span
    attributes = {**_without_bodies(span.attributes), SHED_MARK: True}
    events = [event._replace(attributes=_without_bodies(event.attributes)) for event in span.events]
    return span._replace(attributes=attributes, events=events)


def _clean_field(value: Any) -> Any:
    """Clean one field of a record: a value, a mapping of attributes, or records within it."""
    if isinstance(value, bytes):
        return value  # an id
    if isinstance(value, Mapping):
        return clean_mapping(value)
    if hasattr(value, "_asdict"):
        return clean_record(value)
    if isinstance(value, (list, tuple)):
        return [_clean_field(item) for item in _first(value)]
    if isinstance(value, int):  # a time, a count: as text it would be a record of no kind
        return max(-_INT64_MAX, min(int.__index__(value), _INT64_MAX))
    return clean_value(value)


def _without_bodies(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if not _holds_body(name)}


def _holds_body(name: Any) -> bool:
    """Tell whether an attribute holds a body; its name may not even be text yet."""
    return isinstance(name, str) and is_body(name)


def _cleaned(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return _cleaned_scalar(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return _cleaned_items(value, depth) if depth < DEPTH_MAX else f"<{type(value).__name__}>"
    number = _number_of(value)
    return cut_text(_text_of(value), TEXT_MAX) if number is None else number


def _cleaned_scalar(value: Any) -> Any:
    """Give a plain scalar for one of any subclass, whose methods may be the application's."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return cut_text(str.__str__(value), TEXT_MAX)
    if isinstance(value, float):
        return float.__float__(value)
    number = int.__index__(value)
    return number if abs(number) <= _INT64_MAX else _huge(number)


def _cleaned_items(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return clean_mapping(value, depth)
    items = [clean_value(item, depth + 1) for item in _first(value)]
    if len(value) > ITEMS_MAX:
        items.append(f"<{len(value) - ITEMS_MAX} more>")
    return items


def _number_of(value: Any) -> int | float | None:
    """Give the number that a scalar of numpy or the like is; None for all else."""
    kind = type(value)
    try:
        if hasattr(kind, "__index__"):
            number = int(value.__index__())
            return number if abs(number) <= _INT64_MAX else None
        if hasattr(kind, "__float__") and kind.__name__ != "Decimal":
            return float(value)
    except Exception:  # noqa: BLE001 - the application's code: an array has no one number
        return None
    return None


def _huge(number: int) -> str:
    """Give a number beyond 64 bits as text; Python refuses decimal text of thousands of digits."""
    return str(number) if number.bit_length() <= 4096 else f"<int of {number.bit_length()} bits>"


def _text_of(value: Any) -> str:
    """Give the text of any object; one whose own text fails is named by its type."""
    try:
        return str.__str__(value) if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001 - __str__ is the application's code
        return f"<{type(value).__name__}>"


def _first(items: Iterable[Any]) -> Iterator[Any]:
    return islice(iter(items), ITEMS_MAX)


def _cut_field(name: str, value: Any, limit: int, cut: set[str]) -> Any:
    """Cut one field of a record, adding what was cut to ``cut``."""
    if isinstance(value, Mapping):
        return _cut_mapping(value, limit, cut)
    if hasattr(value, "_asdict"):
        fields = {n: _cut_field(n, v, limit, cut) for n, v in value._asdict().items()}
        return value._replace(**fields)
    if isinstance(value, (list, tuple)):
        if len(value) > RECORDS_MAX:
            cut.add(name)
        return [_cut_field(name, item, limit, cut) for item in value[:RECORDS_MAX]]
    return _cut_value(name, value, limit, cut) if isinstance(value, str) else value


def _cut_value(name: str, value: Any, limit: int, cut: set[str]) -> Any:
    """Cut one value, adding its name to ``cut`` if that changed it."""
    shorter = value
    if isinstance(value, str):
        shorter = cut_text(value, limit)
    elif isinstance(value, (Mapping, list, tuple)):
        shorter = _cut_json(value, limit)
    elif isinstance(value, (bytes, bytearray)) and len(value) > limit:
        shorter = f"<{len(value)} bytes>"
    if shorter is not value:
        cut.add(name)
    return shorter


def _cut_mapping(values: Mapping[Any, Any], limit: int, cut: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in _first(values.items()):
        text = cut_text(_text_of(name), min(NAME_MAX, limit))
        found[text] = _cut_value(text, value, limit, cut)
    if len(values) > ITEMS_MAX:
        cut.add(f"<{len(values) - ITEMS_MAX} more>")
    return found


def _cut_json(value: Any, limit: int) -> Any:
    """Give a nested value as it is, or as text that was cut if that would be too long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_text_of)
    except (TypeError, ValueError, RecursionError):
        text = _text_of(value)
    return value if len(text) <= limit else cut_text(text, limit)
