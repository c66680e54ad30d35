"""One batch to one target: how it is posted, and how the guilty records of a refused batch are found.

Two ways of posting, one result. Spans go in one request, halved and halved again while the server
says that something in it is wrong, until only the guilty ones are left. Exposures, and metrics for a
backend that reads JSON, have a request each, over a few connections at once.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fallom._core.outcome import Outcome, Verdict, judge
from fallom._core.span import Exposure, Metrics, Span, exposure_of, metrics_of, span_of
from fallom._flusher.http import Http, NetworkError, Request
from fallom._flusher.otlp import TraceEncoder, metrics_span, partial_success
from fallom._spool.frame import Kind
from fallom._spool.reader import Item

__all__ = ["Delivery", "MasksInForce", "Result", "deliver_json", "deliver_otlp", "withhold"]

EXCHANGE_DEADLINE_S = 10.0  # giving up earlier sends twice what the server is still working on
CONNECTIONS = 4  # of a lane that posts one record a request
PROBED_FROM = 64  # smaller batches are halved at once: that is as cheap
PROBES = 8  # all guilty by chance, though less than half of the batch is: 1 in 256
# Level 6 takes 2 to 4 times the CPU of level 1, and saves 7 % of the bytes of spans without content and
# 16 % of those with (77 to 72 and 874 to 730 bytes a span).
_GZIP_LEVEL = 1


@dataclass(slots=True)
class Result:
    """What became of a batch: accepted, guilty, or to be sent again, and why."""

    accepted: int = 0
    rejected: int = 0  # accepted with partial success: the server threw these away
    message: str = ""
    guilty: list[tuple[Item, Outcome]] = field(default_factory=list)
    unreadable: list[Item] = field(default_factory=list)
    unsent: list[Item] = field(default_factory=list)
    outcome: Outcome | None = None  # why there are unsent ones
    requests: int = 0


Delivery = Callable[[list[Item], int, float], Result]  # items, attempt, unix time
MasksInForce: TypeAlias = "Callable[[], Callable[[Span], Span] | None]"


def deliver_otlp(
    who: Mapping[str, str],
    http: Http,
    endpoint: str,
    masks: MasksInForce = lambda: None,
) -> Delivery:
    """Give the way in which spans are posted: OTLP/HTTP, protobuf, gzip.

    Args:
        who: The headers that say as whom, see ``credentials``.
        http: The way to the network.
        endpoint: The URL.
        masks: Gives what spans go through before they are posted; asked for each batch.
    """
    headers = {
        "Content-Type": "application/x-protobuf",
        "Content-Encoding": "gzip",
        **who,
    }

    encoder = TraceEncoder()

    def post(spans: list[Any], attempt: int, now_unix_s: float, result: Result) -> Outcome:
        body = gzip.compress(encoder.encode(spans), _GZIP_LEVEL, mtime=0)
        request = Request("POST", endpoint, headers, body, EXCHANGE_DEADLINE_S)
        outcome, answer = _exchange(http, request, attempt, now_unix_s)
        result.requests += 1
        if outcome.verdict is Verdict.ACCEPTED:
            rejected, message = partial_success(answer)
            rejected = min(rejected, len(spans))
            result.accepted += len(spans) - rejected
            result.rejected += rejected
            result.message = message or result.message
        return outcome

    def probe(
        pairs: list[tuple[Item, Any]],
        refused: Outcome,
        attempt: int,
        now_unix_s: float,
        result: Result,
    ) -> Outcome:
        """Post a few spans of a refused batch one by one, and take out those that are accepted.

        Where none is, it may not be the spans: halving the batch down to each would only be a flood.
        """
        for pair in pairs[:: len(pairs) // PROBES][:PROBES]:
            outcome = post([pair[1]], attempt, now_unix_s, result)
            if outcome.verdict is Verdict.ACCEPTED:
                pairs.remove(pair)
                return refused
            if outcome.verdict is not Verdict.SPLIT:
                return outcome
        reason = f"{refused.reason} for a batch and each of {PROBES} spans of it"
        return Outcome(Verdict.DOUBT, reason, refused.status)

    def deliver(items: list[Item], attempt: int, now_unix_s: float) -> Result:
        result = Result()
        pairs = _pairs(items, masks(), result)
        parts = [pairs] if pairs else []
        if len(pairs) >= PROBED_FROM:
            outcome = post([pair[1] for pair in pairs], attempt, now_unix_s, result)
            if outcome.verdict is Verdict.ACCEPTED:
                return result
            if outcome.verdict is Verdict.SPLIT:
                outcome = probe(pairs, outcome, attempt, now_unix_s, result)
            if outcome.verdict is not Verdict.SPLIT:
                result.outcome, result.unsent = outcome, [pair[0] for pair in pairs]
                return result
            half = len(pairs) // 2
            parts = [pairs[:half], pairs[half:]]
        while parts:
            part = parts.pop(0)
            outcome = post([pair[1] for pair in part], attempt, now_unix_s, result)
            if outcome.verdict is Verdict.SPLIT and len(part) > 1:
                half = len(part) // 2
                parts[:0] = [part[:half], part[half:]]
            elif outcome.verdict is Verdict.SPLIT:
                result.guilty.append((part[0][0], outcome))
            elif outcome.verdict is not Verdict.ACCEPTED:
                # The rest would meet the same: no more requests until the pause is over.
                result.outcome = outcome
                result.unsent = [pair[0] for rest in (part, *parts) for pair in rest]
                break
        return result

    return deliver


def deliver_json(
    who: Mapping[str, str], http: Http, endpoint: str, body_of: Callable[[Item], Mapping[str, Any]]
) -> Delivery:
    """Give the way in which records are posted one by one, as JSON."""
    headers = {"Content-Type": "application/json", **who}
    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="fallom-post")

    def post(item: Item, attempt: int, now_unix_s: float) -> Outcome | None:
        try:
            body = json.dumps(body_of(item), default=str).encode()
        except (ValueError, TypeError, RecursionError):
            return None
        request = Request("POST", endpoint, headers, body, EXCHANGE_DEADLINE_S)
        return _exchange(http, request, attempt, now_unix_s)[0]

    def deliver(items: list[Item], attempt: int, now_unix_s: float) -> Result:
        result = Result()
        for start in range(0, len(items), CONNECTIONS):
            some = items[start : start + CONNECTIONS]
            outcomes = list(pool.map(lambda item: post(item, attempt, now_unix_s), some))
            for item, outcome in zip(some, outcomes, strict=True):
                result.requests += 1
                if outcome is None:
                    result.unreadable.append(item)
                elif outcome.verdict is Verdict.ACCEPTED:
                    result.accepted += 1
                elif outcome.verdict is Verdict.SPLIT:
                    result.guilty.append((item, outcome))
                else:
                    result.outcome = outcome
                    result.unsent.append(item)
            if result.outcome is not None:
                result.unsent += items[start + CONNECTIONS :]
                break
        return result

    return deliver


def withhold(reason: str, status: int = 0) -> Delivery:
    """Give the way in which nothing is posted, and everything kept; as if that status had been answered."""

    def deliver(items: list[Item], attempt: int, now_unix_s: float) -> Result:
        del attempt, now_unix_s
        return Result(unsent=items, outcome=Outcome(Verdict.PAUSE, reason, status))

    return deliver


def exposure_body(item: Item) -> dict[str, Any]:
    """Give the body of ``POST /sessions``."""
    exposure: Exposure = exposure_of(item.record)
    return {
        "config_key": exposure.config_key,
        "config_version": exposure.config_version,
        "session_id": exposure.session_id,
        "assigned_model": exposure.model,
    }


def metrics_body(item: Item) -> dict[str, Any]:
    """Give the body of ``POST /spans``, as the published SDKs send it."""
    metrics: Metrics = metrics_of(item.record)
    return {
        "config_key": metrics.config_key,
        "session_id": metrics.session_id,
        "data": dict(metrics.data),
    }


def _pairs(
    items: list[Item], masked: Callable[[Span], Span] | None, result: Result
) -> list[tuple[Item, tuple[Span, Mapping[str, Any]]]]:
    """Give records with their spans, as they may be sent; what is none is noted in ``result``."""
    pairs: list[tuple[Item, tuple[Span, Mapping[str, Any]]]] = []
    for item in items:
        try:
            span = _span(item)
            pairs.append((item, (masked(span) if masked else span, item.resource)))
        except (ValueError, TypeError):
            result.unreadable.append(item)
    return pairs


def _span(item: Item) -> Span:
    if item.kind == Kind.METRICS:
        return metrics_span(metrics_of(item.record))
    if item.kind == Kind.SPAN:
        return span_of(item.record)
    raise ValueError(f"a frame of kind {item.kind} is no span")


def _exchange(
    http: Http, request: Request, attempt: int, now_unix_s: float
) -> tuple[Outcome, bytes]:
    try:
        response = http.send(request)
    except NetworkError as error:
        if error.status:  # the verdict came, only what was said with it cannot be read
            return judge(error.status, {}, attempt, now_unix_s), b""
        return Outcome(Verdict.RETRY, f"{error.kind}: {error}"), b""
    outcome = judge(response.status, response.headers, attempt, now_unix_s)
    return outcome, response.body
