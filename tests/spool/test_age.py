"""Age: what nobody writes to any more is given up after a time, by a clock that may jump."""

from __future__ import annotations

import os
from pathlib import Path

from fallom._host.files import File
from fallom._spool.frame import Kind
from fallom._spool.quota import AGE_GRACE_NS, AgeLimit, drop_aged
from fallom._spool.segment import Destination, target_hash
from tests.support.spools import RecordWriter

DAY_NS = 86_400 * 10**9
TARGETS = {destination: target_hash("http://target") for destination in Destination}


def writer_of(spool: File, count: int) -> RecordWriter:
    writer = RecordWriter(lambda: spool, dict, 1 << 20)
    for number in range(count):
        assert writer.write(Destination.TRACES, Kind.SPAN, [number], 1) is None
    return writer


def age_all(spool_path: Path, unix_ns: int) -> None:
    for path in spool_path.iterdir():
        os.utime(path, ns=(unix_ns, unix_ns))


def test_what_has_no_writer_goes_when_it_is_too_old_and_is_counted(
    spool: File, spool_path: Path
) -> None:
    writer_of(spool, 5).seal()
    age_all(spool_path, 100)
    assert drop_aged(spool, 100, TARGETS) == 0, "not yet"
    assert drop_aged(spool, 101, TARGETS) == 5
    assert list(spool_path.iterdir()) == []


def test_what_has_a_writer_stays_however_old_it_looks(spool: File, spool_path: Path) -> None:
    writer = writer_of(spool, 5)
    age_all(spool_path, 100)
    assert drop_aged(spool, 10**18, TARGETS) == 0
    assert len(list(spool_path.iterdir())) == 1
    writer.seal()


def test_what_is_being_sent_stays(spool: File, spool_path: Path) -> None:
    writer_of(spool, 5).seal()
    (path,) = spool_path.iterdir()
    in_flight = {bytes.fromhex(path.stem.partition("-")[2])}
    age_all(spool_path, 100)
    assert drop_aged(spool, 101, TARGETS, in_flight) == 0


def test_a_wall_clock_that_jumps_ahead_makes_nothing_older() -> None:
    limit = AgeLimit(7 * 86_400.0, 1000 * DAY_NS, 0)
    hour_ns = DAY_NS // 24
    assert limit.before_unix_ns(1000 * DAY_NS + hour_ns, hour_ns) == 993 * DAY_NS + hour_ns
    assert limit.before_unix_ns(5000 * DAY_NS, hour_ns) == 993 * DAY_NS + hour_ns


def test_a_clock_that_was_wrong_at_the_start_and_is_set_back_is_believed_then() -> None:
    limit = AgeLimit(7 * 86_400.0, 5000 * DAY_NS, 0)
    assert limit.before_unix_ns(1000 * DAY_NS, DAY_NS) == 993 * DAY_NS
    assert limit.before_unix_ns(5000 * DAY_NS, AGE_GRACE_NS - 1) is None, "nor at all at first"
