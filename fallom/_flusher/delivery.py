"""One batch to one target: how it is posted, and how the guilty records of a refused batch are found.

Two ways of posting, one result. Spans go in one request, halved and halved again while the server
says that something in it is wrong, until what it refuses stands alone. Exposures, and metrics for a
backend that reads JSON, have a request each, over a few connections at once.

A server that breaks down refuses sound records as well. So what was refused alone is a suspect, and is
guilty when the server took something else after that, and then refused it once more.
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

__all__ = [
    "Delivery",
    "MasksInForce",
    "Refused",
    "Result",
    "deliver_json",
    "deliver_otlp",
    "withhold",
]

EXCHANGE_DEADLINE_S = 10.0  # giving up earlier sends twice what the server is still working on
CONNECTIONS = 4  # of a lane that posts one record a request
PROBED_FROM = 64  # smaller batches are halved at once: that is as cheap
PROBES = 8  # all guilty by chance, though less than half of the batch is: 1 in 256
# Level 6 takes 2 to 4 times the CPU of level 1, and saves 7 % of the bytes of spans without content and
# 16 % of those with (77 to 72 and 874 to 730 bytes a span).
_GZIP_LEVEL = 1


Refused: TypeAlias = "tuple[Item, Outcome]"


@dataclass(slots=True)
class Result:
    """What became of a batch: accepted, guilty, suspected, or to be sent again, and why."""

    accepted: int = 0
    rejected: int = 0  # accepted with partial success: the server threw these away
    message: str = ""
    guilty: list[Refused] = field(default_factory=list)
    suspects: list[Refused] = field(default_factory=list)  # refused alone; nothing was taken since
    unreadable: list[Item] = field(default_factory=list)
    unsent: list[Item] = field(default_factory=list)
    outcome: Outcome | None = None  # why there are unsent ones
    requests: int = 0

    @property
    def taken(self) -> int:
        """How many records the server took, whatever it did with them."""
        return self.accepted + self.rejected

    @property
    def is_clean(self) -> bool:
        """Whether the server took all of them, and nothing is left to do."""
        return not (self.guilty or self.suspects or self.unreadable or self.unsent)

    def add(self, later: Result) -> None:
        """Add what became of the batch that came after it."""
        self.accepted += later.accepted
        self.rejected += later.rejected
        self.message = later.message or self.message
        self.guilty += later.guilty
        self.suspects += later.suspects
        self.unreadable += later.unreadable
        self.unsent += later.unsent
        self.outcome = self.outcome or later.outcome
        self.requests += later.requests


Begin: TypeAlias = "Callable[[list[Item], int, float], Callable[[], Result]]"
Ask: TypeAlias = "Callable[[list[Item]], Outcome]"
MasksInForce: TypeAlias = "Callable[[], Callable[[Span], Span] | None]"


class Delivery:
    """A way to post batches: what is to be computed first, then the exchange with the server.

    Two steps, so that the exchanges of several batches can wait for their answers in threads while one
    thread computes: several that compute at once only stand in each other's way.
    """

    def __init__(self, begin: Begin) -> None:
        """Take what computes: of records, how often they were tried, and the unix time."""
        self.begin = begin

    def __call__(self, items: list[Item], attempt: int, now_unix_s: float) -> Result:
        """Post records, and give what became of them."""
        return self.begin(items, attempt, now_unix_s)()


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

    def begin(items: list[Item], attempt: int, now_unix_s: float) -> Callable[[], Result]:
        result = Result()
        spans = _spans(items, masks(), result)
        readable = [item for item in items if id(item) in spans]

        def body_of(some: list[Item]) -> bytes:
            encoded = encoder.encode([spans[id(item)] for item in some])
            return gzip.compress(encoded, _GZIP_LEVEL, mtime=0)

        def post(body: bytes, count: int) -> Outcome:
            request = Request("POST", endpoint, headers, body, EXCHANGE_DEADLINE_S)
            outcome, answer = _exchange(http, request, attempt, now_unix_s)
            result.requests += 1
            if outcome.verdict is Verdict.ACCEPTED:
                rejected, message = partial_success(answer)
                rejected = min(rejected, count)
                result.accepted += count - rejected
                result.rejected += rejected
                result.message = message or result.message
            return outcome

        def ask(some: list[Item]) -> Outcome:
            return post(body_of(some), len(some))

        def exchange() -> Result:
            outcome = post(body, len(readable))
            if outcome.verdict is Verdict.SPLIT and len(readable) >= PROBED_FROM:
                outcome = _probe(readable, outcome, ask)
            if outcome.verdict is Verdict.SPLIT:
                _isolate(readable, outcome, ask, result)
            elif outcome.verdict is not Verdict.ACCEPTED:
                result.outcome, result.unsent = outcome, readable
            return result

        if not readable:
            return lambda: result
        body = body_of(readable)
        return exchange

    return Delivery(begin)


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
        doubted: list[Refused] = []  # refused, and then others were taken
        for start in range(0, len(items), CONNECTIONS):
            some = items[start : start + CONNECTIONS]
            outcomes = list(pool.map(lambda item: post(item, attempt, now_unix_s), some))
            if any(outcome and outcome.verdict is Verdict.ACCEPTED for outcome in outcomes):
                doubted, result.suspects = doubted + result.suspects, []
            for item, outcome in zip(some, outcomes, strict=True):
                result.requests += 1
                if outcome is None:
                    result.unreadable.append(item)
                elif outcome.verdict is Verdict.ACCEPTED:
                    result.accepted += 1
                elif outcome.verdict is Verdict.SPLIT:
                    result.suspects.append((item, outcome))
                else:
                    result.outcome = outcome
                    result.unsent.append(item)
            if result.outcome is not None:
                result.unsent += items[start + CONNECTIONS :]
                break

        def ask(item: Item) -> Outcome | None:
            result.requests += 1
            outcome = post(item, attempt, now_unix_s)
            result.accepted += outcome is not None and outcome.verdict is Verdict.ACCEPTED
            return outcome

        _ask_again(doubted, ask, result)
        return result

    return Delivery(lambda *batch: lambda: deliver(*batch))


def withhold(reason: str, status: int = 0) -> Delivery:
    """Give the way in which nothing is posted, and everything kept; as if that status had been answered."""

    def begin(items: list[Item], attempt: int, now_unix_s: float) -> Callable[[], Result]:
        del attempt, now_unix_s
        return lambda: Result(unsent=items, outcome=Outcome(Verdict.PAUSE, reason, status))

    return Delivery(begin)


def exposure_body(item: Item) -> dict[str, Any]:
    """Give the body of ``POST /sessions``; a ``ValueError`` where it is no exposure."""
    _check_kind(item, Kind.EXPOSURE)
    exposure: Exposure = exposure_of(item.record)
    return {
        "config_key": exposure.config_key,
        "config_version": exposure.config_version,
        "session_id": exposure.session_id,
        "assigned_model": exposure.model,
    }


def metrics_body(item: Item) -> dict[str, Any]:
    """Give the body of ``POST /spans``, as the published SDKs send it, likewise."""
    _check_kind(item, Kind.METRICS)
    metrics: Metrics = metrics_of(item.record)
    return {
        "config_key": metrics.config_key,
        "session_id": metrics.session_id,
        "data": dict(metrics.data),
    }


def _check_kind(item: Item, kind: Kind) -> None:
    """See that it is what is posted here: a later version may have other kinds of the same form."""
    if item.kind != kind:
        raise ValueError(f"a frame of kind {item.kind} where {kind.name} was expected")


def _probe(items: list[Item], refused: Outcome, ask: Ask) -> Outcome:
    """Post a few records of a refused batch one by one, and take out one that is accepted.

    Where none is, it may not be the records: halving the batch down to each would only be a flood.
    """
    step = len(items) // PROBES
    for number in range(0, step * PROBES, step):
        outcome = ask([items[number]])
        if outcome.verdict is Verdict.ACCEPTED:
            del items[number]
            return refused
        if outcome.verdict is not Verdict.SPLIT:
            return outcome
    reason = f"{refused.reason} for a batch and each of {PROBES} spans of it"
    return Outcome(Verdict.DOUBT, reason, refused.status)


def _isolate(items: list[Item], refused: Outcome, ask: Ask, result: Result) -> None:
    """Halve what was refused, and halve it again, until what the server refuses stands alone."""
    if len(items) == 1:
        result.suspects.append((items[0], refused))
        return
    # The first and the last come last, alone: if one of them is taken, that tells of all before it.
    parts = [*_halves(items[1:-1]), items[:1], items[-1:]]
    doubted: list[Refused] = []  # refused, and then others were taken
    while parts:
        part = parts.pop(0)
        outcome = ask(part)
        if outcome.verdict is Verdict.ACCEPTED:
            doubted, result.suspects = doubted + result.suspects, []
        elif outcome.verdict is Verdict.SPLIT and len(part) > 1:
            parts[:0] = _halves(part)
        elif outcome.verdict is Verdict.SPLIT:
            result.suspects.append((part[0], outcome))
        else:
            # The rest would meet the same: no more requests until the pause is over.
            result.outcome = outcome
            result.unsent = [item for rest in (part, *parts) for item in rest]
            break
    _ask_again(doubted, lambda item: ask([item]), result)


def _halves(items: list[Item]) -> list[list[Item]]:
    half = len(items) // 2
    return [part for part in (items[:half], items[half:]) if part]


def _ask_again(
    doubted: list[Refused], ask: Callable[[Item], Outcome | None], result: Result
) -> None:
    """Post once more what was refused before others were taken: who is refused now is guilty."""
    for number, (item, refused) in enumerate(doubted):
        if result.outcome is not None:  # the server is in trouble, and tells nothing of records
            result.suspects = doubted[number:] + result.suspects
            return
        outcome = None if item.is_erased() else ask(item)
        if outcome is None or outcome.verdict is Verdict.ACCEPTED:
            continue
        if outcome.verdict is Verdict.SPLIT:
            result.guilty.append((item, refused))
        else:
            result.outcome = outcome
            result.unsent = [item, *result.unsent]


def _spans(
    items: list[Item], masked: Callable[[Span], Span] | None, result: Result
) -> dict[int, Any]:
    """Give spans with their resources as they may be sent, by ``id`` of their record.

    What is no span is noted in ``result``.
    """
    spans: dict[int, Any] = {}
    for item in items:
        try:
            span = _span(item)
            spans[id(item)] = masked(span) if masked else span, item.resource
        except (ValueError, TypeError, RecursionError):
            result.unreadable.append(item)
    return spans


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
        is_for_people = error.kind == "tls"
        reason = f"{error.kind}: {error}"
        return Outcome(Verdict.RETRY, reason, is_for_people=is_for_people), b""
    outcome = judge(response.status, response.headers, attempt, now_unix_s)
    return outcome, response.body
