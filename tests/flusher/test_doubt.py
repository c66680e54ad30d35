"""Refused spans: guilty ones end in dead/ whatever their share; a server that refuses all costs nothing."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fallom._core.outcome import TRIES_BEFORE_SPLIT
from fallom._flusher.dead import DeadLetters
from fallom._flusher.delivery import PROBES
from fallom._flusher.doubt import AHEAD_READS
from fallom._flusher.http import Request
from fallom._host.counts import Drop
from fallom._host.files import File, open_directory
from fallom._spool.quota import drop_aged
from fallom._spool.segment import Destination, target_hash
from tests.flusher.test_ship import Ship, left, letters, record
from tests.support.records import make_span
from tests.support.targets import span_numbers

TRIED_AHEAD = 2 * AHEAD_READS  # at most, of what comes after a batch that was refused


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "fallom")


class Picky:
    """A server that refuses what holds one of some spans, and notes what it took."""

    def __init__(self, poison: set[int], status: int = 400) -> None:
        self.poison, self.status = poison, status
        self.took: list[int] = []

    def __call__(self, request: Request) -> int:
        found = span_numbers(request)
        if self.poison.intersection(found):
            return self.status
        self.took += found
        return 200


def dead_numbers(directory: File) -> list[int]:
    """Give the numbers of the spans in ``dead/``."""
    from fallom._spool.frame import decode_record

    return sorted(int.from_bytes(decode_record(row[6])[1], "big") for row in letters(directory))


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_most_of_a_batch_is_poison_and_is_dead_without_a_pause_and_with_nothing_else_to_send(
    spool: File, dead: DeadLetters, dead_directory: File, status: int
) -> None:
    record(spool, *range(1, 21))
    server = Picky(set(range(5, 20)), status)
    ship = Ship(spool, dead, server)
    ship.run()
    assert dead_numbers(dead_directory) == sorted(server.poison)
    assert sorted(server.took) == [1, 2, 3, 4, 20]
    assert ship.drops == {Drop.REFUSED: 15}
    assert len(ship.waits.waited) == (TRIES_BEFORE_SPLIT if status == 500 else 0)
    assert left(spool) == 0


@pytest.mark.parametrize("poison", [63, 64, 500])
def test_a_batch_of_nothing_but_poison_is_dead_at_once_when_what_comes_after_it_is_taken(
    spool: File, dead: DeadLetters, dead_directory: File, poison: int
) -> None:
    record(spool, *range(1, poison + 101))
    server = Picky(set(range(1, poison + 1)))
    ship = Ship(spool, dead, server, items_max=200)
    ship.run()
    assert dead_numbers(dead_directory) == sorted(server.poison)
    assert sorted(server.took) == list(range(poison + 1, poison + 101))
    assert len(ship.http.requests) <= 3 * poison + 50
    assert ship.waits.waited == []
    assert left(spool) == 0


@given(
    st.integers(2, 160).flatmap(
        lambda count: st.tuples(
            st.just(count),
            st.sets(st.integers(1, count - 1)),  # the last is what shows that others are taken
            st.sampled_from([count, max(2, count // 2), max(2, count // 3)]),
        )
    )
)
@example((7, {1, 2, 3, 4, 5, 6}, 2))
@example((12, set(range(1, 12)), 4))
@hypothesis_settings(max_examples=60)
def test_whatever_the_share_of_the_guilty_exactly_they_are_dead_and_the_rest_arrives_once(
    drawn: tuple[int, set[int], int],
) -> None:
    count, poison, items_max = drawn
    with tempfile.TemporaryDirectory() as folder:
        opened = []
        for name in ("spool", "dead"):
            (Path(folder) / name).mkdir(mode=0o700)
            opened.append(open_directory(str(Path(folder) / name)))
        spool, dead_directory = opened
        dead = DeadLetters(dead_directory, 64 << 20, 1e6)
        segment = record(spool, *range(1, count + 1))
        server = Picky(poison)
        ship = Ship(spool, dead, server, items_max=items_max)
        waits = ship.waits.waited
        # The application goes on: of that, something has to be taken before the last are guilty.
        ship.waits.on_wait = lambda: segment.add(make_span(count + len(waits))) and None
        ship.run()
        assert dead_numbers(dead_directory) == sorted(poison)
        assert sorted(server.took) == sorted(set(range(1, count + len(waits) + 1)) - poison)
        assert left(spool) == 0
        batches = 1 + count // items_max
        assert len(waits) < batches, (
            "each batch of nothing but guilty ones may wait for what comes next"
        )
        assert len(ship.http.requests) <= 5 * count + batches * (1 + PROBES + TRIED_AHEAD)
        dead.close()
        for directory in opened:
            directory.close()


@pytest.mark.parametrize("status", [400, 413, 422, 500, 501])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 700])
def test_a_server_that_refuses_everything_costs_some_requests_a_pause_and_no_span(
    spool: File, dead: DeadLetters, dead_directory: File, status: int, count: int
) -> None:
    record(spool, *range(1, count + 1))
    ship = Ship(spool, dead, lambda _: status, items_max=100)
    ship.waits.waits_max = rounds = 3 * (TRIES_BEFORE_SPLIT + 1)
    for _ in range(rounds):
        ship.lane.ship_once()
    assert letters(dead_directory) == []
    assert left(spool) == count
    most = max(1 + PROBES, 2 * min(count, 63)) + TRIED_AHEAD
    assert len(ship.http.requests) <= most * rounds


def test_spans_that_are_refused_with_nothing_beside_them_wait_for_what_comes(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    """Two that are poison and a server that broke down look the same, until it takes another span."""
    segment = record(spool, 1, 2)
    server = Picky({1, 2})
    ship = Ship(spool, dead, server)
    for _ in range(3):
        ship.lane.ship_once()
    assert letters(dead_directory) == []
    segment.add(make_span(3))
    ship.run()
    assert dead_numbers(dead_directory) == [1, 2]
    assert server.took == [3]


def test_spans_that_wait_for_others_in_vain_go_by_age_as_any_and_are_counted(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    record(spool, 1, 2).seal()
    ship = Ship(spool, dead, Picky({1, 2}))
    aged: list[int] = []
    targets = {destination: target_hash("http://target") for destination in Destination}

    def a_week_later() -> None:
        aged.append(drop_aged(spool, 1 << 62, targets, ship.lane.in_flight))

    ship.waits.on_wait = a_week_later
    while ship.lane.ship_once():
        pass
    assert sum(aged) == 2, "the quota may take what waits"
    assert letters(dead_directory) == []
    assert ship.lane.is_idle


def break_down(ship: Ship, server: Picky) -> None:
    ship.run()
    assert server.took
    ship.http.reply = lambda _: 400


@pytest.mark.parametrize("count", [20, 300])
@pytest.mark.parametrize("taken_before", [1, 5, 12])
def test_a_server_that_breaks_down_in_the_middle_of_a_batch_and_stays_so_costs_no_span(
    spool: File, dead: DeadLetters, dead_directory: File, count: int, taken_before: int
) -> None:
    """The batch is halved because it is too large; then the server refuses whatever comes."""
    segment = record(spool, *range(1, count + 1))
    server, is_mended = Picky(set()), threading.Event()

    def reply(request: Request) -> int:
        if not is_mended.is_set() and len(server.took) >= taken_before:
            return 400
        return server(request) if len(span_numbers(request)) <= 4 else 413

    ship = Ship(spool, dead, reply, items_max=100)

    def go_on() -> None:
        segment.add(make_span(count + len(ship.waits.waited)))  # the application does
        if len(ship.waits.waited) == 5:
            is_mended.set()

    ship.waits.on_wait = go_on
    ship.run()
    assert letters(dead_directory) == []
    assert sorted(server.took) == list(range(1, count + 6)), "each arrived, and once"
    assert len(ship.waits.waited) == 5
    assert left(spool) == 0


@pytest.mark.parametrize("each", [2, 30, 100])
def test_a_server_that_breaks_down_after_it_took_some_costs_no_span(
    spool: File, dead: DeadLetters, dead_directory: File, each: int
) -> None:
    segment = record(spool, 1, 2, 3)
    server = Picky(set())
    ship = Ship(spool, dead, server)
    break_down(ship, server)
    segment.add(*map(make_span, range(4, 4 + each)))
    ship.waits.waits_max = 10
    for _ in range(10):
        ship.lane.ship_once()
    assert letters(dead_directory) == []
    assert left(spool) == each


def test_of_spans_that_come_one_by_one_a_server_that_broke_down_costs_one_at_most(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    segment = record(spool, 1)
    server = Picky(set())
    ship = Ship(spool, dead, server)
    break_down(ship, server)
    for number in range(2, 12):
        segment.add(make_span(number))
        ship.lane.ship_once()
    assert len(letters(dead_directory)) <= 1
    assert left(spool) >= 9


def test_what_a_server_refused_while_it_was_broken_arrives_when_it_is_mended(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    segment = record(spool, *range(1, 101))
    server = Picky(set())
    broken: Callable[[Request], int] = lambda _: 400  # noqa: E731
    ship = Ship(spool, dead, broken)
    for _ in range(3):
        ship.lane.ship_once()
    ship.http.reply = server
    segment.add(make_span(101))
    ship.run()
    assert sorted(server.took) == list(range(1, 102))
    assert letters(dead_directory) == []


def test_a_server_that_is_mended_in_the_middle_of_the_doubt_costs_no_span(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    """The whole batch and its probes were refused; what comes after it is taken, and then so is it."""
    record(spool, *range(1, 201))
    server = Picky(set())
    ship = Ship(spool, dead, lambda _: 200, items_max=100)

    def mended_late(request: Request) -> int:
        return 400 if len(ship.http.requests) <= 1 + PROBES else server(request)

    ship.http.reply = mended_late
    ship.run()
    assert sorted(server.took) == list(range(1, 201))
    assert letters(dead_directory) == []
