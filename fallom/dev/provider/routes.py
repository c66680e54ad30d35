"""The provider's HTTP face: what is asked is checked here, what is answered comes from elsewhere."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from fallom.dev.answers import JsonAnswer
from fallom.dev.body import read_json_object
from fallom.dev.provider.chat import chat_chunks, chat_completion
from fallom.dev.provider.echo import Refusal, count_tokens, embedding, refusal_for
from fallom.dev.provider.responses import response_events, response_object

__all__ = ["provider_routes"]

_MODELS: Final = ("echo", "slow", "fail-429", "fail-500", "gpt-4o", "gpt-4o-mini")
_SLOW_S: Final = 0.05  # between the pieces of a slow answer; long enough to watch
_DIMENSIONS: Final = 1536
_DIMENSIONS_MAX: Final = 4096
# Clients wait for what the server says before they try again; a demonstration should not take
# seconds for each of their attempts.
_RETRY_HEADERS: Final = {"retry-after-ms": "20"}


def provider_routes() -> list[Route]:
    """Give the routes below ``/v1`` that an OpenAI client calls."""
    return [
        Route("/v1/chat/completions", _chat, methods=["POST"]),
        Route("/v1/responses", _responses, methods=["POST"]),
        Route("/v1/embeddings", _embeddings, methods=["POST"]),
        Route("/v1/models", _models),
        Route("/v1/models/{model:path}", _model),
    ]


async def _chat(request: Request) -> Response:
    asked = await _asked(request, "messages", list)
    if isinstance(asked, Refusal):
        return _refused(asked)
    if asked.get("stream"):
        return _stream(asked, chat_chunks(asked), _chat_event, b"data: [DONE]\n\n")
    return await _plain(asked, chat_completion)


async def _responses(request: Request) -> Response:
    asked = await _asked(request, "input", (str, list))
    if isinstance(asked, Refusal):
        return _refused(asked)
    if asked.get("stream"):
        return _stream(asked, response_events(asked), _response_event, b"")
    return await _plain(asked, response_object)


async def _embeddings(request: Request) -> Response:
    asked = await _asked(request, "input", (str, list))
    if isinstance(asked, Refusal):
        return _refused(asked)
    given = asked["input"]
    texts = given if isinstance(given, list) and all(isinstance(t, str) for t in given) else [given]
    dimensions = asked.get("dimensions") or _DIMENSIONS
    if not isinstance(dimensions, int) or not 1 <= dimensions <= _DIMENSIONS_MAX:
        expected = f"expected a whole number from 1 to {_DIMENSIONS_MAX}"
        return _refused(_invalid(f"'dimensions' is {dimensions!r}; {expected}.", "dimensions"))
    is_packed = asked.get("encoding_format") == "base64"
    data = []
    for i, text in enumerate(texts):
        vector = embedding(str(text), dimensions)
        data.append({"object": "embedding", "index": i, "embedding": _packed(vector, is_packed)})
    tokens = count_tokens([str(text) for text in texts])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JsonAnswer({"object": "list", "data": data, "model": asked["model"], "usage": usage})


async def _models(_: Request) -> Response:
    return JsonAnswer({"object": "list", "data": [_described(name) for name in _MODELS]})


async def _model(request: Request) -> Response:
    return JsonAnswer(_described(request.path_params["model"]))


async def _asked(
    request: Request, name: str, kinds: type | tuple[type, ...]
) -> dict[str, Any] | Refusal:
    """Give the request's JSON, or why it is refused."""
    try:
        asked = await read_json_object(request)
    except HTTPException as error:
        return Refusal(error.status_code, error.detail, "invalid_request_error", None)
    model = asked.get("model")
    if not isinstance(model, str) or not model:
        return _invalid("you must provide a model parameter", "model")
    if not isinstance(asked.get(name), kinds) or not asked[name]:
        return _invalid(f"{name!r} is missing, empty or of the wrong type.", name)
    return refusal_for(model) or asked


def _invalid(message: str, param: str) -> Refusal:
    return Refusal(400, message, "invalid_request_error", None, param)


def _refused(refusal: Refusal) -> Response:
    may_retry = refusal.status == 429 or refusal.status >= 500
    headers = _RETRY_HEADERS if may_retry else None
    return JsonAnswer(refusal.to_dict(), status_code=refusal.status, headers=headers)


async def _plain(
    asked: dict[str, Any], build: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Response:
    answer = build(asked)
    if _is_slow(asked):
        await asyncio.sleep(_SLOW_S)
    return JsonAnswer(answer)


def _stream(
    asked: dict[str, Any],
    events: Iterator[dict[str, Any]],
    encode: Callable[[dict[str, Any]], bytes],
    end: bytes,
) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for event in events:
            yield encode(event)
            if _is_slow(asked):
                await asyncio.sleep(_SLOW_S)
        if end:
            yield end

    return StreamingResponse(body(), media_type="text/event-stream")


def _is_slow(asked: Mapping[str, Any]) -> bool:
    return "slow" in asked["model"]


def _chat_event(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def _response_event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _packed(vector: list[float], is_packed: bool) -> list[float] | str:
    if not is_packed:
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def _described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(time.time()), "owned_by": "fallom-dev"}
