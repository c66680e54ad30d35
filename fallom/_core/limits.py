"""What a record may hold: values made fit for the spool and for OTLP, and records cut to size.

Nothing that an application records is ever refused for what it is: it is replaced or cut, and the cut is
marked. Only what has no place even then is given up by the caller of this module, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fallom._core.span import Span

__all__ = ["clean_mapping", "clean_value", "cut_span"]

DEPTH_MAX = 8
ITEMS_MAX = 1000
TEXT_MAX = 256 << 10  # characters of one text
CUT_MARK = "fallom.cut"  # attribute: names of the attributes that were cut to make the span fit

_INT64_MAX = (1 << 63) - 1


def clean_mapping(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Give a mapping with text keys and values that msgpack, JSON and OTLP can say."""
    return {
        str(name): clean_value(value)
        for name, value in list(values.items())[:ITEMS_MAX]
        if value is not None
    }


def clean_value(value: Any, depth: int = 0) -> Any:
    """Give a value that msgpack, JSON and OTLP can say; cycles end at a depth of 8."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, str):
        return cut_text(str(value), TEXT_MAX)
    if isinstance(value, int):
        return int(value) if abs(value) <= _INT64_MAX else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if depth >= DEPTH_MAX:
        return f"<{type(value).__name__}>"
    return _clean_object(value, depth)


def _clean_object(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        items = list(value.items())[:ITEMS_MAX]
        return {_text_of(name): clean_value(item, depth + 1) for name, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [clean_value(item, depth + 1) for item in list(value)[:ITEMS_MAX]]
    return cut_text(_text_of(value), TEXT_MAX)


def cut_text(text: str, characters_max: int) -> str:
    """Cut a text, saying how much is missing."""
    if len(text) <= characters_max:
        return text
    return f"{text[:characters_max]}[cut: {len(text) - characters_max} characters]"


def cut_span(span: Span, size_of: Callable[[Span], int], bytes_max: int) -> Span | None:
    """Cut the largest texts of a span until it fits.

    Args:
        span: With values that can be packed.
        size_of: Gives the packed size.
        bytes_max: What it has to fit into.

    Returns:
        The span with shorter texts and an attribute that names them; None if it never fits.
    """
    attributes = dict(span.attributes)
    cut: list[str] = []
    limit = bytes_max // 4
    while limit >= 64:
        for name, value in attributes.items():
            if isinstance(value, str) and len(value) > limit:
                attributes[name] = cut_text(value, limit)
                cut.append(name)
        marked = {**attributes, CUT_MARK: sorted(set(cut))} if cut else attributes
        shorter = span._replace(
            attributes=marked, status_message=cut_text(span.status_message, limit), events=()
        )
        if size_of(shorter) <= bytes_max:
            return shorter
        limit //= 4
    return None


def _text_of(value: Any) -> str:
    """Give the text of any object; one whose own text fails is named by its type."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - __str__ is the application's code
        return f"<{type(value).__name__}>"
