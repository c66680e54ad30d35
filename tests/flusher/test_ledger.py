"""The ledger: what threads count is carried over once, and said once a minute."""

from __future__ import annotations

import logging
import threading
from collections import Counter

import pytest

from fallom._flusher.ledger import Ledger
from fallom._host.counts import Drop, Tally


def test_what_was_counted_is_taken_once() -> None:
    ledger = Ledger()
    ledger.tally(Tally.SPANS_ACCEPTED, 3)
    ledger.tally(Tally.SPANS_ACCEPTED)
    ledger.drop(Drop.REFUSED, 2)
    ledger.drop(Drop.REJECTED, 0)
    assert ledger.take() == ({Tally.SPANS_ACCEPTED: 4}, {Drop.REFUSED: 2}, None)
    assert ledger.take() == ({}, {}, None)


def test_what_could_not_be_written_is_given_back() -> None:
    ledger = Ledger()
    ledger.drop(Drop.REFUSED, 2)
    _, drops, _ = ledger.take()
    ledger.drop(Drop.REFUSED, 1)
    ledger.give_back(drops)
    assert ledger.take()[1] == Counter({Drop.REFUSED: 3})


def test_no_count_of_many_threads_is_lost() -> None:
    ledger = Ledger()
    threads = [
        threading.Thread(target=lambda: [ledger.drop(Drop.DISK) for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    total = 0
    while any(thread.is_alive() for thread in threads):
        total += ledger.take()[1][Drop.DISK]
    assert total + ledger.take()[1][Drop.DISK] == 8000


def test_a_sentence_is_logged_once_a_minute_and_shown_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = Ledger()
    with caplog.at_level(logging.WARNING, "fallom"):
        for now_s in (0.0, 30.0, 59.9, 60.0, 61.0):
            ledger.say("the server is down", now_s)
            assert ledger.take()[2] == "the server is down"
        ledger.say("another thing", 62.0)
    assert [record.getMessage() for record in caplog.records] == [
        "the server is down",
        "the server is down",
        "another thing",
    ]


def test_an_error_that_is_over_is_cleared() -> None:
    ledger = Ledger()
    ledger.show("the server is down")
    ledger.clear_error()
    assert ledger.take()[2] == ""
    assert ledger.take()[2] is None


def test_the_memory_of_what_was_said_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "fallom")
    ledger = Ledger()
    for number in range(1000):
        ledger.say(f"sentence {number} {'x' * 10_000}", 0.0)
    assert sum(map(len, ledger._said)) <= 200 * 1000


def test_what_is_over_takes_back_no_other_sentence() -> None:
    ledger = Ledger()
    ledger.say("traces: refused", 0.0)
    ledger.clear_error("configs: ")
    assert ledger.take()[2] == "traces: refused"
    ledger.show("configs: no answer")
    ledger.clear_error("configs: ")
    assert ledger.take()[2] == ""
