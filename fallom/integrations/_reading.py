"""What the readers of all APIs share: request parameters, usage, choices, the parts of a message.

Everything is read by name from objects of the client libraries or from decoded JSON alike, and what
is not of the type that the convention has is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from fallom._core.span import AttributeValue
from fallom.integrations import _attributes as names
from fallom.integrations._content import (
    MESSAGE_CHARACTERS_MAX,
    Part,
    Room,
    clean,
    field,
    getter,
    items,
    quoted,
    quoted_content,
)

__all__ = [
    "SAMPLING",
    "Answer",
    "Gathered",
    "Parameters",
    "blob",
    "choice_count",
    "count",
    "counts",
    "file_part",
    "model_of",
    "parameters",
    "text_part",
    "token_count",
    "word",
    "words",
]

_COUNTS_END = 1 << 63  # what the wire can count to
_CHOICES_MAX = 128  # the most that any API allows for ``n``

# Parameter -> its attribute, and what reads its value; None for what is not of the attribute's type.
Parameters: TypeAlias = "Mapping[str, tuple[str, Callable[[Any], AttributeValue | None]]]"

# The convention's words for why an output message ended; others stay what they are.
_REASONS = {
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "tool_use": "tool_call",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


def model_of(body: Any) -> str:
    """Give the model that a request names, empty if it names none."""
    model = body.get("model") if type(body) is dict else field(body, "model")
    if type(model) is str and model.isascii():  # nearly all
        return model[:256]
    return clean(model)[:256] if isinstance(model, str) else ""


def token_count(source: Any, *path: str) -> int | None:
    """Give the whole number at the end of a path of fields, None if there is none."""
    for name in path:
        source = field(source, name)
    return count(source)


def words(value: Any) -> list[str] | None:
    """Give a string or a list of strings as a list, cleaned; None for none."""
    found = [value] if isinstance(value, str) else items(value)
    return [clean(word)[:1024] for word in found if isinstance(word, str)][:_CHOICES_MAX] or None


def counts(found: dict[str, Any], source: Any, attributes: Mapping[str, str]) -> None:
    """Add the whole numbers among the fields of ``source``, under the names that they have on a span."""
    if source is None:
        return
    get = getter(source)
    for name, attribute in attributes.items():
        value = get(name)
        if (
            type(value) is not int or value < 0 or value >= _COUNTS_END
        ):  # else it is what ``count`` gives
            value = count(value)
        if value is not None:
            found[attribute] = value


def count(value: Any) -> int | None:
    """Give what is a whole number that can be counted to, else None."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _COUNTS_END:
        return int(value)
    return None


def choice_count(value: Any) -> int | None:
    """Give how many choices were asked for, None if it is one, as ever."""
    return None if value == 1 else count(value)


def word(value: Any) -> str | None:
    """Give what is a text, as far as a name or the like is long; else None."""
    return clean(value)[:256] if isinstance(value, str) else None


def parameters(body: Any, known: Parameters) -> dict[str, AttributeValue]:
    """Give the attributes of those parameters of a request that are said; of two for one the later."""
    found: dict[str, AttributeValue] = {}
    is_dict = type(body) is dict
    if is_dict and known.keys().isdisjoint(body):
        return found
    for name, (attribute, read) in known.items():
        if not is_dict or name in body:
            value = read(field(body, name))
            if value is not None:
                found[attribute] = value
    return found


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _integer(value: Any) -> int | None:
    is_one = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    return int(value) if is_one else None


SAMPLING: Parameters = {  # those that all APIs name alike
    "temperature": (names.TEMPERATURE, _number),
    "top_p": (names.TOP_P, _number),
    "frequency_penalty": (names.FREQUENCY_PENALTY, _number),
    "presence_penalty": (names.PRESENCE_PENALTY, _number),
    "seed": (names.SEED, _integer),
    "top_k": (names.TOP_K, _integer),
    "stream": (names.STREAM, lambda value: True if value is True else None),
}


def text_part(room: Room, text: Any) -> Part:
    """Give a part of text."""
    return {"type": "text", "content": room.text(text)}


def blob(modality: str, mime_type: Any, data: Any) -> Part:
    """Give the part of a file that was sent by value: its size, never its bytes."""
    size = len(data) if isinstance(data, (str, bytes)) else 0
    part: Part = {"type": "blob", "modality": modality, "content": f"[cut: {size} characters]"}
    if isinstance(mime_type, str):
        part["mime_type"] = clean(mime_type)[:128]
    return part


def file_part(room: Room, modality: str, url: Any) -> Part:
    """Give the part of a file by its URL; of a data URL only type and size."""
    if isinstance(url, str) and not url.startswith("data:"):
        return {"type": "uri", "modality": modality, "uri": room.text(url)}
    mime_type = url[5:64].partition(";")[0] if isinstance(url, str) else None
    return blob(modality, mime_type, url)


class Gathered:
    """Text that arrives in pieces; what is beyond a message's limit is counted, not kept."""

    __slots__ = ("kept", "left")

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.left = MESSAGE_CHARACTERS_MAX  # below zero: what is not kept

    def add(self, piece: Any) -> None:
        """Take a piece; what is not text is passed over."""
        if not isinstance(piece, str) or not piece:
            return
        if self.left > 0:
            self.kept.append(piece[: self.left])
        self.left -= len(piece)

    def __bool__(self) -> bool:
        return self.left < MESSAGE_CHARACTERS_MAX

    def __str__(self) -> str:
        return "".join(self.kept) + (f"[cut: {-self.left} characters]" if self.left < 0 else "")


class Answer:
    """What is known so far of an answer, choice by choice."""

    __slots__ = ("id", "model", "reasons", "tool_calls", "usage")

    def __init__(self) -> None:
        self.id = ""
        self.model = ""
        self.usage: dict[str, AttributeValue] = {}
        self.reasons: dict[int, str] = {}
        self.tool_calls = 0

    def named(self, source: Any) -> None:
        """Take id and model of an answer or of a piece of it."""
        identity, model = field(source, "id"), field(source, "model")
        if identity != self.id and isinstance(identity, str) and identity:
            self.id = clean(identity)[:256]
        if model != self.model and isinstance(model, str) and model:
            self.model = clean(model)[:256]

    def choice(self, index: Any, reason: Any) -> int:
        """Take a choice's finish reason, if it is there, and give its index."""
        known: int = index if isinstance(index, int) and 0 <= index < _CHOICES_MAX else 0
        if isinstance(reason, str) and reason:
            self.reasons[known] = clean(reason)[:64]
        else:
            self.reasons.setdefault(known, "")
        return known

    def message(self, index: int, role: Any, parts: list[Part]) -> Part:
        """Give an output message of the convention."""
        reason = self.reasons.get(index) or "error"
        return {
            "role": role if isinstance(role, str) else "assistant",
            "parts": parts,
            "finish_reason": _REASONS.get(reason, reason),
        }

    def text_message(self, index: int, role: Any, text: str) -> str:
        """Give the JSON of an output message of one text, which most are; see ``plain_message``."""
        reason = self.reasons.get(index) or "error"
        role = role if isinstance(role, str) else "assistant"
        return (
            f'{{"role":{quoted(role)},"parts":[{{"type":"text","content":{quoted_content(text)}}}]'
            f',"finish_reason":{quoted(_REASONS.get(reason, reason))}}}'
        )

    def attributes(self) -> dict[str, AttributeValue]:
        """Give the answer's attributes. A reason that never came reads ``error``."""
        found = dict(self.usage)
        if self.id:
            found[names.RESPONSE_ID] = self.id
        if self.model:
            found[names.RESPONSE_MODEL] = self.model
        if self.tool_calls:
            found[names.TOOL_CALLS] = self.tool_calls
        if self.reasons:
            found[names.FINISH_REASONS] = [self.reasons[i] or "error" for i in sorted(self.reasons)]
        return found
