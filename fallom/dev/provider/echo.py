"""What the echo says: pure functions from a request's JSON to an answer's parts."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = [
    "Answer",
    "Refusal",
    "answer_to",
    "count_tokens",
    "embedding",
    "pieces",
    "refusal_for",
    "text_of",
]

_TOKEN_BYTES: Final = 4  # what English text has on average; an estimate is all that is promised
_MESSAGE_TOKENS: Final = 4  # role and separators
_ASKED_TO_FAIL: Final = re.compile(r"fail-([45]\d\d)")
_EXAMPLE_DEPTH_MAX: Final = 16
_CODES: Final = {
    401: ("invalid_api_key", "invalid_request_error"),
    404: ("model_not_found", "invalid_request_error"),
    429: ("rate_limit_exceeded", "requests"),
}


class Answer(NamedTuple):
    """One choice."""

    text: str
    finish_reason: str
    tool_name: str = ""  # the function to call, when one was demanded
    tool_arguments: str = ""

    @property
    def tokens(self) -> int:
        """How many tokens the answer has."""
        return count_tokens(self.text or self.tool_arguments)


class Refusal(NamedTuple):
    """An error as the OpenAI API words it."""

    status: int
    message: str
    kind: str
    code: str | None
    param: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the body."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


def refusal_for(model: str) -> Refusal | None:
    """Give the error that the model's name asks for, or None."""
    asked = _ASKED_TO_FAIL.search(model)
    if not asked:
        return None
    status = int(asked[1])
    code, kind = _CODES.get(
        status, (None, "server_error" if status >= 500 else "invalid_request_error")
    )
    return Refusal(status, f"The model {model!r} fails on request.", kind, code)


def answer_to(request: Mapping[str, Any], messages: list[Any]) -> Answer:
    """Give the answer to a conversation: a demanded tool call, a demanded form, or the echo."""
    tool = _demanded_tool(request)
    if tool is not None:
        schema = tool.get("parameters")
        arguments = json.dumps(_example(schema if isinstance(schema, dict) else {}))
        return Answer("", "tool_calls", tool["name"], arguments)
    schema = _demanded_schema(request)
    text = _last_user_text(messages) if schema is None else json.dumps(_example(schema))
    limit = next(
        (
            request[name]
            for name in ("max_completion_tokens", "max_tokens", "max_output_tokens")
            if isinstance(request.get(name), int)
        ),
        None,
    )
    if limit is not None and count_tokens(text) > limit:
        cut = text.encode()[: max(limit, 0) * _TOKEN_BYTES].decode(errors="ignore")
        return Answer(cut, "length")
    return Answer(text, "stop")


def count_tokens(value: Any) -> int:
    """Estimate the tokens of a text, a message, or a list of either."""
    if isinstance(value, str):
        return math.ceil(len(value.encode(errors="replace")) / _TOKEN_BYTES)
    if isinstance(value, Mapping):
        return _MESSAGE_TOKENS + count_tokens(text_of(value.get("content")))
    if isinstance(value, list):
        return sum(count_tokens(item) for item in value)
    return 0


def text_of(content: Any) -> str:
    """Give the text of a message's content, which is a text or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, Mapping))
    return "".join(text for text in texts if isinstance(text, str))


def pieces(text: str) -> Iterator[str]:
    """Split a text into words with their spaces, as a stream sends it; they join to the text."""
    return (match[0] for match in re.finditer(r"\s*\S+\s*|\s+", text))


def embedding(text: str, dimensions: int) -> list[float]:
    """Give a unit vector that depends on the text alone; exact in 32 bits."""
    raw = b"".join(
        hashlib.sha256(f"{i}:{text}".encode(errors="replace")).digest()
        for i in range(math.ceil(dimensions / 16))
    )
    numbers = [value / 32768 for value in struct.unpack(f"<{len(raw) // 2}h", raw)[:dimensions]]
    norm = math.sqrt(sum(value * value for value in numbers)) or 1.0
    packed = struct.pack(f"<{dimensions}f", *(value / norm for value in numbers))
    return list(struct.unpack(f"<{dimensions}f", packed))


def _last_user_text(messages: list[Any]) -> str:
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role", "user") == "user":
            return text_of(message.get("content"))
    return "(no user message)"


def _demanded_tool(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the function that must be called; both APIs' forms of a tool are understood."""
    choice = request.get("tool_choice")
    if choice != "required" and not isinstance(choice, Mapping):
        return None
    chosen = _function(choice) or {}
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        function = _function(tool)
        if function and chosen.get("name") in (None, function.get("name")):
            return {**function, "name": str(function.get("name", ""))}
    return None


def _function(tool: Any) -> dict[str, Any] | None:
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    return inner if isinstance(inner, dict) else None


def _demanded_schema(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the JSON schema that the answer must have; both APIs' forms are understood."""
    text = request.get("text")
    form = request.get("response_format") or (
        text.get("format") if isinstance(text, dict) else None
    )
    if not isinstance(form, Mapping):
        return None
    if form.get("type") == "json_schema":
        inner = form.get("json_schema", form)
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
        return schema if isinstance(schema, dict) else {}
    return {} if form.get("type") == "json_object" else None


def _example(schema: dict[str, Any]) -> Any:
    """Give a small value that fits a schema, as far as strict schemas go."""
    definitions = schema.get("$defs")
    definitions = definitions if isinstance(definitions, Mapping) else {}

    def build(part: Any, depth: int) -> Any:  # noqa: PLR0911  a case a line
        if not isinstance(part, Mapping) or depth > _EXAMPLE_DEPTH_MAX:
            return None
        if "$ref" in part:
            return build(definitions.get(str(part["$ref"]).rpartition("/")[2]), depth + 1)
        for name in ("anyOf", "oneOf", "allOf"):
            if _is_filled(part.get(name)):
                return build(part[name][0], depth + 1)
        if "const" in part:
            return part["const"]
        if _is_filled(part.get("enum")):
            return part["enum"][0]
        kind = part.get("type", "object")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        if kind == "object":
            properties = part.get("properties")
            properties = properties if isinstance(properties, Mapping) else {}
            return {name: build(value, depth + 1) for name, value in properties.items()}
        if kind == "array":
            return [build(part.get("items"), depth + 1)] if part.get("minItems") else []
        return {"string": "echo", "integer": 1, "number": 1.5, "boolean": True}.get(str(kind))

    return build(schema, 0)


def _is_filled(value: Any) -> bool:
    return isinstance(value, list) and bool(value)
