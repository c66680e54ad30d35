"""Several batches in flight: as many as are allowed, accepted in order, and one alone after any failure."""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from socket import socket
from typing import Any

import pytest

from fallom._flusher import ship as ship_module
from fallom._flusher import window
from fallom._flusher.dead import DeadLetters
from fallom._flusher.delivery import deliver_otlp
from fallom._flusher.http import Http, Request
from fallom._flusher.window import BATCHES_MAX
from fallom._host.counts import Drop, Tally
from fallom._host.files import File
from tests.flusher.test_ship import Ship, left, letters, record
from tests.support.raw_server import RawServer, answer
from tests.support.targets import span_numbers, span_numbers_of

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _slow_and_quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever time an answer takes is long."""
    caplog.set_level(logging.CRITICAL, "fallom")
    monkeypatch.setattr(window, "SLOW_ANSWER_S", 0.0)


class Open:
    """How many exchanges are open at once."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.now = self.most = self.count = 0

    def __enter__(self) -> int:
        with self.changed:
            self.now, self.count = self.now + 1, self.count + 1
            self.most = max(self.most, self.now)
            self.changed.notify_all()
            return self.count

    def __exit__(self, *exc: object) -> None:
        with self.changed:
            self.now -= 1

    def wait_for(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.most >= count, PATIENCE_S)


def test_a_slow_server_that_takes_what_it_gets_has_several_batches_at_once(
    spool: File, dead: DeadLetters
) -> None:
    record(spool, *range(1, 101))
    exchanges, came = Open(), []

    def reply(connection: socket, request: bytes) -> None:
        with exchanges as number:
            came.append(span_numbers_of(request.partition(b"\r\n\r\n")[2]))
            # The first is alone. Then none is answered before as many are open as are allowed.
            if number > 1:
                assert exchanges.wait_for(BATCHES_MAX)
        connection.sendall(answer(200))

    with closing(RawServer(reply)) as server:
        ship = Ship(spool, dead, lambda _: 200, items_max=10)
        deliver = deliver_otlp({}, Http(), f"{server.url}/v1/traces")
        ship.lane._channel = ship_module.Channel(
            ship.lane._channel.destination, deliver, Tally.SPANS_ACCEPTED
        )
        ship.run()
    assert exchanges.most == BATCHES_MAX
    assert sorted(number for each in came for number in each) == list(range(1, 101))
    assert all(each == sorted(each) for each in came)
    assert ship.tallies == {Tally.SPANS_ACCEPTED: 100, Tally.BATCHES_SENT: 10}
    assert left(spool) == 0


def test_a_batch_is_accepted_only_after_those_before_it_and_is_not_sent_twice(
    spool: File, dead: DeadLetters
) -> None:
    record(spool, *range(1, 11))
    came: list[list[int]] = []

    def reply(request: Request) -> int:
        found = span_numbers(request)
        came.append(found)
        return 503 if 5 in found and not ship.waits.waited else 200

    ship = Ship(spool, dead, reply, items_max=2)
    seen: list[int] = []
    ship.waits.on_wait = lambda: seen.append(left(spool))
    ship.run()
    assert seen == [6], (
        "of ten, the four before the one that failed are accepted, and none after it"
    )
    assert sorted(map(tuple, came)) == [(1, 2), (3, 4), (5, 6), (5, 6), (7, 8), (9, 10)]
    assert left(spool) == 0


def test_after_a_failure_one_batch_is_sent_at_a_time_until_it_is_taken(
    spool: File, dead: DeadLetters
) -> None:
    record(spool, *range(1, 41))
    exchanges = Open()
    alone: list[int] = []

    def reply(request: Request) -> int:
        with exchanges as number:
            if number == 1:
                return 200
            if not ship.waits.waited:
                exchanges.wait_for(BATCHES_MAX)
                return 503
            alone.append(exchanges.now)
            return 503 if len(ship.waits.waited) < 3 else 200

    ship = Ship(spool, dead, reply, items_max=4)
    ship.run()
    # What failed together is sent again one by one; only after that there are several again.
    assert alone[: 2 + BATCHES_MAX] == [1] * (2 + BATCHES_MAX)
    assert ship.tallies[Tally.SPANS_ACCEPTED] == 40
    assert left(spool) == 0


def test_a_server_that_answers_at_once_has_one_batch_at_a_time(
    spool: File, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(spool, *range(1, 41))
    monkeypatch.setattr(window, "SLOW_ANSWER_S", 3600.0)
    exchanges = Open()

    def reply(request: Request) -> int:
        with exchanges:
            return 200

    ship = Ship(spool, dead, reply, items_max=4)
    ship.run()
    assert (exchanges.most, exchanges.count) == (1, 10)
    assert ship.lane._window._pool is None, "and needs no thread for it"


def test_large_batches_in_flight_are_bounded_by_their_bytes(
    spool: File, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(spool, *range(1, 41))
    exchanges = Open()

    def reply(request: Request) -> int:
        with exchanges:
            return 200

    monkeypatch.setattr(ship_module, "BYTES_MAX", 1)
    ship = Ship(spool, dead, reply, items_max=4)
    ship.run()
    assert exchanges.most == 1
    assert left(spool) == 0


def test_poison_in_one_of_several_batches_in_flight_is_found_and_the_others_arrive_once(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    record(spool, *range(1, 201))
    arrived: list[int] = []

    def reply(request: Request) -> int:
        found = span_numbers(request)
        if {77, 130}.intersection(found):
            return 400
        arrived.extend(found)
        return 200

    ship = Ship(spool, dead, reply, items_max=20)
    ship.run()
    assert sorted(arrived) == [n for n in range(1, 201) if n not in (77, 130)]
    assert len(letters(dead_directory)) == 2
    assert ship.drops == {Drop.REFUSED: 2}
    assert ship.waits.waited == []


def test_a_lane_that_is_stopped_waits_for_what_is_in_flight_and_sends_no_more(
    spool: File, dead: DeadLetters
) -> None:
    record(spool, *range(1, 101))
    exchanges = Open()

    def reply(request: Request) -> int:
        with exchanges as number:
            if number > 1:
                assert exchanges.wait_for(BATCHES_MAX)
                ship.lane.stop()
        return 200

    ship = Ship(spool, dead, reply, items_max=10)
    ship.lane._stop = threading.Event()
    ship.lane.run()
    assert exchanges.count == 1 + BATCHES_MAX
    assert left(spool) == 100 - 10 * exchanges.count


def test_a_fault_with_batches_in_flight_sends_them_again_and_loses_none(
    spool: File, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(spool, *range(1, 41))
    came: list[int] = []

    def reply(request: Request) -> Any:
        came.extend(span_numbers(request))
        if 9 in span_numbers(request) and came.count(9) == 1:
            raise RuntimeError("a fault of ours")
        return 200

    ship = Ship(spool, dead, reply, items_max=4)
    ship.lane._stop = threading.Event()
    monkeypatch.setattr(ship.lane._stop, "wait", lambda _: left(spool) or ship.lane.stop())
    ship.lane.run()
    assert set(came) == set(range(1, 41))
    assert left(spool) == 0
