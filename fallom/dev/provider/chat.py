"""Chat completions, plain and as stream chunks (OpenAI API reference, "Chat")."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from fallom.dev.provider.echo import Answer, answer_to, count_tokens, pieces

__all__ = ["chat_chunks", "chat_completion"]


def chat_completion(request: Mapping[str, Any]) -> dict[str, Any]:
    """Give a ``chat.completion``."""
    answers = _answers(request)
    choices = [
        {
            "index": i,
            "message": _message(answer),
            "logprobs": None,
            "finish_reason": answer.finish_reason,
        }
        for i, answer in enumerate(answers)
    ]
    return {
        **_head(request, "chat.completion"),
        "choices": choices,
        "usage": _usage(request, answers),
    }


def chat_chunks(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the ``chat.completion.chunk`` objects of a stream.

    Usage comes in a last chunk without choices, and only when ``stream_options`` asks for it.
    """
    answers = _answers(request)
    options = request.get("stream_options")
    has_usage = isinstance(options, Mapping) and bool(options.get("include_usage"))
    head = _head(request, "chat.completion.chunk")
    more = {"usage": None} if has_usage else {}

    def chunk(
        index: int, delta: dict[str, Any], finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return {**head, "choices": [choice], **more}

    for i, answer in enumerate(answers):
        yield chunk(i, {"role": "assistant", "content": None if answer.tool_name else ""})
        for delta in _deltas(answer):
            yield chunk(i, delta)
        yield chunk(i, {}, answer.finish_reason)
    if has_usage:
        yield {**head, "choices": [], "usage": _usage(request, answers)}


def _answers(request: Mapping[str, Any]) -> list[Answer]:
    number = request.get("n")
    answer = answer_to(request, request["messages"])
    return [answer] * (number if isinstance(number, int) and 1 <= number <= 128 else 1)


def _head(request: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_echo",
    }


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_name:
        message["content"] = None
        message["tool_calls"] = [_tool_call(answer)]
    return message


def _deltas(answer: Answer) -> Iterator[dict[str, Any]]:
    if not answer.tool_name:
        yield from ({"content": piece} for piece in pieces(answer.text))
        return
    call = _tool_call(answer)
    arguments = call["function"].pop("arguments")
    yield {"tool_calls": [{"index": 0, **call, "function": {**call["function"], "arguments": ""}}]}
    for piece in pieces(arguments):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _tool_call(answer: Answer) -> dict[str, Any]:
    function = {"name": answer.tool_name, "arguments": answer.tool_arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _usage(request: Mapping[str, Any], answers: list[Answer]) -> dict[str, Any]:
    prompt = count_tokens(request["messages"]) + count_tokens(str(request.get("tools") or ""))
    completion = sum(answer.tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
