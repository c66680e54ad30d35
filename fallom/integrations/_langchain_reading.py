"""Reading LangChain's runs: models, messages, results, tools, documents, as attributes of a span."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fallom._core.span import AttributeValue
from fallom.integrations import _attributes as names
from fallom.integrations._content import (
    Part,
    Room,
    clean,
    encode_messages,
    encode_parts,
    field,
    items,
)
from fallom.integrations._reading import (
    SAMPLING,
    Answer,
    Parameters,
    blob,
    count,
    counts,
    file_part,
    parameters,
    text_part,
    token_count,
    words,
)

__all__ = [
    "documents_of",
    "model_of_run",
    "name_of_run",
    "plain_text",
    "request_of_run",
    "result_of_run",
    "tool_of_run",
]

# LangChain's words for providers -> OpenTelemetry's; others stay what they are.
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "google_genai": "gcp.gemini",
    "google_generativeai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "amazon_bedrock": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
    "together": "together_ai",
    "fireworks": "fireworks_ai",
    "ibm": "ibm.watsonx.ai",
}
_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "function": "tool"}
_DOCUMENTS_MAX = 100
_PARAMETERS: Parameters = {**SAMPLING, "max_tokens": (names.MAX_TOKENS, count)}
_TOTALS = {"input_tokens": names.INPUT_TOKENS, "output_tokens": names.OUTPUT_TOKENS}
_CACHED = {
    "cache_read": names.CACHE_READ_TOKENS,
    "cache_creation": names.CACHE_CREATION_TOKENS,
}
_REASONED = {"reasoning": names.REASONING_TOKENS}


def name_of_run(serialized: Any, kwargs: Mapping[str, Any], default: str) -> str:
    """Give a run's name: what it was given, else that of its class."""
    path = items(field(serialized, "id"))
    for found in (kwargs.get("name"), field(serialized, "name"), path[-1] if path else None):
        if isinstance(found, str) and found:
            return clean(found)[:256]
    return default


def model_of_run(serialized: Any, kwargs: Mapping[str, Any]) -> str:
    """Give the model that a run asks for, empty if nothing tells."""
    metadata, params = kwargs.get("metadata"), kwargs.get("invocation_params")
    known = field(serialized, "kwargs")
    for source, name in (
        (metadata, "ls_model_name"),
        (params, "model"),
        (params, "model_name"),
        (known, "model"),
        (known, "model_name"),
    ):
        found = field(source, name)
        if isinstance(found, str) and found:
            return clean(found)[:256].removeprefix("models/")
    return ""


def request_of_run(
    messages: Any, kwargs: Mapping[str, Any], content_captured: bool
) -> dict[str, AttributeValue]:
    """Give the attributes of a model's run at its start.

    Args:
        messages: LangChain's messages, or texts.
        kwargs: What the callback was given besides.
        content_captured: Whether messages and tools may be read.
    """
    metadata, params = kwargs.get("metadata"), kwargs.get("invocation_params")
    found = parameters(params, _PARAMETERS)
    provider = field(metadata, "ls_provider") or field(params, "_type")
    if isinstance(provider, str) and provider:
        provider = clean(provider)[:64].removesuffix("-chat")
        found[names.PROVIDER] = _PROVIDERS.get(provider, provider)
    temperature = field(metadata, "ls_temperature")
    if isinstance(temperature, (int, float)) and not isinstance(temperature, bool):
        found.setdefault(names.TEMPERATURE, float(temperature))
    limit = token_count(metadata, "ls_max_tokens")
    if limit is not None:
        found.setdefault(names.MAX_TOKENS, limit)
    stop = words(field(params, "stop") or field(metadata, "ls_stop"))
    if stop:
        found[names.STOP_SEQUENCES] = stop
    if content_captured:
        found[names.INPUT_MESSAGES] = encode_messages(list(items(messages)), _input_message)
        tools = items(field(params, "tools"))
        if tools:
            found[names.TOOL_DEFINITIONS] = encode_parts([Room().plain(tool) for tool in tools])
    return found


def result_of_run(
    result: Any, content_captured: bool, is_whole: bool = True
) -> dict[str, AttributeValue]:
    """Give the attributes of a model's result (``LLMResult``), or of what came of it before an error."""
    answer = Answer()
    told = field(result, "llm_output")
    answer.named({"id": field(told, "id"), "model": field(told, "model_name")})
    answer.usage = _usage_of_output(told)
    generations = [g for batch in items(field(result, "generations")) for g in items(batch)]
    for index, generation in enumerate(generations):
        message = field(generation, "message")
        metadata = field(message, "response_metadata")
        model = field(metadata, "model_name") or field(metadata, "model")
        answer.named({"id": field(message, "id"), "model": model})
        answer.choice(index, _reason(field(generation, "generation_info"), metadata))
        answer.tool_calls += len(items(field(message, "tool_calls")))
        usage = field(message, "usage_metadata")
        if usage is not None and index == 0:
            # Each of several choices repeats the whole call's. LangChain's totals are totals.
            answer.usage = _usage(usage)
    found = answer.attributes()
    if not any(answer.reasons.values()):
        found.pop(names.FINISH_REASONS, None)  # many models tell none
    if content_captured and generations:
        found[names.OUTPUT_MESSAGES] = encode_messages(
            list(range(len(generations))),
            lambda index: _output_message(answer, index, generations[index], is_whole),
        )
    return found


def tool_of_run(
    serialized: Any, kwargs: Mapping[str, Any], told: Any, content_captured: bool
) -> dict[str, AttributeValue]:
    """Give the attributes of a tool's run at its start."""
    found: dict[str, AttributeValue] = {}
    identity = kwargs.get("tool_call_id")
    if isinstance(identity, str):
        found[names.TOOL_CALL_ID] = clean(identity)[:256]
    if content_captured:
        description = field(serialized, "description")
        if isinstance(description, str):
            found[names.TOOL_DESCRIPTION] = Room().text(description)
        inputs = kwargs.get("inputs")
        found[names.TOOL_ARGUMENTS] = plain_text(told if inputs is None else inputs)
    return found


def documents_of(documents: Any) -> str:
    """Give retrieved documents as JSON: text, id, metadata."""
    found = []
    for document in items(documents)[:_DOCUMENTS_MAX]:
        room = Room()
        part: Part = {"content": room.text(field(document, "page_content") or "")}
        identity = field(document, "id")
        if isinstance(identity, str):
            part["id"] = room.text(identity)
        metadata = field(document, "metadata")
        if metadata:
            part["metadata"] = room.plain(metadata)
        found.append(part)
    return encode_parts(found)


def plain_text(value: Any) -> str:
    """Give what went into or came out of a run as one bounded text: JSON, but of a text itself."""
    room = Room()
    if isinstance(value, str):
        return room.text(value)
    if _is_message(value):
        return encode_parts([_input_message(value)])
    messages = field(value, "messages")
    if isinstance(messages, (list, tuple)) and all(map(_is_message, messages)):
        return encode_messages(messages, _input_message)
    return room.text(value)


def _is_message(value: Any) -> bool:
    return isinstance(field(value, "type"), str) and hasattr(value, "content")


def _usage(usage: Any) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    counts(found, usage, _TOTALS)
    counts(found, field(usage, "input_token_details"), _CACHED)
    counts(found, field(usage, "output_token_details"), _REASONED)
    if names.CACHE_CREATION_TOKENS in found:
        found[names.CACHE_WRITE_TOKENS] = found[names.CACHE_CREATION_TOKENS]
    return found


def _usage_of_output(told: Any) -> dict[str, AttributeValue]:
    """Give the totals of ``llm_output``, in the words of whichever provider it is of."""
    usage = field(told, "token_usage") or field(told, "usage")
    found: dict[str, AttributeValue] = {}
    given = token_count(usage, "input_tokens")
    if given is not None:  # Anthropic's own: without what a cache had to do with
        for name in ("cache_creation_input_tokens", "cache_read_input_tokens"):
            given += token_count(usage, name) or 0
    prompt, completion = token_count(usage, "prompt_tokens"), token_count(usage, "output_tokens")
    if completion is None:
        completion = token_count(usage, "completion_tokens")
    prompt = given if prompt is None else prompt
    if prompt is not None:
        found[names.INPUT_TOKENS] = prompt
    if completion is not None:
        found[names.OUTPUT_TOKENS] = completion
    return found


def _reason(*sources: Any) -> str | None:
    for source in sources:
        for name in ("finish_reason", "stop_reason", "done_reason"):
            found = field(source, name)
            if isinstance(found, str) and found:
                return found.lower()
    return None


def _output_message(answer: Answer, index: int, generation: Any, is_whole: bool) -> Part:
    message = field(generation, "message")
    if message is None:
        parts = [text_part(Room(), field(generation, "text") or "")]
    else:
        parts = _parts(Room(), message)
    if is_whole and not answer.reasons.get(index):
        answer.reasons[index] = "stop"  # a result that came has ended
    return answer.message(index, "assistant", parts)


def _input_message(message: Any) -> Part:
    room = Room()
    if isinstance(message, str):
        return {"role": "user", "parts": [text_part(room, message)]}
    kind = field(message, "type")
    kind = field(message, "role") if kind == "chat" else kind
    role = clean(kind)[:64] if isinstance(kind, str) else "user"
    role = _ROLES.get(role, role)
    if role == "tool":
        part: Part = {"type": "tool_call_response", "response": _response(room, message)}
        identity = field(message, "tool_call_id")
        if isinstance(identity, str):
            part["id"] = room.text(identity)
        return {"role": role, "parts": [part]}
    built: Part = {"role": role, "parts": _parts(room, message)}
    name = field(message, "name")
    if isinstance(name, str):
        built["name"] = room.text(name)
    return built


def _response(room: Room, message: Any) -> Any:
    content = field(message, "content")
    return room.text(content) if isinstance(content, str) else _blocks(room, content)


def _parts(room: Room, message: Any) -> list[Part]:
    content = field(message, "content")
    if isinstance(content, str):
        found = [text_part(room, content)] if content else []
    else:
        found = _blocks(room, content)
    for call in items(field(message, "tool_calls")):
        part: Part = {"type": "tool_call", "name": room.text(field(call, "name") or "")}
        part["arguments"] = room.plain(field(call, "args"))
        identity = field(call, "id")
        if isinstance(identity, str):
            part["id"] = room.text(identity)
        found.append(part)
    return found


def _blocks(room: Room, content: Any) -> list[Part]:
    # Calls of tools are among the blocks of some providers, and in ``tool_calls`` of all.
    blocks: Sequence[Any] = items(content)
    kinds = ("tool_use", "tool_call", "function_call", "tool_call_chunk", "input_json_delta")
    return [_block(room, block) for block in blocks if field(block, "type") not in kinds]


def _block(room: Room, block: Any) -> Part:
    kind = field(block, "type")
    if isinstance(block, str) or kind == "text":
        return text_part(room, block if isinstance(block, str) else field(block, "text"))
    if kind in ("reasoning", "thinking"):
        said = field(block, "reasoning") or field(block, "thinking") or ""
        return {"type": "reasoning", "content": room.text(said)}
    if kind == "image_url":
        url = field(block, "image_url")
        return file_part(room, "image", url if isinstance(url, str) else field(url, "url"))
    if kind in ("image", "audio", "video", "file", "document"):
        modality = kind if kind in ("image", "audio", "video") else "file"
        url = field(block, "url")
        if isinstance(url, str):
            return file_part(room, modality, url)
        source = field(block, "source")
        data = field(block, "base64") or field(block, "data") or field(source, "data")
        mime_type = field(block, "mime_type") or field(source, "media_type")
        return blob(modality, mime_type, data)
    return {"type": "other", "content": room.plain(block)}
