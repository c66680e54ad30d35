"""Responses, plain and as stream events (OpenAI API reference, "Responses")."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from fallom.dev.provider.echo import Answer, answer_to, count_tokens, pieces

__all__ = ["response_events", "response_object"]


def response_object(request: Mapping[str, Any]) -> dict[str, Any]:
    """Give a ``response``."""
    answer = answer_to(request, _messages(request))
    return _finished(request, answer, _head(request), _item(answer))


def response_events(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the events of a stream, numbered; the last one has the usage."""
    for number, event in enumerate(_events(request)):
        yield {**event, "sequence_number": number}


def _events(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    answer = answer_to(request, _messages(request))
    head, item = _head(request), _item(answer)
    started = {**head, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    hollow: dict[str, Any] = {"arguments": ""} if answer.tool_name else {"content": []}
    empty = {**item, **hollow, "status": "in_progress"}
    yield {"type": "response.output_item.added", "output_index": 0, "item": empty}
    if answer.tool_name:
        yield from _argument_events(answer, item)
    else:
        yield from _text_events(answer, item)
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    whole = _finished(request, answer, head, item)
    yield {"type": f"response.{whole['status']}", "response": whole}


def _text_events(answer: Answer, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.content_part.added", **place, "part": _part("")}
    for piece in pieces(answer.text):
        event = {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
        yield event
    event = {"type": "response.output_text.done", **place, "text": answer.text, "logprobs": []}
    yield event
    yield {"type": "response.content_part.done", **place, "part": _part(answer.text)}


def _argument_events(answer: Answer, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": 0}
    kind = "response.function_call_arguments"
    for piece in pieces(answer.tool_arguments):
        yield {"type": f"{kind}.delta", **place, "delta": piece}
    yield {
        "type": f"{kind}.done",
        **place,
        "name": answer.tool_name,
        "arguments": answer.tool_arguments,
    }


def _messages(request: Mapping[str, Any]) -> list[Any]:
    given = request["input"]
    return given if isinstance(given, list) else [{"role": "user", "content": given}]


def _head(request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "model": request["model"],
        "error": None,
        "incomplete_details": None,
        "instructions": request.get("instructions"),
        "metadata": request.get("metadata") or {},
        "parallel_tool_calls": True,
        "temperature": request.get("temperature", 1.0),
        "top_p": request.get("top_p", 1.0),
        "tool_choice": request.get("tool_choice") or "auto",
        "tools": request.get("tools") or [],
        "text": request.get("text") or {"format": {"type": "text"}},
        "previous_response_id": request.get("previous_response_id"),
    }


def _item(answer: Answer) -> dict[str, Any]:
    if answer.tool_name:
        return {
            "id": f"fc_{uuid.uuid4().hex}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{uuid.uuid4().hex[:24]}",
            "name": answer.tool_name,
            "arguments": answer.tool_arguments,
        }
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "status": "incomplete" if answer.finish_reason == "length" else "completed",
        "role": "assistant",
        "content": [_part(answer.text)],
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _finished(
    request: Mapping[str, Any], answer: Answer, head: dict[str, Any], item: dict[str, Any]
) -> dict[str, Any]:
    is_cut = answer.finish_reason == "length"
    given = count_tokens(_messages(request)) + count_tokens(str(request.get("instructions") or ""))
    return {
        **head,
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "output": [item],
        "usage": {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answer.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + answer.tokens,
        },
    }
