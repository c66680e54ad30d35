"""Scenes of the sample traffic: what an application with a shop's assistant would record. Pure.

A turn is a list of spans as the integrations make them: an agent with a search, calls of a model,
tools, a retry now and then, a failure now and then. Latencies differ by model, so that there is
something to find in an experiment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, Final, NamedTuple

from fallom._core.span import AttributeValue, Event, Span, SpanKind, SpanStatus
from fallom.integrations import _attributes as names

__all__ = ["Customer", "Turn", "customer_of", "session_ids", "summary_turn", "turn_of"]

_MS: Final = 1_000_000

# model -> (provider, median of a call in ms, median of the first token in ms, tokens a second)
_MODELS: Final = {
    "gpt-4o": ("openai", 1450, 420, 62),
    "gpt-4o-mini": ("openai", 720, 230, 118),
    "claude-3-5-sonnet": ("anthropic", 1750, 610, 71),
}
_TALKS: Final = (
    (
        "Where is my order A-1047? It should have come on Tuesday.",
        "Your order A-1047 left our warehouse in Leipzig on Monday and is with the carrier. It is "
        "expected tomorrow between 9 and 12. Shall I send you a message when it is out for delivery?",
        "lookup_order",
        {"order_id": "A-1047", "include": ["shipments", "items"]},
        {
            "status": "in_transit",
            "carrier": "DHL",
            "eta": "2025-11-19",
            "items": [
                {"sku": "TEA-ASSAM-500", "quantity": 2, "price": 18.9},
                {"sku": "POT-CAST-IRON", "quantity": 1, "price": 64.0},
            ],
            "shipments": [{"id": "SH-88213", "events": ["picked", "packed", "handed over"]}],
        },
    ),
    (
        "Do you have a lighter version of the trail shoe, size 43?",
        "Yes: the Trail Light 2 weighs 238 g in size 43, 60 g less than the one you looked at. It is "
        "in stock in black and in moss green.",
        "search_products",
        {"query": "trail shoe light", "size": 43, "limit": 5},
        {"hits": [{"name": "Trail Light 2", "weight_g": 238, "colours": ["black", "moss"]}]},
    ),
    (
        "I want to send one of the two lamps back. How do I do that?",
        "No problem. I have made a return label for one lamp; you find it in your mail. Put the lamp "
        "into its box and hand it in at any post office within 14 days.",
        "create_return",
        {"order_id": "B-2210", "items": [{"sku": "LAMP-09", "quantity": 1}]},
        {"return_id": "R-5512", "label": "sent", "deadline_days": 14},
    ),
    (
        "هل يمكنني تغيير عنوان التسليم لطلبي؟",
        "نعم، يمكنك تغيير العنوان ما دام الطلب لم يغادر المستودع. ما هو العنوان الجديد؟",
        "lookup_order",
        {"order_id": "C-0091"},
        {"status": "packing", "address_can_change": True},
    ),
    (
        "この紅茶はカフェインが入っていますか？",
        "はい、アッサム紅茶には1杯あたり約40mgのカフェインが含まれています。"
        "カフェインレスをお探しでしたら、ルイボスティーをおすすめします。",
        "search_products",
        {"query": "紅茶 カフェイン", "limit": 3},
        {"hits": [{"name": "アッサム 500g"}, {"name": "ルイボス 250g"}]},
    ),
)
_SYSTEM: Final = (
    "You are the assistant of a small shop. Answer in the customer's language, in at most three "
    "sentences. Use the tools for anything about an order or the stock; never guess. If a customer "
    "is upset, offer to hand over to a person."
)
_TOOLS: Final = tuple(
    {"type": "function", "function": {"name": name, "description": text, "parameters": {}}}
    for name, text in (
        ("lookup_order", "Find an order by its id."),
        ("search_products", "Search the catalogue."),
        ("create_return", "Make a return and send its label."),
    )
)
_REVIEW: Final = (
    "Review {n}: the parcel came in time, the pot is heavier than it looks in the pictures and "
    "keeps its heat for an hour. One star less because the lid rattles when it is poured from. "
)

_POINTS: Final = (
    "The lid rattles.",
    "Heavier than expected.",
    "Keeps its heat.",
    "Fast delivery.",
    "Good value.",
)


class Customer(NamedTuple):
    """Who is at the other end of a session."""

    customer_id: str
    plan: str
    region: str
    tags: tuple[str, ...]


class Turn(NamedTuple):
    """What one request of a customer recorded."""

    spans: list[Span]
    metrics: dict[str, Any]


class _Trace:
    """The spans of one trace, on a clock of their own."""

    def __init__(
        self, rng: Random, start_ns: int, attributes: Mapping[str, AttributeValue]
    ) -> None:
        self._rng = rng
        self._given = attributes
        self._id = rng.randbytes(16)
        self.now_ns = start_ns
        self.spans: list[Span] = []

    def new_id(self) -> bytes:
        return self._rng.randbytes(8)

    def wait(self, milliseconds: float) -> None:
        self.now_ns += int(milliseconds * _MS)

    def about(self, median_ms: float) -> float:
        return median_ms * self._rng.lognormvariate(0, 0.35)

    def end(
        self,
        span_id: bytes,
        parent: bytes,
        name: str,
        start_ns: int,
        attributes: Mapping[str, AttributeValue],
        error: tuple[str, str] | None = None,
        events: tuple[Event, ...] = (),
    ) -> None:
        more: dict[str, AttributeValue] = {names.ERROR_TYPE: error[0]} if error else {}
        kind = SpanKind.CLIENT if names.REQUEST_MODEL in attributes else SpanKind.INTERNAL
        self.spans.append(
            Span(
                trace_id=self._id,
                span_id=span_id,
                parent_span_id=parent,
                name=name,
                kind=kind,
                start_unix_ns=start_ns,
                end_unix_ns=self.now_ns,
                status=SpanStatus.ERROR if error else SpanStatus.UNSET,
                status_message=error[1] if error else "",
                attributes={**self._given, **attributes, **more},
                events=events,
            )
        )


def customer_of(session_id: str) -> Customer:
    """Give the same customer for a session each time."""
    rng = Random(session_id)  # noqa: S311  for show
    plan = rng.choice(("free", "free", "pro", "enterprise"))
    tags = ("production", "beta") if rng.random() < 0.25 else ("production",)
    return Customer(f"user-{rng.randrange(400)}", plan, rng.choice(("eu-central", "us-west")), tags)


def turn_of(
    rng: Random, model: str, attributes: Mapping[str, AttributeValue], start_ns: int
) -> Turn:
    """Give a turn of the assistant: search, call with a tool call, tool, answer."""
    trace = _Trace(rng, start_ns, attributes)
    question, answer, tool, arguments, result = rng.choice(_TALKS)
    root = trace.new_id()
    trace.wait(rng.uniform(1, 4))
    _retrieval(trace, root, question)
    call_id = f"call_{rng.randbytes(6).hex()}"
    said = [
        {"role": "system", "parts": [_text(_SYSTEM)]},
        {"role": "user", "parts": [_text(question)]},
    ]
    asks = {"type": "tool_call", "id": call_id, "name": tool, "arguments": arguments}
    error = _call(trace, root, model, said, [asks], "tool_call")
    if error is None:
        trace.wait(rng.uniform(1, 6))
        failed = rng.random() < 0.04
        _tool(trace, root, tool, call_id, arguments, result, failed)
        response = "the order service does not answer" if failed else result
        said = [
            *said,
            {"role": "assistant", "parts": [asks]},
            {
                "role": "tool",
                "parts": [{"type": "tool_call_response", "id": call_id, "response": response}],
            },
        ]
        error = _call(trace, root, model, said, [_text(answer)], "stop")
    trace.wait(rng.uniform(0.5, 3))
    about: dict[str, AttributeValue] = {
        names.KIND: "agent",
        names.OPERATION: "invoke_agent",
        names.AGENT_NAME: "shop-assistant",
        names.INPUT: question,
    }
    if error is None:
        about[names.OUTPUT] = answer
    trace.end(root, b"", "invoke_agent shop-assistant", start_ns, about, error)
    base = 0.62 if model == "gpt-4o-mini" else 0.71
    metrics = {
        "satisfaction": max(1, min(5, round(rng.gauss(3.4 if error else 4.1, 0.8)))),
        "resolved": error is None and rng.random() < base,
    }
    return Turn(trace.spans, metrics)


def summary_turn(
    rng: Random, model: str, attributes: Mapping[str, AttributeValue], start_ns: int
) -> Turn:
    """Give a single call that sums up reviews: long input, long output, streamed."""
    trace = _Trace(rng, start_ns, attributes)
    reviews = "".join(_REVIEW.format(n=n) for n in range(1, rng.randrange(8, 24)))
    said = [
        {
            "role": "system",
            "parts": [_text("Sum up the reviews in five points, the critical first.")],
        },
        {"role": "user", "parts": [_text(reviews)]},
    ]
    points = "\n".join(f"{n}. {point}" for n, point in enumerate(_POINTS, 1))
    error = _call(trace, b"", model, said, [_text(points)], "stop")
    return Turn(
        trace.spans, {"length_ratio": round(rng.uniform(0.05, 0.4), 3)} if not error else {}
    )


def _call(
    trace: _Trace,
    parent: bytes,
    model: str,
    said: list[dict[str, Any]],
    answer: list[dict[str, Any]],
    finish: str,
) -> tuple[str, str] | None:
    provider, median_ms, first_ms, tokens_s = _MODELS.get(model, _MODELS["gpt-4o"])
    rng, span_id, start_ns = trace._rng, trace.new_id(), trace.now_ns
    input_tokens = len(json.dumps(said, ensure_ascii=False)) // 4
    output_tokens = max(4, len(json.dumps(answer, ensure_ascii=False)) // 4)
    attributes: dict[str, AttributeValue] = {
        names.KIND: "llm",
        names.OPERATION: "chat",
        names.PROVIDER: provider,
        names.REQUEST_MODEL: model,
        names.TEMPERATURE: 0.3,
        names.STREAM: True,
        names.INPUT_MESSAGES: json.dumps(said, ensure_ascii=False),
        names.TOOL_DEFINITIONS: json.dumps(_TOOLS),
    }
    events: list[Event] = []
    retries = rng.choice((1, 1, 2)) if rng.random() < 0.06 else 0
    for number in range(1, retries + 2) if retries else ():
        events.append(Event(trace.now_ns, names.ATTEMPT, {names.ATTEMPT_NUMBER: number}))
        if number <= retries:
            trace.wait(trace.about(280) + 500 * number)
    if retries:
        attributes[names.RETRIES] = retries
    chance = rng.random()
    if chance < 0.025:
        trace.wait(trace.about(4200))
        error = ("APITimeoutError", "Request timed out after 10.0 s.")
    elif chance < 0.04:
        trace.wait(trace.about(180))
        error = (
            "rate_limit_exceeded",
            "Rate limit reached for requests per minute. Try again in 20 s.",
        )
    else:
        error = None
        trace.wait(trace.about(first_ms))
        first_ns = trace.now_ns
        trace.wait(trace.about(0.25 * median_ms) + 1000 * output_tokens / tokens_s)
        events += [
            Event(first_ns, names.FIRST_CHUNK, {}),
            Event(trace.now_ns, names.LAST_CHUNK, {}),
        ]
        attributes |= {
            names.TIME_TO_FIRST_CHUNK: (first_ns - start_ns) / 1e9,
            names.INPUT_TOKENS: input_tokens,
            names.OUTPUT_TOKENS: output_tokens,
            names.FINISH_REASONS: [finish],
            names.RESPONSE_MODEL: model,
            names.RESPONSE_ID: f"chatcmpl-{rng.randbytes(8).hex()}",
            names.OUTPUT_MESSAGES: json.dumps(
                [{"role": "assistant", "parts": answer, "finish_reason": finish}],
                ensure_ascii=False,
            ),
        }
    trace.end(span_id, parent, f"chat {model}", start_ns, attributes, error, tuple(events))
    return error


def _retrieval(trace: _Trace, parent: bytes, question: str) -> None:
    span_id, start_ns = trace.new_id(), trace.now_ns
    trace.wait(trace.about(45))
    found = [{"title": "Delivery times", "score": 0.83}, {"title": "Returns", "score": 0.64}]
    attributes: dict[str, AttributeValue] = {
        names.KIND: "retrieval",
        names.OPERATION: "retrieval",
        names.RETRIEVAL_QUERY: question,
        names.RETRIEVAL_DOCUMENTS: json.dumps(found),
        names.DOCUMENT_COUNT: len(found),
    }
    trace.end(span_id, parent, "search help pages", start_ns, attributes)


def _tool(
    trace: _Trace,
    parent: bytes,
    tool: str,
    call_id: str,
    arguments: Mapping[str, Any],
    result: Any,
    failed: bool,
) -> None:
    span_id, start_ns = trace.new_id(), trace.now_ns
    trace.wait(trace.about(2100 if failed else 130))
    attributes: dict[str, AttributeValue] = {
        names.KIND: "tool",
        names.OPERATION: "execute_tool",
        names.TOOL_NAME: tool,
        names.TOOL_CALL_ID: call_id,
        names.TOOL_ARGUMENTS: json.dumps(arguments, ensure_ascii=False),
    }
    if not failed:
        attributes[names.TOOL_RESULT] = json.dumps(result, ensure_ascii=False)
    error = ("ConnectionError", "orders.internal:8080 refused the connection") if failed else None
    trace.end(span_id, parent, f"execute_tool {tool}", start_ns, attributes, error)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": text}


def session_ids(rng: Random) -> Iterator[str]:
    """Give ids without end: sessions that begin, and some that go on."""
    open_ids: list[str] = []
    while True:
        if not open_ids or rng.random() < 0.55:
            open_ids.append(f"chat-{rng.randbytes(5).hex()}")
        session_id = rng.choice(open_ids[-12:])
        if rng.random() < 0.3:
            open_ids.remove(session_id)
        yield session_id
