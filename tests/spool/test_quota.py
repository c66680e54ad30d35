"""The quota: the oldest go first, what is lost is counted, and what is written to stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._host.files import File
from fallom._spool.quota import (
    AGE_GRACE_NS,
    NEAR,
    RELIEF,
    SEGMENT_BYTES_MIN,
    SEGMENTS_IN_QUOTA,
    AgeLimit,
    Pressure,
    drop_aged,
    drop_oldest,
    pressure_of,
    segment_bytes_max,
    usage_of,
)
from fallom._spool.segment import Destination, SegmentName, segment_names
from tests.support.spools import TARGET, Reading, Segment

TARGETS = dict.fromkeys(Destination, TARGET)
BODY = "x" * 20_000


@pytest.fixture
def aged(spool: File, spool_path: Path) -> list[SegmentName]:
    """Make five sealed segments of two records each, the oldest first."""
    names = []
    for age in range(5):
        name = Segment(spool, {}).add(BODY, BODY).seal()
        os.utime(spool_path / name.file_name(), ns=(0, 1000 + age))
        names.append(name)
    return names


def left(spool: File) -> set[bytes]:
    return {name.id for name in segment_names(spool)}


def ids(names: list[SegmentName]) -> set[bytes]:
    return {name.id for name in names}


def test_usage_is_what_the_disk_has_allocated(spool: File, spool_path: Path) -> None:
    assert usage_of(spool) == (0, 0)
    Segment(spool, {}).add(BODY).leave()
    sparse = spool_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 30)
    usage = usage_of(spool)
    assert usage.segments == 2
    allocated = sum(path.stat().st_blocks * 512 for path in spool_path.iterdir())
    assert usage.bytes == allocated
    assert usage.bytes < 1 << 20


@pytest.mark.parametrize(
    ("share", "pressure"),
    [
        (0.0, Pressure.FINE),
        (NEAR - 0.001, Pressure.FINE),
        (NEAR, Pressure.SHED),
        (0.999, Pressure.SHED),
        (1.0, Pressure.REFUSE),
        (2.0, Pressure.REFUSE),
    ],
)
def test_the_pressure_rises_with_the_usage(share: float, pressure: int) -> None:
    assert pressure_of(int(share * 1_000_000), 1_000_000) == pressure


@given(st.integers(1, 1 << 40), st.integers(1 << 20, 1 << 40))
def test_a_quota_holds_a_number_of_segments(wanted: int, bytes_max: int) -> None:
    found = segment_bytes_max(wanted, bytes_max)
    assert found <= max(wanted, SEGMENT_BYTES_MIN)
    assert found * SEGMENTS_IN_QUOTA <= max(bytes_max, SEGMENT_BYTES_MIN * SEGMENTS_IN_QUOTA)


def test_below_the_limit_nothing_goes(spool: File, aged: list[SegmentName]) -> None:
    used = usage_of(spool).bytes
    assert drop_oldest(spool, used, used * 2, TARGETS) == (used, 0)
    assert left(spool) == ids(aged)


def test_the_oldest_go_until_there_is_relief_and_are_counted_by_record(
    spool: File, aged: list[SegmentName]
) -> None:
    used = usage_of(spool).bytes
    each = used // 5
    limit = int(each * 3.5)
    after, lost = drop_oldest(spool, used, limit, TARGETS)
    assert left(spool) == ids(aged[2:])
    assert lost == 4
    assert after == usage_of(spool).bytes <= limit * RELIEF


def test_what_was_accepted_is_not_lost(spool: File, aged: list[SegmentName]) -> None:
    Reading(spool).take_all()
    Segment(spool, {}).add("new").leave()
    _, lost = drop_oldest(spool, usage_of(spool).bytes, 0, TARGETS)
    assert lost == 1
    assert left(spool) == set()


def test_headers_and_damage_are_no_records(spool: File) -> None:
    Segment(spool, {}).add("a").raw(b"\0" * 100).add("b").leave()
    assert drop_oldest(spool, 1, 0, TARGETS)[1] == 2


def test_what_has_a_writer_stays(spool: File, spool_path: Path, aged: list[SegmentName]) -> None:
    live = Segment(spool, {}).add(BODY)
    os.utime(spool_path / live.name.file_name(), ns=(0, 1))
    drop_oldest(spool, usage_of(spool).bytes, 0, TARGETS)
    assert left(spool) == {live.name.id}
    live.leave()
    drop_oldest(spool, usage_of(spool).bytes, 0, TARGETS)
    assert left(spool) == set()


def test_a_lock_that_a_forked_child_inherited_keeps_no_sealed_segment(spool: File) -> None:
    sealed, live = Segment(spool, {}).add(BODY), Segment(spool, {}).add(BODY)
    inherited = [os.dup(segment.file.fd) for segment in (sealed, live)]
    sealed.seal()
    live.leave()
    assert drop_oldest(spool, usage_of(spool).bytes, 0, TARGETS)[1] == 1
    assert left(spool) == {live.name.id}, "that one may have a writer"
    for fd in inherited:
        os.close(fd)


def test_what_is_being_sent_stays(spool: File, aged: list[SegmentName]) -> None:
    drop_oldest(spool, usage_of(spool).bytes, 0, TARGETS, in_flight={aged[0].id, aged[3].id})
    assert left(spool) == {aged[0].id, aged[3].id}


def test_too_many_segments_go_oldest_first(spool: File, aged: list[SegmentName]) -> None:
    used = usage_of(spool).bytes
    _, lost = drop_oldest(spool, used, used * 100, TARGETS, surplus=2)
    assert (left(spool), lost) == (ids(aged[2:]), 4)


def test_foreign_files_stay_although_they_take_room(
    spool: File, spool_path: Path, tmp_path: Path
) -> None:
    (spool_path / "notes").write_bytes(bytes(100_000))
    (tmp_path / "precious").write_bytes(b"precious")
    (spool_path / f"traces-{'0' * 32}.done").symlink_to(tmp_path / "precious")
    os.mkfifo(spool_path / f"traces-{'1' * 32}.done")
    assert drop_oldest(spool, 1 << 30, 0, TARGETS) == (1 << 30, 0)
    assert len(list(spool_path.iterdir())) == 3
    assert (tmp_path / "precious").exists()


# Age.


def test_what_nobody_wrote_to_since_then_goes_and_is_counted(
    spool: File, aged: list[SegmentName]
) -> None:
    assert drop_aged(spool, 1002, TARGETS) == 4
    assert left(spool) == ids(aged[2:])


def test_what_has_a_writer_or_is_being_sent_does_not_age(
    spool: File, spool_path: Path, aged: list[SegmentName]
) -> None:
    live = Segment(spool, {}).add("a")
    os.utime(spool_path / live.name.file_name(), ns=(0, 1))
    assert drop_aged(spool, 1 << 62, TARGETS, in_flight={aged[0].id}) == 8
    assert left(spool) == {live.name.id, aged[0].id}


def test_a_clock_is_believed_after_ten_minutes() -> None:
    age = AgeLimit(60.0, started_unix_ns=10**18, started_ns=5)
    assert age.before_unix_ns(10**18, 5 + AGE_GRACE_NS - 1) is None
    now_unix_ns = 10**18 + AGE_GRACE_NS
    assert age.before_unix_ns(now_unix_ns, 5 + AGE_GRACE_NS) == now_unix_ns - 60 * 10**9


def test_a_clock_that_jumps_ahead_makes_nothing_old() -> None:
    age = AgeLimit(60.0, started_unix_ns=10**18, started_ns=0)
    jumped = age.before_unix_ns(2 * 10**18, AGE_GRACE_NS)
    assert jumped == 10**18 + AGE_GRACE_NS - 60 * 10**9


def test_a_clock_that_is_set_back_makes_nothing_old() -> None:
    age = AgeLimit(60.0, started_unix_ns=10**18, started_ns=0)
    assert age.before_unix_ns(10**17, AGE_GRACE_NS) == 10**17 - 60 * 10**9
