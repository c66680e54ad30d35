"""``facts_of``: what the page's index keeps of a span, read from its attributes. Pure.

Spans come from any OpenTelemetry library, so nothing is sure: an attribute may be missing, of another
type, or cut in the middle of its JSON. What cannot be read is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from fallom.dev.page.messages import messages_of, parsed, text_of

__all__ = [
    "METRICS_NAME",
    "TEXT_CHARACTERS_MAX",
    "SpanFacts",
    "facts_of",
    "kind_of",
    "searchable",
    "storable",
]

METRICS_NAME: Final = "fallom.metrics"
TEXT_CHARACTERS_MAX: Final = 20_000  # of a span's content that is searched; a long chat is 10,000
PREVIEW_CHARACTERS: Final = 160
_VALUE_CHARACTERS_MAX: Final = 200  # of a filter's value
_LABELS_MAX: Final = 40  # of one span; metadata is written by people

_LLM_OPERATIONS: Final = frozenset(
    "chat text_completion generate_content embeddings responses image_generation".split()
)
_KINDS_BY_OPERATION: Final = {
    "execute_tool": "tool",
    "retrieval": "retrieval",
    "invoke_agent": "agent",
    "create_agent": "agent",
}
_CONTENT: Final = (
    "gen_ai.system_instructions",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.retrieval.query.text",
    "gen_ai.retrieval.documents",
    "fallom.input",
    "fallom.output",
)
_IDENTITIES: Final = (
    "fallom.session_id",
    "fallom.customer_id",
    "gen_ai.response.id",
    "fallom.request_id",
    "gen_ai.tool.call.id",
    "gen_ai.request.model",
    "gen_ai.tool.name",
    "error.type",
)
# Languages without spaces between words: each character is a word, and what is looked for a phrase.
_UNSPACED: Final = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class SpanFacts(NamedTuple):
    """What the index keeps of a span. Times in nanoseconds, labels as (name, value)."""

    kind: str  # llm, tool, retrieval, agent, chain, other
    is_error: bool
    model: str
    input_tokens: int
    output_tokens: int
    first_token_ns: int  # after the span's start; 0: not a stream
    retries: int
    customer_id: str
    config_version: int | None
    variant: int | None
    reason: str
    prompt_test: str
    prompt_variant: int | None
    question: str
    answer: str
    labels: tuple[tuple[str, str], ...]
    text: str
    host: str
    pid: int
    service: str


def facts_of(row: Mapping[str, Any]) -> SpanFacts:
    """Read a row of the store's ``spans``."""
    attributes = _object(row["attributes"])
    resource = _object(row["resource"])
    kind = kind_of(attributes)
    asked = messages_of(attributes.get("gen_ai.input.messages"))
    said = messages_of(attributes.get("gen_ai.output.messages"))
    of_user = next((m for m in reversed(asked) if m.role == "user"), None)
    question = text_of(of_user) if of_user else _text(attributes.get("fallom.input"))
    answer = text_of(said[0]) if said else _text(attributes.get("fallom.output"))
    model = _text(attributes.get("gen_ai.request.model") or attributes.get("gen_ai.response.model"))
    is_error = row["status"] == 2 or bool(attributes.get("error.type"))
    return SpanFacts(
        kind=kind,
        is_error=is_error,
        model=model if kind == "llm" else "",
        input_tokens=_count(attributes.get("gen_ai.usage.input_tokens")) if kind == "llm" else 0,
        output_tokens=_count(attributes.get("gen_ai.usage.output_tokens")) if kind == "llm" else 0,
        first_token_ns=_nanoseconds(attributes.get("gen_ai.response.time_to_first_chunk")),
        retries=_count(attributes.get("fallom.retries")),
        customer_id=_text(attributes.get("fallom.customer_id")),
        config_version=_whole(attributes.get("fallom.config_version")),
        variant=_whole(attributes.get("fallom.variant_index")),
        reason=_text(attributes.get("fallom.assignment.reason")),
        prompt_test=_text(attributes.get("fallom.prompt_ab_test")),
        prompt_variant=_whole(attributes.get("fallom.prompt_variant")),
        question=_short(question),
        answer=_short(answer),
        labels=tuple(_labels(row, attributes, model if kind == "llm" else "", is_error)),
        text=_all_text(row, attributes),
        host=_text(resource.get("host.name")),
        pid=_count(resource.get("process.pid")),
        service=_text(resource.get("service.name")),
    )


def kind_of(attributes: Mapping[str, Any]) -> str:
    """Give what sort of step a span is."""
    kind = attributes.get("fallom.kind")
    if kind in ("llm", "chain", "agent", "tool", "retrieval"):
        return str(kind)
    operation = str(attributes.get("gen_ai.operation.name"))
    if operation in _LLM_OPERATIONS:
        return "llm"
    found = _KINDS_BY_OPERATION.get(operation)
    if found:
        return found
    return "llm" if "gen_ai.request.model" in attributes else "other"


def searchable(text: str) -> str:
    """Give text as it is indexed and looked for."""
    return _UNSPACED.sub(r" \g<0> ", text)


def storable(text: str) -> str:
    """Give text that SQLite takes: a lone surrogate, which JSON may hold, has no UTF-8 form."""
    return text.encode("utf-8", "replace").decode()


def _labels(
    row: Mapping[str, Any], attributes: Mapping[str, Any], model: str, is_error: bool
) -> Iterator[tuple[str, str]]:
    found = [
        ("config", row["config_key"]),
        ("model", model),
        ("customer", attributes.get("fallom.customer_id")),
        ("prompt", attributes.get("fallom.prompt_key")),
    ]
    tags = attributes.get("fallom.tags")
    found += [("tag", tag) for tag in tags] if isinstance(tags, list) else []
    if is_error:
        found.append(("error", attributes.get("error.type") or "error"))
    for name, value in attributes.items():
        if name.startswith("fallom.metadata."):
            found.append((f"meta:{name.removeprefix('fallom.metadata.')}"[:100], value))
    for name, value in found[:_LABELS_MAX]:
        if value is not None and value != "":
            yield name, _text(value)[:_VALUE_CHARACTERS_MAX]


def _all_text(row: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    parts = [row["name"], row["trace_id"], row["span_id"], row["status_message"]]
    parts += [_text(attributes.get(name)) for name in _IDENTITIES]
    parts += [
        _text(value) for name, value in attributes.items() if name.startswith("fallom.metadata.")
    ]
    parts.append(_text(attributes.get("fallom.tags")))
    for name in _CONTENT:
        value = attributes.get(name)
        if value:
            parts += _strings(parsed(value))
    text = " ".join(part for part in parts if part)
    return searchable(storable(text[:TEXT_CHARACTERS_MAX]))


def _strings(value: Any) -> Iterator[str]:
    """Give the texts within plain data, as far as they will be kept."""
    waiting, room = [value], TEXT_CHARACTERS_MAX
    while waiting and room > 0:
        one = waiting.pop()
        if isinstance(one, str):
            room -= len(one) + 1
            yield one
        elif isinstance(one, dict):
            waiting += reversed(one.values())
        elif isinstance(one, list):
            waiting += reversed(one)
        elif one is not None and not isinstance(one, bool):
            yield str(one)


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    text = " ".join(storable(text[: PREVIEW_CHARACTERS * 4]).split())
    return text if len(text) <= PREVIEW_CHARACTERS else f"{text[: PREVIEW_CHARACTERS - 1]}…"


def _whole(value: Any) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and abs(value) < 1 << 62 else None


def _nanoseconds(seconds: Any) -> int:
    is_time = isinstance(seconds, int | float) and 0 < seconds < (1 << 62) / 1e9
    return int(seconds * 1e9) if is_time else 0


def _count(value: Any) -> int:
    number = _whole(value)
    return number if number is not None and 0 < number < 1 << 40 else 0
