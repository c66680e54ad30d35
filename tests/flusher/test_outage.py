"""An hour without a server, by an injected clock: the quota holds, nothing inside it is lost."""

from __future__ import annotations

import faulthandler
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fallom import _runtime, _whereabouts
from fallom._core.outcome import BACKOFF_MAX_S
from fallom._core.settings import resolve_settings
from fallom._flusher import loop, ship
from fallom._flusher.election import Election
from fallom._flusher.loop import Flusher
from fallom._host.counts import Tally
from fallom._runtime import Runtime
from fallom._spool.quota import usage_of
from fallom._spool.segment import Destination
from tests.support.records import make_span
from tests.support.targets import span_numbers_of

HOUR_S = 3600
PER_S = 2  # spans
TICK_S = 1.0


class Clock:
    """Stands in for the time module: it goes on only when somebody waits."""

    CLOCK_MONOTONIC = time.CLOCK_MONOTONIC

    def __init__(self) -> None:
        self.ns = 1_000_000_000_000
        self.unix_ns = time.time_ns()

    def monotonic_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return self.ns / 1e9

    def time_ns(self) -> int:
        return self.unix_ns + self.ns

    def time(self) -> float:
        return self.time_ns() / 1e9

    def clock_gettime_ns(self, _: int) -> int:
        return self.ns


class Waits(threading.Event):
    """The stop event of a lane: whoever waits by it lets the world go on meanwhile."""

    def __init__(self, go_on: Callable[[float], None]) -> None:
        super().__init__()
        self.waited: list[float] = []
        self._go_on = go_on

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        self._go_on(timeout)
        return self.is_set()


class Server:
    """A port at which nobody listens, until ``open``."""

    def __init__(self) -> None:
        self.took: list[int] = []
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._http: ThreadingHTTPServer | None = None

    def open(self) -> None:
        took = self.took

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                took.extend(span_numbers_of(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("", 0), Answer, bind_and_activate=False)
        self._http.socket.close()
        self._http.socket = self._socket
        self._http.server_activate()
        arguments = {"poll_interval": 0.02}
        threading.Thread(target=self._http.serve_forever, kwargs=arguments).start()

    def close(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


class World:
    """A worker, a flusher and the clock, in one thread: the flusher's tick, its lane, and records."""

    def __init__(self, state_dir: Path, server: Server, clock: Clock, **given: Any) -> None:
        self.clock, self._server, url = clock, server, server.url
        values = {"state_dir": str(state_dir), "flusher": "external", "traces_url": url, **given}
        self.settings = resolve_settings(values, {})
        self.worker = Runtime(self.settings)
        place = self.worker.whereabouts.open()
        self.page, self.spool = place.page, place.directory.spool
        self._election = Election(place.directory.path)
        assert self._election.win(0.0)
        self.page.take_over(clock.ns, 1, 1)
        self.flusher = Flusher(
            self.settings, place.directory, self.page, self._election, threading.Event()
        )
        self.flusher._lanes = self.flusher._main_lanes()
        (self.lane,) = [
            lane for lane in self.flusher._lanes if lane._channel.destination is Destination.TRACES
        ]
        self.waits = self.lane._stop = Waits(self.go_on)
        self.recorded = 0
        self.most_used = self.tried = 0
        self.lost_in_the_hour: dict[str, int] = {}
        self.until_ns = clock.ns + HOUR_S * 10**9

    def go_on(self, seconds: float) -> None:
        """Let time pass: the flusher ticks, the worker records, and somebody looks at the disk."""
        end_ns = self.clock.ns + int(seconds * 1e9)
        while self.clock.ns < end_ns:
            self.clock.ns += int(min(TICK_S * 1e9, end_ns - self.clock.ns))
            self.flusher._tick(self.clock.ns)
            due = (self.clock.ns - self.until_ns) / 1e9 + HOUR_S
            while self.recorded < min(due, HOUR_S) * PER_S:
                self.recorded += 1
                self.worker.record_span(make_span(self.recorded, name="x" * 200))
            self.most_used = max(self.most_used, usage_of(self.spool).bytes)

            if self.clock.ns >= self.until_ns and not self.tried:
                self.flusher._carry_over()
                self.tried = self.page.tallies()[Tally.BATCHES_SENT.name.lower()]
                self.lost_in_the_hour = self.dropped()
                self._server.open()

    def run(self) -> None:
        """Run an hour without the server, and then until all is delivered."""
        while not (self.tried and self.lane.is_idle):
            if not self.lane.ship_once():
                self.waits.wait(TICK_S)
        self.go_on(2.0)  # what was counted is carried over

    def dropped(self) -> dict[str, int]:
        self.flusher._carry_over()
        self.worker.look()
        return {reason: count for reason, count in self.page.drops().items() if count}

    def close(self) -> None:
        self.worker.seal()
        self.lane._reader.close()
        self._election.resign()


@pytest.fixture
def world(
    server: Server, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    made: list[World] = []
    clock = Clock()
    for module in (_runtime, _whereabouts, loop, ship):
        if hasattr(module, "time"):
            monkeypatch.setattr(module, "time", clock)
    # The watchdog goes by the real clock, and would end the test runner.
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *_, **__: None)
    logging.getLogger("fallom").setLevel(logging.CRITICAL)

    def make(**given: Any) -> World:
        made.append(World(state_dir, server, clock, **given))
        return made[-1]

    yield make
    logging.getLogger("fallom").setLevel(logging.NOTSET)
    for each in made:
        each.close()


def test_an_hour_inside_the_quota_costs_no_span_and_few_requests(
    server: Server, world: Callable[..., World]
) -> None:
    ours = world(spool_bytes_max=16 << 20)
    ours.run()
    assert HOUR_S / BACKOFF_MAX_S <= ours.tried <= 6 * HOUR_S / BACKOFF_MAX_S
    assert max(ours.waits.waited) <= BACKOFF_MAX_S
    assert ours.recorded == HOUR_S * PER_S
    assert ours.most_used <= 16 << 20
    assert sorted(server.took) == list(range(1, ours.recorded + 1))
    assert ours.lost_in_the_hour == ours.dropped() == {}


@pytest.mark.parametrize(
    ("policy", "reason"), [("drop_newest", "quota"), ("drop_oldest", "oldest")]
)
def test_an_hour_beyond_the_quota_costs_exactly_what_is_counted(
    server: Server, world: Callable[..., World], policy: str, reason: str
) -> None:
    ours = world(spool_bytes_max=1 << 20, spool_policy=policy)
    ours.run()
    assert ours.most_used <= 1 << 20
    dropped = ours.dropped()
    assert dropped.keys() == {reason}
    assert dropped[reason] > 100
    assert len(server.took) == len(set(server.took)) == ours.recorded - dropped[reason]
    assert (1 if policy == "drop_newest" else ours.recorded) in server.took
