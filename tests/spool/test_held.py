"""Segments that several targets read: kept until each has them, or until its budget is used up."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

import pytest

from fallom._host.files import File, open_file
from fallom._spool.held import Held
from fallom._spool.reader import Sharing, SpoolReader
from fallom._spool.segment import (
    Destination,
    SegmentName,
    extra_target_hash,
    head_of,
    read_accepted,
    read_furthest,
    segment_names,
    write_accepted,
)
from tests.support.records import make_span
from tests.support.spools import TARGET, Reading, Segment, records_of

EXTRA = extra_target_hash("lab", "http://lab/v1/traces")
OTHER = extra_target_hash("other", "http://lab/v1/traces")
MAIN_OF = {Destination.TRACES: TARGET}


class Shared:
    """A reader for the main target, and one for each of two extra ones."""

    def __init__(self, spool: File) -> None:
        self.spool = spool
        self.heads = threading.Lock()
        keeper = Sharing(is_keeper=True, others=(EXTRA, OTHER), heads=self.heads)
        self.main = Reading(spool, sharing=keeper)
        self.extra = self.reader_for(EXTRA)
        self.other = self.reader_for(OTHER)
        self.held = self.held_for(EXTRA)

    def reader_for(self, target: bytes) -> SpoolReader:
        sharing = Sharing(is_keeper=False, heads=self.heads)
        nothing = lambda *_: None  # noqa: E731
        return SpoolReader(
            self.spool, Destination.TRACES, target, nothing, nothing, sharing=sharing
        )

    def held_for(self, target: bytes) -> Held:
        extra_of = {Destination.TRACES: target}
        return Held(self.spool, MAIN_OF, extra_of, (EXTRA, OTHER), self.heads)

    def tidy(self) -> list[SegmentName]:
        self.main.tidy(after_ns=10_000_000_000)
        return segment_names(self.spool)


def taken(reader: SpoolReader) -> list[Any]:
    found = []
    reader.refresh(1)
    while pieces := reader.next_batch(1000, 1 << 20):
        reader.accept(pieces)
        found += records_of(pieces)
    return found


@pytest.fixture
def shared(spool: File) -> Shared:
    return Shared(spool)


def sealed(spool: File, *numbers: int) -> SegmentName:
    return Segment(spool, {"service.name": "s"}).add(*map(make_span, numbers)).seal()


def set_age(spool: File, *names: SegmentName) -> None:
    """Have the first be the oldest."""
    for changed_ns, name in enumerate(names, 1):
        os.utime(name.file_name(), ns=(changed_ns, changed_ns), dir_fd=spool.fd)


def test_a_segment_is_deleted_when_every_target_has_it_and_not_before(
    shared: Shared, spool: File
) -> None:
    Segment(spool, {"service.name": "s"}).add(make_span(1), make_span(2)).leave()
    sealed(spool, 3)
    assert len(shared.main.take_all()) == 3
    assert len(shared.tidy()) == 2
    assert len(taken(shared.extra)) == 3
    assert len(shared.tidy()) == 2
    assert len(taken(shared.other)) == 3
    assert shared.tidy() == []


def test_a_target_that_comes_later_gets_all_with_the_resource_of_its_writer(
    shared: Shared, spool: File
) -> None:
    sealed(spool, 1)
    shared.main.take_all()
    shared.tidy()
    shared.extra.refresh(1)
    [piece] = shared.extra.next_batch(10, 1 << 20)
    assert piece.items[0].resource == {"service.name": "s"}


def test_beyond_its_budget_the_oldest_is_given_up_for_one_target_alone(
    shared: Shared, spool: File
) -> None:
    names = [sealed(spool, 1, 2), sealed(spool, 3), sealed(spool, 4, 5, 6)]
    shared.main.take_all()
    set_age(spool, *names)
    assert shared.held.give_up_beyond(8192, ()) == 2
    assert len(shared.tidy()) == 3, "the third target still lacks it"
    assert len(taken(shared.extra)) == 4
    assert len(taken(shared.other)) == 6
    assert shared.tidy() == []


def test_what_is_given_up_goes_at_once_where_nobody_lacks_it(shared: Shared, spool: File) -> None:
    sealed(spool, 1)
    shared.main.take_all()
    taken(shared.other)
    assert shared.held.give_up_beyond(0, ()) == 1
    assert segment_names(spool) == []


def test_nothing_that_the_main_target_lacks_is_ever_given_up(shared: Shared, spool: File) -> None:
    name = sealed(spool, 1, 2)
    shared.main.take(items_max=1)
    assert shared.held.give_up_beyond(0, ()) == 0
    assert shared.held.give_up_before(1 << 62, ()) == 0
    file = open_file(spool, name.file_name(), os.O_RDONLY)
    assert read_accepted(file, name, EXTRA) == 256
    file.close()


def test_what_has_a_writer_or_is_being_sent_is_not_given_up(shared: Shared, spool: File) -> None:
    live = Segment(spool, {"service.name": "s"}).add(make_span(1))
    name = sealed(spool, 2)
    shared.main.take_all()
    assert shared.held.give_up_beyond(0, {name.id}) == 0
    live.leave()
    assert shared.held.give_up_beyond(0, {name.id}) == 1


def test_what_is_held_for_too_long_is_given_up(shared: Shared, spool: File) -> None:
    names = [sealed(spool, 1), sealed(spool, 2)]
    shared.main.take_all()
    set_age(spool, *names)
    assert shared.held.give_up_before(2, ()) == 1
    assert shared.held.give_up_before(2, ()) == 0


def test_a_batch_that_was_given_up_meanwhile_is_not_sent_again(shared: Shared, spool: File) -> None:
    sealed(spool, 1)
    shared.main.take_all()
    shared.extra.refresh(1)
    [piece] = shared.extra.next_batch(10, 1 << 20)
    assert shared.extra.is_wanted(piece)
    assert shared.held.give_up_beyond(0, ()) == 1
    assert not shared.extra.is_wanted(piece)
    assert taken(shared.extra) == []


def test_targets_that_accept_at_once_keep_a_slot_each(
    spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = threading.Barrier(3)
    pwrite = os.pwrite

    def after_the_others(fd: int, data: bytes, offset: int) -> int:
        # All that may have looked for a free slot by then have: two that saw the same one write to it.
        with contextlib.suppress(threading.BrokenBarrierError):
            everybody.wait(timeout=0.1)
        return pwrite(fd, data, offset)

    shared = Shared(spool)
    name = sealed(spool, 1)
    readers = [shared.main.reader, shared.extra, shared.other]
    batches = []
    for reader in readers:
        reader.refresh(1)
        batches.append((reader, reader.next_batch(10, 1 << 20)))
    monkeypatch.setattr(os, "pwrite", after_the_others)
    threads = [threading.Thread(target=reader.accept, args=(batch,)) for reader, batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file = open_file(spool, name.file_name(), os.O_RDONLY)
    assert {read_accepted(file, name, each) for each in (TARGET, EXTRA, OTHER)} == {file.size()}
    file.close()
    assert shared.tidy() == []


def test_an_offset_that_could_not_be_written_is_written_later(
    shared: Shared, spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed(spool, 1)
    shared.main.take_all()
    taken(shared.other)
    with monkeypatch.context() as patched:
        patched.setattr("fallom._spool.tail.write_accepted", _refuse)
        shared.extra.refresh(1)
        with pytest.raises(OSError, match="refused"):
            shared.extra.accept(shared.extra.next_batch(10, 1 << 20))
    assert len(shared.tidy()) == 1
    shared.extra.tidy(1)
    assert shared.tidy() == []


def test_an_offset_of_the_main_target_that_could_not_be_written_is_written_later(
    shared: Shared, spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed(spool, 1)
    with monkeypatch.context() as patched:
        patched.setattr("fallom._spool.tail.write_accepted", _refuse)
        with pytest.raises(OSError, match="refused"):
            shared.main.take()
    assert len(shared.tidy()) == 1
    assert shared.held.give_up_beyond(0, ()) == 1, "it counts as held for the others"
    assert Reading(spool).take_all() == [], "a later flusher does not send it again"


def _refuse(*_: Any) -> None:
    raise OSError(5, "refused")


def test_what_only_an_extra_target_has_is_not_what_some_target_has(spool: File) -> None:
    segment = Segment(spool).add(make_span(1))
    file = open_file(spool, segment.name.file_name(), os.O_RDWR)
    write_accepted(file, segment.name, EXTRA, segment.end)
    assert read_furthest(file, segment.name) == 256
    write_accepted(file, segment.name, TARGET, 300)
    assert read_furthest(file, segment.name) == 300
    file.close()
    segment.leave()


def test_two_targets_of_one_url_have_slots_of_their_own() -> None:
    assert EXTRA != OTHER
    name = SegmentName(Destination.TRACES, b"x" * 16, is_sealed=True)
    head = head_of(name, {EXTRA: 300, OTHER: 400})
    assert len(head) == 256
