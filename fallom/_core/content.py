"""Which attributes hold content, and which of it bodies of messages; and a mask over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fallom._core.masking import mask_json_or_text
from fallom._core.span import Span

__all__ = ["is_body", "is_content", "mask_content", "mask_span"]

# Attributes of spans and events that hold text of prompts, completions or tools: OpenTelemetry's names, and
# those of instrumentations that came before them.
_BODIES = frozenset(
    "gen_ai.input.messages gen_ai.output.messages gen_ai.system_instructions gen_ai.tool.definitions "
    "gen_ai.tool.call.arguments gen_ai.tool.call.result gen_ai.retrieval.query.text "
    "gen_ai.retrieval.documents gen_ai.event.content gen_ai.choice gen_ai.prompt gen_ai.completion "
    "input.value output.value traceloop.entity.input traceloop.entity.output content message "
    "tool_calls fallom.input fallom.output document.content embedding.text tool.parameters reranker.query "
    "db.query.result.document".split()
)
_BODY_PREFIXES = (
    "gen_ai.prompt.",
    "gen_ai.completion.",
    "llm.prompt",
    "llm.completion",
    "llm.input_messages",
    "llm.output_messages",
    "llm.request.functions",
    "llm.tools",
    "retrieval.documents",
    "embedding.embeddings",
    "reranker.input_documents",
    "reranker.output_documents",
    "traceloop.prompt.template",
    "fallom.raw.",  # of programs written against fallom 0.2, which hand over spans of their own
)
_NO_BODIES = ("gen_ai.prompt.name", "gen_ai.prompt.version")
_ERRORS = ("exception.message", "exception.stacktrace")  # may repeat such text


def is_body(name: str) -> bool:
    """Tell whether an attribute holds text of a prompt, a completion or a tool."""
    return name in _BODIES or (name.startswith(_BODY_PREFIXES) and name not in _NO_BODIES)


def is_content(name: str) -> bool:
    """Tell whether an attribute holds text of a prompt, a completion, a tool, or an error."""
    return name in _ERRORS or is_body(name)


def mask_content(mask: Callable[[str], str], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Give attributes with those that hold content masked."""
    return {
        name: _masked(mask, value) if is_content(name) else value
        for name, value in attributes.items()
    }


def mask_span(mask: Callable[[str], str], span: Span) -> Span:
    """Give a span with its content, that of its events and links, and the text of its error masked."""
    return span._replace(
        status_message=mask(span.status_message) if span.status_message else "",
        attributes=mask_content(mask, span.attributes),
        events=[
            event._replace(attributes=mask_content(mask, event.attributes)) for event in span.events
        ],
        links=[
            link._replace(attributes=mask_content(mask, link.attributes)) for link in span.links
        ],
    )


def _masked(mask: Callable[[str], str], value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return mask_json_or_text(mask, value)
    if isinstance(value, Mapping):
        return {mask(str(name)): _masked(mask, item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_masked(mask, item) for item in value]
    return mask(str(value))
