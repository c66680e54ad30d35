"""The survey: what is not accepted, and who still writes; in doubt, there is more of both."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fallom._host.files import File
from fallom._spool import survey
from fallom._spool.segment import HEAD_BYTES, Destination, segment_names, target_hash
from fallom._spool.survey import Mark, count_left, left_of, marks_of, writers_of
from tests.support.descriptors import nothing_left_open
from tests.support.processes import Child
from tests.support.spools import TARGET, Reading, Segment

TARGETS = dict.fromkeys(Destination, TARGET)


def refuse(*_: Any) -> None:
    raise OSError(errno.EMFILE, "too many open files")


def test_what_is_not_accepted_is_marked_whoever_wrote_it(spool: File) -> None:
    live = Segment(spool, {}).add("a")
    ownerless = Segment(spool, {}).add("b").leave()
    sealed = Segment(spool, {}).add("c").seal()
    marks = marks_of(spool, TARGETS)
    assert {mark.name for mark in marks} == {live.name, ownerless, sealed}
    assert {mark.start for mark in marks} == {HEAD_BYTES}
    assert count_left(spool, marks, TARGETS) == 3


def test_what_is_accepted_is_not_marked(spool: File) -> None:
    Segment(spool, {}).add("a").leave()
    Segment(spool, {}).leave()
    Reading(spool).take_all()
    assert marks_of(spool, TARGETS) == []


def test_what_another_target_accepted_is_marked(spool: File) -> None:
    Segment(spool, {}).add("a").leave()
    Reading(spool).take_all()
    others = dict.fromkeys(Destination, target_hash("http://elsewhere"))
    assert len(marks_of(spool, others)) == 1


def test_wishes_are_nobodys_delivery(spool: File) -> None:
    Segment(spool, {}, Destination.WISHES).add("a").leave()
    assert marks_of(spool, TARGETS) == []


def test_a_segment_without_a_whole_head_holds_nothing(spool: File, spool_path: Path) -> None:
    name = Segment(spool).leave()
    os.truncate(spool_path / name.file_name(), 10)
    assert marks_of(spool, TARGETS) == []


def test_a_mark_is_reached_although_more_was_written_behind_it(spool: File) -> None:
    segment = Segment(spool, {}).add("a", "b")
    marks = marks_of(spool, TARGETS)
    reading = Reading(spool)
    reading.take(items_max=1)
    assert len(left_of(spool, marks, TARGETS)) == 1
    assert count_left(spool, marks, TARGETS) == 1
    reading.take(items_max=1)
    segment.add("c")
    assert left_of(spool, marks, TARGETS) == []
    assert count_left(spool, marks, TARGETS) == 0


def test_a_segment_that_was_sealed_meanwhile_is_found_by_its_new_name(spool: File) -> None:
    segment = Segment(spool, {}).add("a")
    marks = marks_of(spool, TARGETS)
    segment.seal()
    assert left_of(spool, marks, TARGETS) == marks
    Reading(spool).take_all()
    assert left_of(spool, marks, TARGETS) == []


def test_a_segment_that_is_gone_was_accepted_or_counted(spool: File) -> None:
    name = Segment(spool, {}).add("a").leave()
    marks = marks_of(spool, TARGETS)
    os.unlink(name.file_name(), dir_fd=spool.fd)
    assert left_of(spool, marks, TARGETS) == []
    assert count_left(spool, marks, TARGETS) == 0


@pytest.mark.parametrize("step", ["open_listed", "read_accepted"])
def test_what_cannot_be_looked_at_now_is_not_taken_for_delivered(
    spool: File, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    Segment(spool, {}).add("a").leave()
    marks = marks_of(spool, TARGETS)
    monkeypatch.setattr(survey, step, refuse)
    assert len(marks_of(spool, TARGETS)) == 1
    assert left_of(spool, marks, TARGETS) == marks
    assert count_left(spool, marks, TARGETS) == 1


def test_what_is_no_segment_is_not_waited_for(spool: File, spool_path: Path) -> None:
    os.mkfifo(spool_path / f"traces-{'0' * 32}.live")
    (spool_path / f"traces-{'1' * 32}.done").symlink_to("nowhere")
    assert marks_of(spool, TARGETS) == []
    assert writers_of(spool) == 0


def test_in_a_directory_that_was_removed_nothing_is_left(spool: File, spool_path: Path) -> None:
    marks = [Mark(Segment(spool, {}).add("a").leave(), 0, 1000)]
    shutil.rmtree(spool_path)
    assert marks_of(spool, TARGETS) == []
    assert left_of(spool, marks, TARGETS) == []
    assert count_left(spool, marks, TARGETS) == 0
    assert writers_of(spool) == 0


def test_writers_are_those_that_hold_a_lock(spool: File) -> None:
    first, second = Segment(spool, {}), Segment(spool, {}, Destination.WISHES)
    Segment(spool, {}).leave()
    Segment(spool, {}).seal()
    assert writers_of(spool) == 2
    first.leave()
    assert writers_of(spool) == 1
    second.leave()
    assert writers_of(spool) == 0
    assert len(segment_names(spool)) == 4


def test_a_forked_child_that_keeps_a_lock_counts_as_a_writer(spool: File) -> None:
    segment = Segment(spool, {})
    read_end, write_end = os.pipe()
    child = Child(lambda: os.read(read_end, 1))
    segment.leave()
    assert writers_of(spool) == 1
    os.write(write_end, b".")
    child.result()
    assert writers_of(spool) == 0
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("step", ["open_listed", "segment_names"])
def test_a_writer_that_cannot_be_looked_for_is_not_known_to_be_gone(
    spool: File, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    Segment(spool, {}).leave()
    if step == "open_listed":
        monkeypatch.setattr(survey, step, refuse)
        assert writers_of(spool) == 1
    else:
        monkeypatch.setattr(survey, step, refuse)
        with pytest.raises(OSError, match="too many"):
            writers_of(spool)


def test_looking_leaves_locks_free_and_nothing_open(spool: File) -> None:
    segment = Segment(spool, {}).add("a")
    name = segment.leave()
    with nothing_left_open():
        for _ in range(3):
            writers_of(spool)
            marks = marks_of(spool, TARGETS)
            count_left(spool, marks, TARGETS)
            left_of(spool, [*marks, Mark(name, 0, 1)], TARGETS)
