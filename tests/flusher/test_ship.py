"""A lane with a real spool and a pretended server: nothing leaves the spool that did not arrive."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fallom._core.outcome import PAUSE_S
from fallom._flusher import ship as ship_module
from fallom._flusher.dead import DeadLetters
from fallom._flusher.delivery import deliver_json, deliver_otlp, exposure_body
from fallom._flusher.exposures import ExposureFilter
from fallom._flusher.http import NetworkError, Request, Response
from fallom._flusher.ledger import Ledger
from fallom._flusher.ship import Channel, Lane, LaneLimits
from fallom._host.counts import Drop, Tally
from fallom._host.files import File, open_file
from fallom._spool.frame import Kind, decode_record, scan, seed_of
from fallom._spool.segment import Destination
from tests.support.flushers import wait_for
from tests.support.records import make_exposure, make_span
from tests.support.spools import Reading, Segment, records_of
from tests.support.targets import FakeHttp, partial, posted_json, span_numbers


class Waits(threading.Event):
    """The lane's stop event: it notes how long the lane wants to wait, and lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []
        self.waits_max = 50
        self.on_wait: Callable[[], None] = lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        self.on_wait()
        return self.is_set() or len(self.waited) >= self.waits_max


class Ship:
    """A lane and all that is around it."""

    def __init__(
        self,
        spool: File,
        dead: DeadLetters,
        reply: Callable[[Request], Any],
        destination: Destination = Destination.TRACES,
        **limits: int,
    ) -> None:
        self.http = FakeHttp(reply)
        self.ledger = Ledger()
        self.reading = Reading(spool, destination)
        http = self.http
        if destination is Destination.EXPOSURES:
            channel = Channel(
                destination,
                deliver_json({}, http, "http://x/sessions", exposure_body),  # type: ignore[arg-type]
                Tally.EXPOSURES_ACCEPTED,
                repeats=ExposureFilter(),
                is_optional=True,
            )
        else:
            deliver = deliver_otlp({}, http, "http://x/v1/traces")  # type: ignore[arg-type]
            channel = Channel(destination, deliver, Tally.SPANS_ACCEPTED)
        self.lane = Lane(channel, self.reading.reader, dead, self.ledger, LaneLimits(**limits))
        self.waits = self.lane._stop = Waits()
        self.tallies: dict[Tally, int] = {}
        self.drops: dict[Drop, int] = {}

    def run(self) -> None:
        """Ship all that there is."""
        while self.lane.ship_once() and not self.waits.is_set():
            pass
        self.count()

    def count(self) -> None:
        tallies, drops, self.error = self.ledger.take()
        self.tallies = {tally: count for tally, count in tallies.items() if count}
        self.drops = {drop: count for drop, count in drops.items() if count}

    def arrived(self) -> list[int]:
        return [number for request in self.http.requests for number in span_numbers(request)]


def letters(directory: File) -> list[list[Any]]:
    """Give the dead letters of a directory."""
    found = []
    for name in os.listdir(directory.fd):
        if name.endswith(".dead"):
            file = open_file(directory, name, os.O_RDONLY)
            seed = seed_of(bytes.fromhex(name.partition("-")[2].partition(".")[0]))
            data = os.pread(file.fd, 1 << 24, 0)
            found += [decode_record(frame.payload) for frame in scan(data, 0, seed)]  # type: ignore[union-attr]
    return found


def record(spool: File, *numbers: int) -> Segment:
    segment = Segment(spool, {"service.name": "tests"})
    return segment.add(*(make_span(number) for number in numbers))


def left(spool: File, destination: Destination = Destination.TRACES) -> int:
    """Count what another flusher would find in the spool."""
    other, found = Reading(spool, destination), 0
    while pieces := other.pieces():
        found += len(records_of(pieces))
    other.reader.close()
    return found


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "fallom")


def test_what_is_accepted_leaves_the_spool_and_is_counted(spool: File, dead: DeadLetters) -> None:
    record(spool, 1, 2)
    record(spool, 3)
    ship = Ship(spool, dead, lambda _: 200)
    ship.run()
    assert sorted(ship.arrived()) == [1, 2, 3]
    assert ship.tallies == {Tally.SPANS_ACCEPTED: 3, Tally.BATCHES_SENT: 1}
    assert ship.drops == {}
    assert left(spool) == 0
    assert ship.lane.is_idle
    assert ship.lane.in_flight == frozenset()


def test_a_batch_is_bounded(spool: File, dead: DeadLetters) -> None:
    record(spool, *range(1, 11))
    ship = Ship(spool, dead, lambda _: 200, items_max=4)
    ship.run()
    sizes = [len(span_numbers(request)) for request in ship.http.requests]
    # In whatever order: to a server that is known to be well, several go side by side.
    assert sorted(sizes) == [2, 4, 4]


def test_one_poison_span_of_many_is_in_dead_with_the_reason_and_the_rest_arrive(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    record(spool, *range(1, 21))
    arrived: list[int] = []

    def reply(request: Request) -> int:
        if 7 in span_numbers(request):
            return 400
        arrived.extend(span_numbers(request))
        return 200

    ship = Ship(spool, dead, reply)
    ship.run()
    assert sorted(arrived) == [n for n in range(1, 21) if n != 7]
    [(reason, status, _, destination, kind, resource, payload, target)] = letters(dead_directory)
    assert (status, destination, kind) == (400, Destination.TRACES, Kind.SPAN)
    assert "400" in reason
    assert resource == {"service.name": "tests"}
    assert target == ""
    assert decode_record(payload)[:2] == [*make_span(7)[:2]]
    assert ship.drops == {Drop.REFUSED: 1}
    assert ship.tallies[Tally.SPANS_ACCEPTED] == 19
    assert left(spool) == 0
    assert ship.waits.waited == []


def test_a_server_that_refuses_everything_is_left_alone_and_nothing_goes_to_dead(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    record(spool, *range(1, 6))
    ship = Ship(spool, dead, lambda _: 400)
    ship.waits.waits_max = 3
    for _ in range(3):
        assert ship.lane.ship_once()
    ship.count()
    assert all(PAUSE_S / 2 <= wait_s <= PAUSE_S for wait_s in ship.waits.waited)
    assert letters(dead_directory) == []
    assert ship.drops == {}
    assert left(spool) == 5
    assert "nothing else was taken" in (ship.error or "")


def test_after_that_pause_all_of_it_arrives_once(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    record(spool, *range(1, 6))
    ship = Ship(spool, dead, lambda _: 200 if ship.waits.waited else 400)
    ship.run()
    assert span_numbers(ship.http.requests[-1]) == [1, 2, 3, 4, 5]
    assert letters(dead_directory) == []
    assert left(spool) == 0


@pytest.mark.parametrize("poison", [1, 2])
def test_lone_poison_spans_do_not_hold_back_what_comes_after_them(
    spool: File, dead: DeadLetters, dead_directory: File, poison: int
) -> None:
    segment = record(spool, *range(1, poison + 1))
    accepted: list[int] = []

    def reply(request: Request) -> int:
        if min(span_numbers(request)) <= poison:
            return 400
        accepted.extend(span_numbers(request))
        return 200

    ship = Ship(spool, dead, reply)
    ship.waits.on_wait = lambda: segment.add(*map(make_span, (11, 12))) and None
    ship.run()
    assert len(ship.waits.waited) == 1
    assert {11, 12} <= set(accepted)
    assert len(letters(dead_directory)) == poison
    assert left(spool) == 0


def test_a_lone_poison_span_of_a_server_that_takes_others_is_in_dead_at_once(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    segment = record(spool, 1)
    ship = Ship(spool, dead, lambda request: 400 if 2 in span_numbers(request) else 200)
    ship.run()
    segment.add(make_span(2))
    ship.run()
    assert len(letters(dead_directory)) == 1
    assert ship.waits.waited == []


def test_a_batch_that_is_too_large_is_split(spool: File, dead: DeadLetters) -> None:
    record(spool, *range(1, 9))
    ship = Ship(spool, dead, lambda request: 413 if len(span_numbers(request)) > 2 else 200)
    ship.run()
    assert ship.tallies[Tally.SPANS_ACCEPTED] == 8
    assert ship.drops == {}


def test_the_time_that_the_server_names_is_waited(spool: File, dead: DeadLetters) -> None:
    record(spool, 1)
    replies = [Response(429, {"retry-after": "77"}, b""), 200]
    ship = Ship(spool, dead, lambda _: replies.pop(0))
    ship.run()
    assert ship.waits.waited == [77.0]
    assert left(spool) == 0


def test_a_server_in_trouble_is_tried_again_with_growing_pauses_and_the_same_batch(
    spool: File, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship_module.random, "random", lambda: 1.0)
    record(spool, 1, 2)
    replies: list[Any] = [503, NetworkError("reset", "gone"), 502, 504, 200]
    ship = Ship(spool, dead, lambda _: replies.pop(0))
    ship.run()
    assert ship.waits.waited == [1.0, 2.0, 4.0, 8.0]
    assert {tuple(span_numbers(request)) for request in ship.http.requests} == {(1, 2)}
    assert len({request.body for request in ship.http.requests}) == 1
    assert ship.tallies[Tally.BATCHES_RETRIED] == 4
    assert ship.tallies[Tally.SPANS_ACCEPTED] == 2


@pytest.mark.parametrize("status", [401, 403, 404, 301])
def test_a_wrong_account_or_url_is_a_pause_that_keeps_everything(
    spool: File, dead: DeadLetters, dead_directory: File, status: int
) -> None:
    record(spool, 1, 2)
    ship = Ship(spool, dead, lambda _: status)
    ship.waits.waits_max = 3
    ship.lane.ship_once()
    ship.count()
    assert len(ship.http.requests) == 3
    assert all(PAUSE_S / 2 <= wait_s <= PAUSE_S for wait_s in ship.waits.waited)
    assert str(status) in (ship.error or "")
    assert ship.drops == {}
    assert letters(dead_directory) == []
    assert left(spool) == 2


def test_what_the_server_rejected_is_counted_and_not_sent_again(
    spool: File, dead: DeadLetters
) -> None:
    record(spool, 1, 2, 3)
    ship = Ship(spool, dead, lambda _: partial(2, "too old"))
    ship.run()
    assert ship.drops == {Drop.REJECTED: 2}
    assert ship.tallies[Tally.SPANS_ACCEPTED] == 1
    assert "too old" in (ship.error or "")
    assert len(ship.http.requests) == 1
    assert left(spool) == 0


def test_a_record_that_cannot_be_read_goes_to_dead_and_the_others_arrive(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    record(spool, 1).add(["no span"]).add(make_span(2))
    ship = Ship(spool, dead, lambda _: 200)
    ship.run()
    assert ship.arrived() == [1, 2]
    [letter] = letters(dead_directory)
    assert decode_record(letter[6]) == ["no span"]
    assert letter[1] == 0
    assert left(spool) == 0


def test_unreadable_records_alone_say_nothing_about_the_target(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    Segment(spool, {}).add(["no span"], ["nor this"])
    ship = Ship(spool, dead, lambda _: 200)
    ship.run()
    assert len(letters(dead_directory)) == 2
    assert ship.waits.waited == []


def test_a_record_stays_in_the_spool_while_dead_cannot_be_written(
    spool: File, dead: DeadLetters, dead_directory: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(spool, 1, 2, 3)
    ship = Ship(spool, dead, lambda request: 400 if 2 in span_numbers(request) else 200)
    add, failures = dead.add, [OSError(errno.ENOSPC, "full"), OSError(errno.ENOSPC, "full")]

    def refuse(*arguments: Any) -> None:
        assert left(spool) == 3
        if failures:
            raise failures.pop()
        add(*arguments)

    monkeypatch.setattr(dead, "add", refuse)
    ship.run()
    assert ship.waits.waited == [PAUSE_S] * 2
    assert len(letters(dead_directory)) == 1
    assert left(spool) == 0


def test_a_lane_that_is_stopped_while_it_waits_keeps_its_batch(
    spool: File, dead: DeadLetters
) -> None:
    record(spool, 1, 2)
    ship = Ship(spool, dead, lambda _: 503)
    ship.waits.on_wait = ship.waits.set
    ship.lane.ship_once()
    assert left(spool) == 2


def test_an_offset_that_cannot_be_written_is_told_and_nothing_is_sent_twice(
    spool: File, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fallom._spool import tail

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, "read-only")

    record(spool, 1)
    monkeypatch.setattr(tail, "write_accepted", refuse)
    ship = Ship(spool, dead, lambda _: 200)
    ship.run()
    ship.run()
    assert ship.arrived() == [1]


def test_a_segment_that_the_quota_deleted_while_the_lane_waited_is_not_sent_again(
    spool: File, dead: DeadLetters, tmp_path: Path
) -> None:
    first, _second = record(spool, 1), record(spool, 2)
    replies = [503, 200]
    ship = Ship(spool, dead, lambda _: replies.pop(0))
    seen: list[frozenset[bytes]] = []

    def delete() -> None:
        seen.append(ship.lane.in_flight)
        os.unlink(first.name.file_name(), dir_fd=spool.fd)

    ship.waits.on_wait = delete
    ship.run()
    assert seen == [frozenset()]
    assert span_numbers(ship.http.requests[-1]) == [2]


# Exposures.


def expose(spool: File, *numbers: int) -> Segment:
    segment = Segment(spool, {}, Destination.EXPOSURES)
    return segment.add(*map(make_exposure, numbers), kind=Kind.EXPOSURE)


def test_an_exposure_is_sent_once_however_often_it_was_recorded(
    spool: File, dead: DeadLetters
) -> None:
    expose(spool, 1, 2, 1)
    expose(spool, 2, 3)
    ship = Ship(spool, dead, lambda _: 200, Destination.EXPOSURES)
    ship.run()
    expose(spool, 3, 4)
    ship.run()
    sent = [posted_json(request)["session_id"] for request in ship.http.requests]
    assert sorted(sent) == [f"session {n}" for n in (1, 2, 3, 4)]
    assert left(spool, Destination.EXPOSURES) == 0


def test_repeated_exposures_are_counted(spool: File, dead: DeadLetters) -> None:
    expose(spool, 1, 1, 1)
    ship = Ship(spool, dead, lambda _: 200, Destination.EXPOSURES)
    ship.run()
    assert ship.tallies[Tally.EXPOSURES_REPEATED] == 2
    assert ship.tallies[Tally.EXPOSURES_ACCEPTED] == 1


def test_an_exposure_that_did_not_arrive_is_not_taken_for_known(
    spool: File, dead: DeadLetters
) -> None:
    expose(spool, 1)
    ship = Ship(spool, dead, lambda _: 503, Destination.EXPOSURES)
    ship.waits.on_wait = ship.waits.set
    ship.lane.ship_once()
    ship.waits.clear()
    ship.waits.on_wait = lambda: None
    ship.http.reply = lambda _: 200
    ship.run()
    assert len(ship.http.requests) == 2
    assert left(spool, Destination.EXPOSURES) == 0


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_exposures_is_asked_once_and_they_are_counted(
    spool: File, dead: DeadLetters, status: int
) -> None:
    expose(spool, *range(1, 4))
    ship = Ship(spool, dead, lambda _: status, Destination.EXPOSURES)
    ship.run()
    first = len(ship.http.requests)
    assert ship.drops == {Drop.EXPOSURES_OFF: 3}
    expose(spool, *range(4, 8))
    ship.run()
    assert len(ship.http.requests) == first
    assert ship.drops == {Drop.EXPOSURES_OFF: 4}
    assert ship.waits.waited == []
    assert left(spool, Destination.EXPOSURES) == 0


def test_only_the_exposures_that_failed_are_sent_again(spool: File, dead: DeadLetters) -> None:
    expose(spool, *range(1, 10))
    failing = {"session 2"}

    def reply(request: Request) -> int:
        session = posted_json(request)["session_id"]
        if session in failing:
            failing.discard(session)
            return 503
        return 200

    ship = Ship(spool, dead, reply, Destination.EXPOSURES)
    ship.run()
    sent = [posted_json(request)["session_id"] for request in ship.http.requests]
    assert sorted(sent) == sorted([*(f"session {n}" for n in range(1, 10)), "session 2"])


# The thread.


def test_a_fault_costs_a_turn_and_not_the_lane(spool: File, dead: DeadLetters) -> None:
    record(spool, 1)
    faults = [RuntimeError("a fault of ours")]

    def reply(_: Request) -> int:
        if faults:
            raise faults.pop()
        return 200

    ship = Ship(spool, dead, reply)
    ship.waits.waits_max = 1000
    thread = threading.Thread(target=ship.lane.run)
    thread.start()
    try:
        wait_for(lambda: len(ship.http.requests) == 2 and ship.lane.is_idle)
    finally:
        ship.lane.stop()
        thread.join()
    assert left(spool) == 0


def test_a_lane_that_is_told_to_stop_ends_and_leaves_what_it_has_not_sent(
    spool: File, dead: DeadLetters
) -> None:
    record(spool, 1)
    is_sending, may_answer = threading.Event(), threading.Event()

    def reply(_: Request) -> int:
        is_sending.set()
        may_answer.wait()
        return 200

    ship = Ship(spool, dead, reply)
    thread = threading.Thread(target=ship.lane.run)
    thread.start()
    is_sending.wait()
    record(spool, 2)
    ship.lane.stop()
    may_answer.set()
    thread.join()
    assert ship.arrived() == [1]
    assert left(spool) == 1


# A lane with nothing to do.


def test_a_quiet_lane_sleeps_until_it_is_woken_or_stopped(
    spool: File, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship_module, "QUIET_AFTER_S", -1.0)
    monkeypatch.setattr(ship_module, "QUIET_TICK_S", 3600.0)
    ship = Ship(spool, dead, lambda _: 200)
    ship.lane._stop = threading.Event()
    asleep = threading.Event()
    wait = ship.lane._wake.wait

    def sleep(timeout: float | None = None) -> bool:
        asleep.set()
        return wait(timeout)

    monkeypatch.setattr(ship.lane._wake, "wait", sleep)
    thread = threading.Thread(target=ship.lane.run)
    thread.start()
    for count in (1, 2, 3):
        assert asleep.wait(10)
        asleep.clear()
        Segment(spool, {}).add(make_span(count))
        ship.lane.wake()
        wait_for(lambda count=count: len(ship.http.requests) == count, what="the span")  # type: ignore[misc]
    assert asleep.wait(10)
    ship.lane.stop()
    thread.join(10)
    assert not thread.is_alive()
