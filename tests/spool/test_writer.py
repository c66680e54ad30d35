"""The writer: every record is in a segment when the call returns, or the reason is given."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fallom._host.counts import Drop
from fallom._host.files import File, open_directory, open_file
from fallom._spool import writer as writer_module
from fallom._spool.frame import (
    RECORD_BYTES_MAX,
    Damage,
    FrameEncoder,
    Kind,
    decode_record,
    pack,
    scan,
)
from fallom._spool.segment import (
    HEAD_BYTES,
    Destination,
    SegmentName,
    create_segment,
    segment_names,
    try_take_over,
)
from tests.support.processes import in_child, in_child_of_c
from tests.support.spools import RecordWriter

TRACES = Destination.TRACES
SECOND_NS = 1_000_000_000


@pytest.fixture
def make(spool: File) -> Iterator[Callable[..., RecordWriter]]:
    made = []

    def make_writer(**changes: Any) -> RecordWriter:
        arguments: dict[str, Any] = {
            "spool": lambda: spool,
            "resource": lambda: {"pid": os.getpid()},
            "segment_bytes_max": 1 << 20,
        }
        made.append(RecordWriter(**(arguments | changes)))
        return made[-1]

    yield make_writer
    for writer in made:
        writer.abandon()


def contents(spool: File) -> dict[SegmentName, list[Any]]:
    """Give the records of all segments; a header as a mapping, damage as it is found."""
    found: dict[SegmentName, list[Any]] = {}
    for name in segment_names(spool):
        file = open_file(spool, name.file_name(), os.O_RDONLY)
        data = os.pread(file.fd, 1 << 24, HEAD_BYTES)
        file.close()
        found[name] = [
            each if isinstance(each, Damage) else decode_record(each.payload)
            for each in scan(data, 0, name.seed)
        ]
    return found


def written(spool: File) -> list[Any]:
    """Give the records of all segments, without headers."""
    return [each for some in contents(spool).values() for each in some if isinstance(each, str)]


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, calls: list[int]) -> None:
    """Let every write fail."""

    def write(fd: int, data: bytes) -> int:
        calls.append(fd)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writer_module.os, "write", write)


def test_a_record_is_in_the_file_when_the_call_returns(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    assert make().write(TRACES, Kind.SPAN, "first", 0) is None
    [(name, found)] = contents(spool).items()
    assert name.destination is TRACES
    assert found == [{"pid": os.getpid()}, "first"]


def test_each_destination_has_a_segment_of_its_own(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make()
    for destination in Destination:
        assert writer.write(destination, Kind.SPAN, destination.name, 0) is None
    found = {name.destination: records[-1] for name, records in contents(spool).items()}
    assert found == {destination: destination.name for destination in Destination}


def test_a_full_segment_is_sealed_and_the_next_one_begins_with_the_resource(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make(segment_bytes_max=600)
    for number in range(20):
        assert writer.write(TRACES, Kind.SPAN, f"{number:050}", 0) is None
    found = contents(spool)
    assert len(found) > 2
    assert sum(not name.is_sealed for name in found) == 1
    assert all(isinstance(records[0], dict) for records in found.values())
    assert sorted(written(spool)) == [f"{number:050}" for number in range(20)]


def test_sealing_leaves_nothing_open_and_recording_goes_on(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make()
    writer.write(TRACES, Kind.SPAN, "before", 0)
    writer.seal()
    assert [name.is_sealed for name in contents(spool)] == [True]
    assert writer.write(TRACES, Kind.SPAN, "after", 0) is None
    assert sorted(written(spool)) == ["after", "before"]


def test_a_segment_without_an_owner_is_taken_over_with_a_header_of_ones_own(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    earlier = make(resource=lambda: {"pid": -1})
    earlier.write(TRACES, Kind.SPAN, "of another", 0)
    earlier.abandon()
    make().write(TRACES, Kind.SPAN, "mine", 0)
    assert list(contents(spool).values()) == [
        [{"pid": -1}, "of another", {"pid": os.getpid()}, "mine"]
    ]


def test_the_segment_of_another_destination_is_not_taken_over(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    _, file = create_segment(spool, Destination.METRICS)
    file.close()
    make().write(TRACES, Kind.SPAN, "span", 0)
    assert len(contents(spool)) == 2


def test_holding_a_segment_records_nothing_and_shows_a_living_writer(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    make().hold(Destination.WISHES, 0)
    [name] = segment_names(spool)
    assert try_take_over(spool, name, 1 << 20) is None
    assert contents(spool)[name] == [{"pid": os.getpid()}]


def test_the_word_of_a_call_is_once_in_a_segment_also_in_one_that_it_begins(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make(segment_bytes_max=HEAD_BYTES + 150)
    writer.start(b"first", pack("first call"), 0)
    writer.write(TRACES, Kind.SPAN, "x" * 200, 1)
    writer.start(b"second", pack("second call"), 2)
    words = [[each for each in some if each != "x" * 200] for some in contents(spool).values()]
    header = {"pid": os.getpid()}
    assert sorted(words, key=len) == [
        [header, "first call"],
        [header, "first call", "second call"],
    ]


def test_what_is_too_large_is_told_and_costs_nothing_else(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make()
    assert writer.write(TRACES, Kind.SPAN, "x" * RECORD_BYTES_MAX, 0) is Drop.TOO_LARGE
    assert writer.write(TRACES, Kind.SPAN, "small", 0) is None
    assert writer.write(TRACES, Kind.SPAN, "x" * RECORD_BYTES_MAX, 0) is Drop.TOO_LARGE
    assert writer.write(TRACES, Kind.SPAN, "next", 0) is None
    assert written(spool) == ["small", "next"]


def test_with_no_directory_there_is_a_reason_and_recording_resumes_at_once(spool: File) -> None:
    places: list[File | None] = [None]
    writer = RecordWriter(lambda: places[0], dict, 1 << 20)
    assert writer.write(TRACES, Kind.SPAN, "lost", 0) is Drop.NO_DIRECTORY
    places[0] = spool
    assert writer.write(TRACES, Kind.SPAN, "kept", 1) is None
    writer.abandon()


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, Drop.DISK),
        (errno.EDQUOT, Drop.DISK),
        (errno.EROFS, Drop.DISK),
        (errno.EIO, Drop.DISK),
    ],
)
def test_a_disk_that_refuses_is_asked_again_after_a_second(
    make: Callable[..., RecordWriter],
    spool: File,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    reason: Drop,
) -> None:
    writer = make()
    assert writer.write(TRACES, Kind.SPAN, "before", 0) is None
    calls: list[int] = []
    with monkeypatch.context() as patched:
        refuse(patched, number, calls)
        assert writer.write(TRACES, Kind.SPAN, "lost", 10) is reason
        assert writer.write(TRACES, Kind.SPAN, "lost", SECOND_NS + 9) is reason
        assert len(calls) == 1
        assert writer.write(TRACES, Kind.SPAN, "lost", SECOND_NS + 10) is reason
        assert len(calls) == 2
    assert writer.write(TRACES, Kind.SPAN, "lost", SECOND_NS + 11) is reason
    assert writer.write(TRACES, Kind.SPAN, "after", 2 * SECOND_NS + 10) is None
    assert written(spool) == ["before", "after"]


def test_one_destination_that_is_refused_does_not_hold_back_another(
    make: Callable[..., RecordWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make()
    with monkeypatch.context() as patched:
        refuse(patched, errno.ENOSPC, [])
        assert writer.write(TRACES, Kind.SPAN, "lost", 0) is Drop.DISK
    assert writer.write(Destination.METRICS, Kind.METRICS, "kept", 1) is None


def test_a_header_that_does_not_fit_leaves_no_segment_without_one(
    make: Callable[..., RecordWriter], spool: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the records that follow would stand under the resource of the writer before."""
    earlier = make(resource=lambda: {"pid": -1})
    earlier.write(TRACES, Kind.SPAN, "of another", 0)
    earlier.abandon()
    writer = make()
    with monkeypatch.context() as patched:
        refuse(patched, errno.ENOSPC, [])
        assert writer.write(TRACES, Kind.SPAN, "lost", 0) is Drop.DISK
    assert writer.write(TRACES, Kind.SPAN, "mine", SECOND_NS) is None
    [found] = contents(spool).values()
    assert found == [{"pid": -1}, "of another", {"pid": os.getpid()}, "mine"]


def test_a_process_without_descriptors_says_so_for_the_whole_second(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    def record() -> list[Drop | None]:
        writer = make()
        lowest = os.open("/dev/null", os.O_RDONLY)
        os.close(lowest)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        found = [writer.write(TRACES, Kind.SPAN, "lost", now_ns) for now_ns in (0, 5)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return [*found, writer.write(TRACES, Kind.SPAN, "kept", SECOND_NS)]

    assert in_child(record) == [Drop.NO_DESCRIPTOR, Drop.NO_DESCRIPTOR, None]
    assert written(spool) == ["kept"]


def test_a_short_write_abandons_the_segment_and_later_records_are_whole(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    def record() -> list[Drop | None]:
        writer = make()
        first = writer.write(TRACES, Kind.SPAN, "a" * 500, 0)
        size = open_file(spool, segment_names(spool)[0].file_name(), os.O_RDONLY).size()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        torn = writer.write(TRACES, Kind.SPAN, "b" * 500, 1)
        return [first, torn, writer.write(TRACES, Kind.SPAN, "c" * 300, SECOND_NS + 1)]

    assert in_child(record) == [None, Drop.DISK, None]
    found = contents(spool)
    [torn] = [records for name, records in found.items() if name.is_sealed]
    assert torn[1] == "a" * 500
    assert isinstance(torn[2], Damage)
    [whole] = [records for name, records in found.items() if not name.is_sealed]
    assert [type(each) for each in whole] == [dict, str]


def test_a_file_that_may_not_grow_is_left_for_another_and_nothing_is_lost(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    def record() -> list[Drop | None]:
        writer = make()
        first = writer.write(TRACES, Kind.SPAN, "a" * 500, 0)
        size = open_file(spool, segment_names(spool)[0].file_name(), os.O_RDONLY).size()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        return [first, writer.write(TRACES, Kind.SPAN, "b" * 100, 1)]

    assert in_child(record) == [None, None]
    assert sorted(written(spool)) == ["a" * 500, "b" * 100]


def test_the_removal_of_the_directory_is_noticed_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.mkdir(mode=0o700)
    places = [open_directory(str(path))]
    writer = RecordWriter(lambda: places[-1], dict, 1 << 20)
    assert writer.write(TRACES, Kind.SPAN, "gone", 0) is None
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    path.mkdir(mode=0o700)
    places.append(open_directory(str(path)))
    assert writer.write(TRACES, Kind.SPAN, "gone as well", SECOND_NS - 1) is None
    assert writer.write(TRACES, Kind.SPAN, "kept", SECOND_NS) is None
    assert written(places[-1]) == ["kept"]
    writer.abandon()


def test_with_fsync_each_record_is_on_the_disk_before_the_call_returns(
    make: Callable[..., RecordWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(writer_module.os, "fdatasync", synced.append)
    writer = make(fsync="always")
    for text in "123":  # the first one also opens the segment
        synced.clear()
        assert writer.write(TRACES, Kind.SPAN, text, 0) is None
        assert synced


# Forks, and hosts that close what they do not know.


@pytest.mark.parametrize("has_hook", [True, False], ids=["forked by Python", "forked in C"])
def test_a_forked_child_writes_to_a_segment_of_its_own_and_its_parent_goes_on(
    make: Callable[..., RecordWriter], spool: File, has_hook: bool
) -> None:
    writer = make()
    writer.write(TRACES, Kind.SPAN, "parent 1", 0)

    def record() -> Drop | None:
        if has_hook:
            writer.forget()
        return writer.write(TRACES, Kind.SPAN, "child", 1)

    assert in_child(record) is None
    assert writer.write(TRACES, Kind.SPAN, "parent 2", 2) is None
    found = sorted(
        [each for each in some if isinstance(each, str)] for some in contents(spool).values()
    )
    assert found == [["child"], ["parent 1", "parent 2"]]


def test_the_parents_segment_stays_locked_when_its_child_forgets_it(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make()
    writer.write(TRACES, Kind.SPAN, "parent", 0)
    [name] = segment_names(spool)

    def forget() -> bool:
        inherited = writer._open[TRACES].file.fd
        writer.forget()
        try:
            os.fstat(inherited)
        except OSError:
            return True
        return False

    assert in_child(forget), "the inherited number is closed"
    assert try_take_over(spool, name, 1 << 20) is None


def test_a_child_is_not_stuck_on_the_lock_of_a_thread_that_it_does_not_have(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make()
    writer.write(TRACES, Kind.SPAN, "parent", 0)
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with writer._lock:
            is_held.set()
            may_end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    try:
        assert in_child(lambda: writer.write(TRACES, Kind.SPAN, "child", 1)) is None
    finally:
        may_end.set()
        thread.join()
    assert sorted(written(spool)) == ["child", "parent"]


def test_threads_that_are_first_in_a_child_forked_in_c_write_beside_each_other(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make()
    writer.write(TRACES, Kind.SPAN, "parent", 0)

    def record() -> tuple[bool, bool, list[Drop | None]]:
        inherited, drops = writer._open[TRACES].file, []
        is_closing, may_close = threading.Event(), threading.Event()
        close = inherited.close

        class Slow(File):
            """Is closed by the first thread while the second comes."""

            __slots__ = ()

            def close(self) -> None:
                is_closing.set()
                may_close.wait()
                close()

        slow = Slow(os.dup(inherited.fd), "slow")
        writer._open[TRACES].file = slow
        first, second = (
            threading.Thread(
                target=lambda text=text: drops.append(writer.write(TRACES, Kind.SPAN, text, 1))
            )
            for text in ("child 1", "child 2")
        )
        first.start()
        is_closing.wait()
        second.start()
        second.join(0.3)  # one that did not wait would be done by then
        has_waited = second.is_alive()
        may_close.set()
        first.join()
        second.join()
        return has_waited, writer._lock is writer._current_lock(), drops

    assert in_child_of_c(record) == (True, True, [None, None])
    by_writer = {
        tuple(each for each in some if isinstance(each, str)) for some in contents(spool).values()
    }
    assert {frozenset(some) for some in by_writer} == {
        frozenset({"parent"}),
        frozenset({"child 1", "child 2"}),
    }


def daemonise(writer: RecordWriter, reused: socket.socket) -> None:
    """Do what a daemon does: close every number, and open something of its own by ours."""
    for segment in writer._open.values():
        number = segment.file.fd
        os.close(number)
        os.dup2(reused.fileno(), number)


def test_after_a_host_reused_our_number_no_frame_lands_in_its_socket(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make()
    writer.write(TRACES, Kind.SPAN, "before", 0)
    ours, theirs = socket.socketpair()
    number = writer._open[TRACES].file.fd
    daemonise(writer, ours)
    assert writer.write(TRACES, Kind.SPAN, "after", SECOND_NS) is None
    assert writer._open[TRACES].file.fd != number
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    os.close(number)
    ours.close()
    theirs.close()
    assert sorted(written(spool)) == ["after", "before"]


@pytest.mark.parametrize("leave", [RecordWriter.forget, RecordWriter.abandon, RecordWriter.seal])
def test_a_number_that_the_host_reused_is_never_closed(
    make: Callable[..., RecordWriter], leave: Callable[[RecordWriter], None]
) -> None:
    writer = make()
    writer.write(TRACES, Kind.SPAN, "before", 0)
    ours, theirs = socket.socketpair()
    number = writer._open[TRACES].file.fd
    daemonise(writer, ours)
    leave(writer)
    os.fstat(number)
    os.close(number)
    ours.close()
    theirs.close()


def test_a_host_that_closed_our_number_costs_no_record(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer = make()
    writer.write(TRACES, Kind.SPAN, "before", 0)
    os.close(writer._open[TRACES].file.fd)
    assert writer.write(TRACES, Kind.SPAN, "after", 1) is None
    assert sorted(written(spool)) == ["after", "before"]


@pytest.mark.parametrize("leave", [RecordWriter.abandon, RecordWriter.seal])
def test_a_segment_that_another_thread_closed_meanwhile_is_not_written_to(
    make: Callable[..., RecordWriter],
    spool: File,
    monkeypatch: pytest.MonkeyPatch,
    leave: Callable[[RecordWriter], None],
) -> None:
    writer = make()
    writer.write(TRACES, Kind.SPAN, "before", 0)
    frame = FrameEncoder.frame

    def closing(encoder: FrameEncoder, kind: int, payload: bytes) -> bytes:
        monkeypatch.undo()
        leave(writer)
        return frame(encoder, kind, payload)

    monkeypatch.setattr(FrameEncoder, "frame", closing)
    assert writer.write(TRACES, Kind.SPAN, "after", 1) is None
    assert sorted(written(spool)) == ["after", "before"]
    assert [
        each for some in contents(spool).values() for each in some if isinstance(each, Damage)
    ] == []


@pytest.mark.parametrize("number", [errno.EBADF, errno.EFBIG, errno.ESPIPE])
def test_what_two_files_in_a_row_refuse_is_one_drop_and_not_asked_again_for_a_second(
    make: Callable[..., RecordWriter], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    writer, calls = make(), []  # type: ignore[var-annotated]
    writer.write(TRACES, Kind.SPAN, "before", 0)
    with monkeypatch.context() as patched:
        refuse(patched, number, calls)
        drops = [writer.write(TRACES, Kind.SPAN, "lost", now) for now in (1, 2, SECOND_NS)]
    assert drops == [Drop.DISK] * 3
    # The short way, the long way, and the head of another segment; then nobody asks.
    assert len(calls) == 3
    assert writer.write(TRACES, Kind.SPAN, "after", 2 * SECOND_NS) is None


def test_a_segment_that_another_took_over_meanwhile_is_not_sealed_under_it(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    writer, other = make(), make()
    writer.write(TRACES, Kind.SPAN, "before", 0)
    ours, theirs = socket.socketpair()
    daemonise(writer, ours)  # and with our number went the lock
    other.write(TRACES, Kind.SPAN, "of the other", 0)
    writer.seal()
    assert [name.is_sealed for name in segment_names(spool)] == [False]
    ours.close()
    theirs.close()


def test_a_signal_handler_may_record_while_its_thread_is_recording(
    make: Callable[..., RecordWriter], spool: File
) -> None:
    """At every one of our own lines, the birth of a segment and its rotation included."""
    import sys

    def record() -> int:
        writer = make(segment_bytes_max=700)
        nested = 0
        is_within = False

        def interrupt(*_: object) -> Any:
            nonlocal nested, is_within
            if not is_within:
                is_within = True
                nested += writer.write(TRACES, Kind.SPAN, f"handler {nested}", 0) is None
                is_within = False
            return interrupt

        sys.settrace(interrupt)
        for number in range(30):
            assert writer.write(TRACES, Kind.SPAN, f"main {number}", 0) is None
        sys.settrace(None)
        live = [name for name in segment_names(spool) if not name.is_sealed]
        held = [name for name in live if try_take_over(spool, name, 1 << 20) is None]
        assert len(held) <= 1, "a segment is held that nobody writes to"
        return nested

    nested = in_child(record)
    found = written(spool)
    assert len(found) == len(set(found))
    assert {f"main {number}" for number in range(30)} <= set(found)
    assert sum(text.startswith("handler") for text in found) == nested
