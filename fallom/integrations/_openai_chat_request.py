"""What a request for a chat completion says: its parameters, and its messages in the convention's form."""

from __future__ import annotations

from typing import Any

from fallom.integrations import _attributes as names
from fallom.integrations._content import Part, Room, clean, field, items, plain_message
from fallom.integrations._reading import (
    SAMPLING,
    Parameters,
    blob,
    choice_count,
    count,
    file_part,
    text_part,
    words,
)

__all__ = ["PARAMETERS", "input_message", "tool_call"]


def _effort(value: Any) -> str | None:
    return clean(value)[:64] if isinstance(value, str) and value else None


def _format(value: Any) -> str | None:
    kind = field(value, "type")
    if kind in ("json_object", "json_schema"):
        return "json"
    return "text" if kind == "text" else None


PARAMETERS: Parameters = {
    **SAMPLING,
    "max_tokens": (names.MAX_TOKENS, count),
    "max_completion_tokens": (names.MAX_TOKENS, count),
    "n": (names.CHOICE_COUNT, choice_count),
    "stop": (names.STOP_SEQUENCES, words),
    "reasoning": (names.REASONING_LEVEL, lambda value: _effort(field(value, "effort"))),
    "reasoning_effort": (names.REASONING_LEVEL, _effort),
    "response_format": (names.OUTPUT_TYPE, _format),
    "modalities": (names.OUTPUT_TYPE, lambda value: "speech" if "audio" in items(value) else None),
}


def input_message(message: Any) -> Part | str:
    """Give a message of the conversation, or its JSON where that is known at once."""
    encoded = plain_message(message)
    if encoded:
        return encoded
    room = Room()
    role = field(message, "role")
    role = clean(role) if isinstance(role, str) else "user"
    content = field(message, "content")
    if role == "tool":
        response = content if isinstance(content, str) else room.plain(content)
        part = {"type": "tool_call_response", "response": room.plain(response)}
        identity = field(message, "tool_call_id")
        if isinstance(identity, str):
            part["id"] = room.text(identity)
        return {"role": role, "parts": [part]}
    parts = [_input_part(room, item) for item in items(content)]
    if isinstance(content, str):
        parts.append(text_part(room, content))
    elif content is not None and not parts and not isinstance(content, (list, tuple)):
        parts.append({"type": "other", "content": room.plain(content)})
    calls = list(items(field(message, "tool_calls")))
    if field(message, "function_call") is not None:
        calls.append({"function": field(message, "function_call")})
    parts += [tool_call(room, call) for call in calls]
    built: Part = {"role": role, "parts": parts}
    name = field(message, "name")
    if isinstance(name, str):
        built["name"] = room.text(name)
    return built


def _input_part(room: Room, item: Any) -> Part:
    kind = field(item, "type")
    if kind in ("text", "refusal"):
        return text_part(room, field(item, kind))
    if kind == "image_url":
        image = field(item, "image_url")
        return file_part(room, "image", image if isinstance(image, str) else field(image, "url"))
    if kind == "input_audio":
        audio = field(item, "input_audio")
        form = field(audio, "format")
        return blob(
            "audio", f"audio/{form}" if isinstance(form, str) else None, field(audio, "data")
        )
    if kind == "file":
        file = field(item, "file")
        if field(file, "file_id"):
            return {
                "type": "file",
                "modality": "file",
                "file_id": room.text(field(file, "file_id")),
            }
        return file_part(room, "file", field(file, "file_data"))
    return {"type": "other", "content": room.plain(item)}


def tool_call(room: Room, call: Any) -> Part:
    """Give a call of a tool, by the model's answer or by a message that repeats it."""
    function = field(call, "function") or field(call, "custom")
    part: Part = {"type": "tool_call", "name": room.text(field(function, "name") or "")}
    arguments = field(function, "arguments")
    part["arguments"] = room.arguments(field(function, "input") if arguments is None else arguments)
    if isinstance(field(call, "id"), str):
        part["id"] = room.text(field(call, "id"))
    return part
