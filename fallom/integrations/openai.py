"""``wrap_openai``: OpenAI's client, and every client with its class (Azure, OpenRouter, proxies).

``openai`` is never imported here: whoever has a client has imported it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fallom._core.span import Tracing
from fallom.integrations._call import Reader
from fallom.integrations._content import field, is_given
from fallom.integrations._openai_chat import ChatReader
from fallom.integrations._openai_media import (
    CompletionReader,
    EmbeddingsReader,
    ImageReader,
    SpeechReader,
    TranscriptReader,
)
from fallom.integrations._openai_responses import ResponsesReader
from fallom.integrations._provider import provider_of
from fallom.integrations._stainless import Change, Dialect, wrap

__all__ = ["wrap_openai"]

T = TypeVar("T")

# Azure's API versions are dates; older ones refuse a body with stream_options.
_AZURE_USAGE_SINCE = "2024-09-01"


def wrap_openai(client: T, tracing: Tracing) -> T:
    """Give a client like ``client`` whose model calls are recorded.

    It has the class and options of ``client`` and shares its HTTP connections; ``client`` itself is
    not changed. Wrapping a wrapped client gives one span a call, to the last ``tracing``. An object
    that is no OpenAI client is given back as it is, and counted.

    Streams of chat completions are asked for their token usage (``stream_options``), unless the
    request says anything about that, or is read as bytes by the caller (``with_raw_response``,
    ``with_streaming_response``); the additional chunk is not shown to the caller.

    Args:
        client: An ``OpenAI`` or ``AsyncOpenAI``, or of a class derived from them.
        tracing: Where the spans go.
    """
    return wrap(client, tracing, _DIALECT)


def _provider(client: Any) -> str:
    default = "azure.ai.openai" if hasattr(client, "_api_version") else "openai"
    return provider_of(str(client.base_url), default)


def _reader(path: str, body: Any, content_captured: bool) -> Reader | None:
    make = _READERS.get(path) or _READERS.get(path.partition("?")[0])
    return None if make is None else make(body, content_captured)


def _ask_for_usage(client: Any, path: str, body: Any, options: Mapping[str, Any]) -> Change | None:
    """Ask for a last chunk with the token counts: without it a stream has none."""
    if path != "/chat/completions" or not isinstance(body, dict):
        return None
    extra = field(options, "extra_json")
    if isinstance(extra, Mapping) and "stream_options" in extra:
        return None
    said = body.get("stream_options", {})
    if not is_given(said):  # older versions take their sentinels out later
        said = {}
    if not isinstance(said, Mapping) or "include_usage" in said:
        return None
    version = getattr(client, "_api_version", None)
    if isinstance(version, str) and version[:10] < _AZURE_USAGE_SINCE:
        return None
    if _provider(client) == "mistral_ai":  # sends usage unasked and refused the parameter
        return None
    changed = {**body, "stream_options": {**said, "include_usage": True}}
    return Change(changed, _is_usage_chunk, _is_usage_refused)


def _is_usage_chunk(chunk: Any) -> bool:
    try:
        usage, fields_set = chunk.__dict__["usage"], chunk.__pydantic_fields_set__
    except (AttributeError, KeyError):  # an older pydantic, or a chunk that says nothing of it
        usage, fields_set = field(chunk, "usage"), getattr(chunk, "model_fields_set", None)
    if usage is None:
        # The others say "usage": null, which the caller's chunk.to_dict() would not have had.
        if isinstance(fields_set, set):
            fields_set.discard("usage")
        return False
    choices = field(chunk, "choices")
    return isinstance(choices, list) and not choices


def _is_usage_refused(error: BaseException) -> bool:
    """Say whether a server that is not OpenAI's would not have what we added; it did no work then."""
    is_refusal = getattr(error, "status_code", None) in (400, 404, 422)
    return is_refusal and any(word in str(error) for word in ("stream_options", "include_usage"))


_READERS: dict[str, Callable[[Any, bool], Reader]] = {
    "/chat/completions": ChatReader,
    "/responses": ResponsesReader,
    "/responses/compact": ResponsesReader,
    "/completions": CompletionReader,
    "/embeddings": EmbeddingsReader,
    "/images/generations": ImageReader,
    "/images/edits": ImageReader,
    "/images/variations": ImageReader,
    "/audio/speech": SpeechReader,
    "/audio/transcriptions": TranscriptReader,
    "/audio/translations": TranscriptReader,
}
_DIALECT = Dialect("openai", _provider, _reader, _ask_for_usage)
