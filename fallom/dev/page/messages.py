"""``messages_of``: the messages of a call, as a person reads them. Pure.

They come in the JSON form of OpenTelemetry's GenAI conventions (v1.41, role with parts), or of the
chat APIs (role with content). What fits neither form is shown as it came.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["Message", "Part", "instructions_of", "messages_of", "parsed", "pretty", "text_of"]

_MESSAGES_MAX: Final = 400
_TEXT_CHARACTERS_MAX: Final = 200_000  # of one part on the page; the store has all of it


class Part(NamedTuple):
    """A piece of a message."""

    kind: str  # text, reasoning, tool_call, tool_response, media, json
    text: str
    name: str = ""  # of a tool, or what sort of media
    id: str = ""
    is_json: bool = False


class Message(NamedTuple):
    """Who said what."""

    role: str
    name: str
    parts: tuple[Part, ...]
    finish: str = ""


def messages_of(value: Any) -> list[Message]:
    """Give the messages in an attribute's value; an empty list when there are none to read."""
    found = parsed(value)
    if isinstance(found, dict):
        found = [found]
    if isinstance(found, str):
        return [Message("", "", (Part("text", found[:_TEXT_CHARACTERS_MAX]),))] if found else []
    if not isinstance(found, list):
        return []
    return [_message(one) for one in found[:_MESSAGES_MAX]]


def instructions_of(value: Any) -> list[Message]:
    """Give system instructions, which are parts without a role, as one message."""
    found = parsed(value)
    if not found:
        return []
    return [Message("system", "", tuple(_parts(found)))]


def text_of(message: Message) -> str:
    """Give what of a message is text; tool calls by name."""
    said = []
    for part in message.parts:
        if part.kind == "text":
            said.append(part.text)
        elif part.kind == "tool_call":
            said.append(f"{part.name}({part.text})")
        elif part.kind == "tool_response":
            said.append(part.text)
    return "\n".join(said)


def parsed(value: Any) -> Any:
    """Give JSON text as data, anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def pretty(value: Any) -> tuple[str, bool]:
    """Give a value as text to read, and whether it is JSON."""
    found = parsed(value)
    if isinstance(found, str):
        return found[:_TEXT_CHARACTERS_MAX], False
    try:
        text = json.dumps(found, ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return str(value)[:_TEXT_CHARACTERS_MAX], False
    return text[:_TEXT_CHARACTERS_MAX], isinstance(found, dict | list)


def _message(one: Any) -> Message:
    if not isinstance(one, Mapping):
        text, is_json = pretty(one)
        return Message("", "", (Part("text", text, is_json=is_json),))
    parts = list(_parts(one.get("parts", one.get("content"))))
    calls = one.get("tool_calls")
    if isinstance(calls, list):
        parts += [_chat_tool_call(call) for call in calls if isinstance(call, Mapping)]
    role = str(one.get("role") or "")
    if role == "tool" and "tool_call_id" in one:
        text = "\n".join(part.text for part in parts)
        parts = [_response(text, str(one["tool_call_id"]), str(one.get("name") or ""))]
    return Message(
        role, str(one.get("name") or ""), tuple(parts), str(one.get("finish_reason") or "")
    )


def _parts(value: Any) -> Iterator[Part]:
    if value is None or value == "":
        return
    if not isinstance(value, list):
        value = [value]
    for one in value:
        yield _part(one)


def _part(one: Any) -> Part:  # noqa: PLR0911  one return a kind
    if not isinstance(one, Mapping):
        text, is_json = pretty(one)
        return Part("text", text, is_json=is_json)
    kind = one.get("type")
    if kind in ("text", "input_text", "output_text"):
        text, is_json = pretty(one.get("content", one.get("text", "")))
        return Part("text", text, is_json=is_json)
    if kind in ("reasoning", "thinking"):
        return Part("reasoning", pretty(one.get("content", one.get("thinking", "")))[0])
    if kind in ("tool_call", "tool_use", "server_tool_call"):
        text, is_json = pretty(one.get("arguments", one.get("input", {})))
        return Part(
            "tool_call", text, str(one.get("name") or "?"), str(one.get("id") or ""), is_json
        )
    if kind in ("tool_call_response", "tool_result"):
        result = one.get("response", one.get("result", one.get("content")))
        return _response(result, str(one.get("id") or one.get("tool_use_id") or ""), "")
    if kind in ("blob", "uri", "file"):
        where = one.get("uri") or one.get("file_id") or one.get("mime_type") or ""
        size = f"{len(str(one.get('content', '')))} characters of base64" if kind == "blob" else ""
        what = str(one.get("modality") or kind)
        return Part("media", " · ".join(filter(None, (str(where), size))), what)
    text, is_json = pretty(dict(one))
    return Part("json", text, str(kind or ""), is_json=is_json)


def _response(result: Any, call_id: str, name: str) -> Part:
    text, is_json = pretty(result)
    return Part("tool_response", text, name, call_id, is_json)


def _chat_tool_call(call: Mapping[str, Any]) -> Part:
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    text, is_json = pretty(function.get("arguments", ""))
    name = str(function.get("name") or "?")
    return Part("tool_call", text, name, str(call.get("id") or ""), is_json)
