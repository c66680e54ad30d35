"""A fleet in virtual time: thousands of hosts that fetch and send, through an outage and after.

Of the fetches nothing is modelled: every host is a real ``Sync`` with its jitter and backoff; only clock,
network and snapshot are stand-ins. A lane is a model of a few lines, with the package's own ticks, batches
and ``backoff_s``. What comes out is how many requests and spans a second the servers see.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fallom._core.outcome import Verdict, backoff_s, judge
from fallom._core.settings import Settings
from fallom._flusher.http import NetworkError, Request, Response
from fallom._flusher.ship import TICK_S, LaneLimits
from fallom._flusher.sync import Sync
from fallom._flusher.window import BATCHES_MAX
from fallom._snapshot.manifest import Manifest

__all__ = ["Load", "Outage", "fetches_of_a_fleet", "spans_of_a_fleet"]

ROUND_TRIP_S = 0.05  # of a batch; an assumption

_ETAG = '"same"'
_BODIES = {
    "configs": b'{"configs":[{"key":"app","version":1,"variants":[{"model":"m","weight":100}]}]}',
    "prompts": b'{"prompts":[{"key":"p","version":1,"system_prompt":"s","user_template":"u"}]}',
    "prompt-ab-tests": b'{"prompt_ab_tests":[]}',
}


@dataclass(frozen=True)
class Outage:
    """From when to when the server answers nothing, or 503."""

    start_s: float
    end_s: float
    is_silent: bool = False  # nothing listens; else 503

    def covers(self, now_s: float) -> bool:
        """Tell whether it is on."""
        return self.start_s <= now_s < self.end_s


@dataclass(frozen=True)
class Load:
    """Requests a second, by second."""

    per_second: Sequence[int]

    def mean(self, start_s: float, end_s: float) -> float:
        """Give the mean of a time."""
        part = self.per_second[int(start_s) : int(end_s)]
        return sum(part) / len(part)

    def peak(self, start_s: float, end_s: float) -> int:
        """Give the busiest second of a time."""
        return max(self.per_second[int(start_s) : int(end_s)])


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Server:
    """Answers at once, counts by second, and is out when it is out."""

    def __init__(self, clock: _Clock, duration_s: float, outage: Outage) -> None:
        self._clock = clock
        self._outage = outage
        self.per_second = [0] * (int(duration_s) + 1)
        self.bytes_sent = 0

    def send(self, request: Request) -> Response:
        self.per_second[int(self._clock.now_s)] += 1
        if self._outage.covers(self._clock.now_s):
            if self._outage.is_silent:
                raise NetworkError("connect", "nothing listens")
            return Response(503, {}, b"")
        if request.headers.get("If-None-Match") == _ETAG:
            return Response(304, {"etag": _ETAG}, b"")
        body = _BODIES[request.url.rpartition("/")[2]]
        self.bytes_sent += len(body)
        return Response(200, {"etag": _ETAG}, body)


class _Snapshot:
    """Stands in for the publisher: what was published is of no interest here."""

    rebuilds = 0

    def __init__(self) -> None:
        self._manifest = Manifest()

    def manifest(self) -> Manifest:
        return self._manifest

    def publish(self, *_: Any, **__: Any) -> int:
        self._manifest = Manifest(generation=1)  # of how many is of no interest
        return 1


def fetches_of_a_fleet(
    hosts: int, duration_s: float, outage: Outage, starts_within_s: float = 30.0, seed: int = 1
) -> Load:
    """Give the load on the config API: three listings a host and interval.

    Args:
        hosts: How many flushers.
        duration_s: Of virtual time.
        outage: When the API is out.
        starts_within_s: Hosts start evenly at random within this time; 0 for all at once.
        seed: The same seed gives the same run.
    """
    clock, chance = _Clock(), random.Random(seed)
    server = _Server(clock, duration_s, outage)
    settings = Settings(api_key="key", configs_url="http://c", prompts_url="http://p")
    syncs = [
        Sync(
            settings,
            server,
            _Snapshot(),  # type: ignore[arg-type]
            lambda _: None,
            random.Random(chance.random()),
            clock,
            clock,
        )
        for _ in range(hosts)
    ]

    def run(host: int) -> float:
        syncs[host].run_once(clock.now_s)
        return syncs[host].due_s(clock.now_s)

    logger = logging.getLogger("fallom")
    was_disabled, logger.disabled = logger.disabled, True  # each host would say that the API is out
    try:
        _play(clock, hosts, duration_s, lambda: chance.uniform(0, starts_within_s), run)
    finally:
        logger.disabled = was_disabled
    return Load(server.per_second[: int(duration_s)])


def spans_of_a_fleet(
    hosts: int, duration_s: float, outage: Outage, spans_s: float = 60.0, seed: int = 1
) -> tuple[Load, Load]:
    """Give the load on the collectors: requests, and spans, of hosts that record evenly.

    As a lane does: a look each tick, all that has come since in one batch or, of a backlog, in several at
    a time; while the collectors are out one batch is tried again and again.
    """
    clock, chance = _Clock(), random.Random(seed)
    requests, spans = ([0] * (int(duration_s) + 1) for _ in range(2))
    attempts = [0] * hosts
    sent_until_s = [0.0] * hosts
    items_max = LaneLimits().items_max

    def run(host: int) -> float:
        now_s, second = clock.now_s, int(clock.now_s)
        if outage.covers(now_s):
            requests[second] += 1
            outcome = judge(503, {}, attempts[host], now_s)
            assert outcome.verdict is Verdict.RETRY
            attempts[host] += 1
            return now_s + ROUND_TRIP_S + backoff_s(attempts[host] - 1, chance.random())
        waiting = int((now_s - sent_until_s[host]) * spans_s)
        room = 1 if attempts[host] else BATCHES_MAX
        batches = min(room, math.ceil(waiting / items_max))
        sent = min(waiting, batches * items_max)
        requests[second] += batches
        spans[second] += sent
        attempts[host] = 0
        sent_until_s[host] += sent / spans_s
        return now_s + ROUND_TRIP_S + (0.0 if waiting > sent else TICK_S)

    _play(clock, hosts, duration_s, lambda: chance.uniform(0, 1), run)
    return Load(requests[: int(duration_s)]), Load(spans[: int(duration_s)])


def _play(
    clock: _Clock,
    hosts: int,
    duration_s: float,
    start: Callable[[], float],
    run: Callable[[int], float],
) -> None:
    due = [(start(), host) for host in range(hosts)]
    heapq.heapify(due)
    while due[0][0] < duration_s:
        clock.now_s, host = due[0]
        heapq.heapreplace(due, (max(run(host), clock.now_s + 1e-6), host))
