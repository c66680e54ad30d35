"""``detail_of``: a whole span for a person: messages, tools, figures, and every attribute. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fallom.dev.page.facts import kind_of
from fallom.dev.page.messages import Message, Part, instructions_of, messages_of, parsed, pretty
from fallom.dev.page.shown import shown_ms, shown_ns

__all__ = ["Detail", "Event", "detail_of"]

_MESSAGES: Final = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
_CONTENT: Final = {
    "gen_ai.tool.call.arguments": "Arguments",
    "gen_ai.tool.call.result": "Result",
    "gen_ai.retrieval.query.text": "Query",
    "gen_ai.retrieval.documents": "Documents",
    "fallom.input": "Input",
    "fallom.output": "Output",
}
_FIGURES: Final = {
    "gen_ai.request.model": "Model",
    "gen_ai.response.model": "Answered by",
    "gen_ai.provider.name": "Provider",
    "gen_ai.usage.input_tokens": "Input tokens",
    "gen_ai.usage.output_tokens": "Output tokens",
    "gen_ai.usage.cache_read.input_tokens": "From cache",
    "gen_ai.usage.reasoning.output_tokens": "For reasoning",
    "gen_ai.response.finish_reasons": "Finished",
    "gen_ai.request.temperature": "Temperature",
    "gen_ai.request.max_tokens": "Token limit",
    "fallom.retries": "Retries",
    "gen_ai.tool.name": "Tool",
    "gen_ai.agent.name": "Agent",
    "error.type": "Error",
    "fallom.config_version": "Config version",
    "fallom.variant_index": "Variant",
    "fallom.assignment.reason": "Assigned by",
    "fallom.prompt_key": "Prompt",
    "fallom.prompt_version": "Prompt version",
    "fallom.prompt_ab_test": "Prompt test",
    "fallom.prompt_variant": "Prompt variant",
}


class Event(NamedTuple):
    """A point in time within a span."""

    after: str
    name: str
    attributes: list[tuple[str, str]]


class Detail(NamedTuple):
    """A span as it is shown."""

    row: Mapping[str, Any]
    kind: str
    is_error: bool
    duration: str
    figures: list[tuple[str, str]]
    asked: list[Message]
    said: list[Message]
    content: list[tuple[str, Part]]
    tools: list[tuple[str, Part]]
    events: list[Event]
    attributes: list[tuple[str, str]]
    resource: list[tuple[str, str]]


def detail_of(row: Mapping[str, Any]) -> Detail:
    """Read a row of the store's ``spans``."""
    attributes: dict[str, Any] = json.loads(row["attributes"])
    figures = [
        (label, _plain(attributes[name])) for name, label in _FIGURES.items() if name in attributes
    ]
    first_s = attributes.get("gen_ai.response.time_to_first_chunk")
    if isinstance(first_s, int | float):
        figures.insert(0, ("First token", shown_ms(first_s * 1000)))
    duration = shown_ns(max(0, row["end_unix_ns"] - row["start_unix_ns"]))
    figures.insert(0, ("Duration", duration))
    asked = instructions_of(attributes.get("gen_ai.system_instructions"))
    asked += messages_of(attributes.get("gen_ai.input.messages"))
    content = []
    for name, label in _CONTENT.items():
        if attributes.get(name) not in (None, ""):
            text, is_json = pretty(attributes[name])
            content.append((label, Part("text", text, is_json=is_json)))
    hidden = {*_MESSAGES, *_CONTENT, "gen_ai.tool.definitions"}
    return Detail(
        row=row,
        kind=kind_of(attributes),
        is_error=row["status"] == 2 or bool(attributes.get("error.type")),
        duration=duration,
        figures=figures,
        asked=asked,
        said=messages_of(attributes.get("gen_ai.output.messages")),
        content=content,
        tools=_tools(attributes.get("gen_ai.tool.definitions")),
        events=[_event(event, row["start_unix_ns"]) for event in json.loads(row["events"])[:200]],
        attributes=[(n, _plain(v)) for n, v in sorted(attributes.items()) if n not in hidden],
        resource=[(n, _plain(v)) for n, v in sorted(json.loads(row["resource"]).items())],
    )


def _tools(value: Any) -> list[tuple[str, Part]]:
    found = parsed(value)
    if not isinstance(found, list):
        return []
    tools = []
    for one in found[:100]:
        inner = one.get("function") if isinstance(one, dict) else None
        name = one.get("name") if isinstance(one, dict) else None
        if isinstance(inner, dict):
            name = inner.get("name")
        text, is_json = pretty(one)
        tools.append((str(name or "tool"), Part("json", text, is_json=is_json)))
    return tools


def _event(event: Mapping[str, Any], start_ns: int) -> Event:
    after = shown_ns(max(0, event["unix_ns"] - start_ns))
    pairs = [(name, _plain(value)) for name, value in sorted(event["attributes"].items())]
    return Event(after, str(event["name"]), pairs)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value[:20_000]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)[:20_000]
    return json.dumps(value, ensure_ascii=False)[:20_000]
