"""What is erased while a flusher has it in memory is not sent again, and does not come to rest in dead/."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from fallom._flusher.dead import DeadLetters
from fallom._flusher.http import Request
from fallom._host.counts import Drop
from fallom._host.files import File
from fallom._spool.erasing import Person, erase_from_spool
from tests.flusher.test_doubt import Picky, dead_numbers
from tests.flusher.test_ship import Ship, left
from tests.support.records import make_span
from tests.support.spools import Segment

ADA = Person("ada")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "fallom")


def record(spool: File, *numbers: int) -> Segment:
    """Record spans, of which those with odd numbers are Ada's."""
    names = {number: "ada" if number % 2 else "bob" for number in numbers}
    spans = [make_span(n, attributes={"fallom.session_id": who}) for n, who in names.items()]
    return Segment(spool, {}).add(*spans)


def test_a_batch_that_waits_to_be_sent_again_goes_without_it(
    spool: File, dead: DeadLetters
) -> None:
    record(spool, *range(10))
    ship = Ship(spool, dead, lambda request: 200 if len(ship.http.requests) > 1 else 503)
    ship.waits.on_wait = lambda: erase_from_spool(spool, ADA, None)
    ship.run()
    from tests.support.targets import span_numbers

    first, *others = ship.http.requests
    assert span_numbers(first) == list(range(10))
    assert [number for request in others for number in span_numbers(request)] == [0, 2, 4, 6, 8]
    assert left(spool) == 0


def test_spans_that_are_asked_for_one_by_one_are_not_when_they_are_erased_meanwhile(
    spool: File, dead: DeadLetters, dead_directory: File
) -> None:
    record(spool, *range(200), 200)
    server = Picky(set(range(200)))
    asked: list[int] = []

    def reply(request: Request) -> int:
        from tests.support.targets import span_numbers

        found = span_numbers(request)
        if server.took and len(found) == 1:
            erase_from_spool(spool, ADA, None)
            asked.extend(found)
        return server(request)

    ship = Ship(spool, dead, reply, items_max=200)
    ship.run()
    assert len(asked) > 50
    assert not [number for number in asked[1:] if number % 2]
    assert dead_numbers(dead_directory) == list(range(0, 200, 2))


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_refused_span_that_was_erased_is_not_kept_as_a_dead_letter(
    spool: File,
    dead: DeadLetters,
    dead_directory: File,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    record(spool, 1, 2, 4, 6)
    real = DeadLetters.add

    def add(self: DeadLetters, *arguments: object) -> str:
        if moment == "while":
            erase_from_spool(spool, ADA, None)
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DeadLetters, "add", add)

    def reply(request: Request) -> int:
        status = Picky({1})(request)
        if moment == "before" and status == 400:
            erase_from_spool(spool, ADA, None)
        return status

    ship = Ship(spool, dead, reply)
    ship.run()
    assert sorted(ship.arrived())[-1] == 6
    assert dead_numbers(dead_directory) == []
    assert ship.drops.get(Drop.REFUSED) is None
    assert left(spool) == 0
    names = os.listdir(dead_directory.fd)
    assert not [name for name in names if b"ada" in Path(dead_directory.name, name).read_bytes()]
