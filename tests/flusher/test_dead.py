"""dead/: what was refused is kept as it was, within bounds, and what falls out is counted."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fallom._flusher import dead as dead_module
from fallom._flusher import dead_reading
from fallom._flusher.dead import FILE_AGE_MAX_NS, DeadLetters
from fallom._host.files import File, open_file
from fallom._spool.frame import (
    FRAME_BYTES_MAX,
    RECORD_BYTES_MAX,
    Frame,
    Kind,
    decode_record,
    scan,
    seed_of,
)
from fallom._spool.reader import Item
from fallom._spool.segment import Destination, SegmentName
from tests.support.processes import in_child
from tests.support.records import item_of, make_span

DAY_NS = 86_400 * 10**9
NOW_NS = 1_700_000_000 * 10**9
NAME = SegmentName(Destination.TRACES, bytes(16), is_sealed=False)


def letters(directory: File) -> list[list[Any]]:
    found = []
    for name in sorted(os.listdir(directory.fd)):
        if name.endswith(".dead"):
            file = open_file(directory, name, os.O_RDONLY)
            seed = seed_of(bytes.fromhex(name.partition("-")[2].partition(".")[0]))
            for frame in scan(os.pread(file.fd, 1 << 24, 0), 0, seed):
                if isinstance(frame, Frame):
                    assert frame.kind == Kind.DEAD
                    found.append(decode_record(frame.payload))
    return found


def add(dead: DeadLetters, number: int = 1, unix_ns: int = NOW_NS) -> None:
    dead.add(item_of(make_span(number)), Destination.TRACES, f"HTTP 400 {number}", 400, unix_ns)


def test_a_letter_holds_the_record_as_it_was_and_why(
    dead: DeadLetters, dead_directory: File
) -> None:
    item = item_of(make_span(7), resource={"service.name": "s"})
    dead.add(item, Destination.TRACES, "HTTP 400: bad", 400, NOW_NS)
    assert letters(dead_directory) == [
        [
            "HTTP 400: bad",
            400,
            NOW_NS,
            Destination.TRACES,
            Kind.SPAN,
            {"service.name": "s"},
            item.payload,
            "",
        ]
    ]


def test_files_are_private(dead: DeadLetters, tmp_path: Path) -> None:
    add(dead)
    dead.keep_damaged(NAME, 256, b"damaged", NOW_NS)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "dead").iterdir()} == {0o600}


def test_the_largest_record_has_room_with_a_resource_of_any_size(
    dead: DeadLetters, dead_directory: File
) -> None:
    payload = b"x" * RECORD_BYTES_MAX
    dead.add(Item(Kind.SPAN, None, {"a": "b" * 1000}, payload), Destination.TRACES, "r", 400, 1)
    dead.add(Item(Kind.SPAN, None, {"a": "b" * 10**5}, payload), Destination.TRACES, "r", 400, 1)
    assert [(len(letter[6]), len(letter[5])) for letter in letters(dead_directory)] == [
        (RECORD_BYTES_MAX, 1),
        (RECORD_BYTES_MAX, 0),
    ]


def test_a_disk_that_refuses_is_told_and_the_next_letter_is_whole(
    dead: DeadLetters, dead_directory: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(dead, 1)
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(dead_module.os, "write", lambda fd, data: write(fd, data[:50]))
        with pytest.raises(OSError, match="no space") as caught:
            add(dead, 2)
    assert caught.value.errno == errno.ENOSPC
    add(dead, 3)
    assert [letter[0] for letter in letters(dead_directory)] == ["HTTP 400 1", "HTTP 400 3"]


def test_a_file_is_closed_when_it_is_large_or_old(
    dead: DeadLetters, dead_directory: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_module, "FILE_BYTES_MAX", 1)
    add(dead, 1, NOW_NS)
    add(dead, 2, NOW_NS + 1)
    monkeypatch.undo()
    add(dead, 3, NOW_NS + 2)
    assert len(os.listdir(dead_directory.fd)) == 2
    add(dead, 4, NOW_NS + 1 + FILE_AGE_MAX_NS)
    assert len(os.listdir(dead_directory.fd)) == 3


def test_a_directory_that_was_emptied_is_written_to_anew(
    dead: DeadLetters, dead_directory: File, tmp_path: Path
) -> None:
    add(dead, 1)
    for path in (tmp_path / "dead").iterdir():
        path.unlink()
    add(dead, 2)
    assert [letter[0] for letter in letters(dead_directory)] == ["HTTP 400 2"]


def test_threads_write_whole_letters(dead: DeadLetters, dead_directory: File) -> None:
    threads = [
        threading.Thread(target=lambda base=base: [add(dead, base + n) for n in range(50)])
        for base in (1, 101, 201, 301)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({letter[0] for letter in letters(dead_directory)}) == 200


# Bounds.


def test_within_its_bounds_nothing_falls_out(dead: DeadLetters, dead_directory: File) -> None:
    for number in range(10):
        add(dead, number + 1)
    assert dead.evict(NOW_NS + 14 * DAY_NS) == 0
    assert len(letters(dead_directory)) == 10


def test_what_is_too_old_falls_out_and_is_counted_letter_by_letter(
    dead: DeadLetters, dead_directory: File
) -> None:
    for number in (1, 2, 3):
        add(dead, number)
    add(dead, 4, NOW_NS + DAY_NS)
    assert dead.evict(NOW_NS + 14 * DAY_NS + 1) == 3
    assert [letter[0] for letter in letters(dead_directory)] == ["HTTP 400 4"]


def test_a_letter_is_not_evicted_for_the_age_of_one_of_another_day(
    dead: DeadLetters, dead_directory: File
) -> None:
    for day in range(14):
        add(dead, day + 1, NOW_NS + day * DAY_NS)
    assert dead.evict(NOW_NS + 14 * DAY_NS + 1) == 1
    assert len(letters(dead_directory)) == 13


def test_what_is_too_much_falls_out_oldest_first_and_is_counted(
    dead_directory: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_module, "FILE_BYTES_MAX", 1000)
    dead = DeadLetters(dead_directory, 5000, 14 * 86_400.0)
    for number in range(1, 101):
        add(dead, number, NOW_NS + number)
    lost = dead.evict(NOW_NS + 1000)
    kept = [letter[0] for letter in letters(dead_directory)]
    assert lost == 100 - len(kept)
    assert kept == [f"HTTP 400 {number}" for number in range(lost + 1, 101)]
    sizes = [os.stat(n, dir_fd=dead_directory.fd).st_size for n in os.listdir(dead_directory.fd)]
    assert 3000 < sum(sizes) <= 5000
    dead.close()


def test_with_no_room_at_all_everything_falls_out_and_writing_goes_on(
    dead_directory: File,
) -> None:
    dead = DeadLetters(dead_directory, 0, 14 * 86_400.0)
    add(dead, 1)
    assert dead.evict(NOW_NS) == 1
    add(dead, 2)
    assert len(letters(dead_directory)) == 1
    dead.close()


def test_other_files_are_left_alone(
    dead: DeadLetters, dead_directory: File, tmp_path: Path
) -> None:
    for name in ("notes.txt", "x-1.dead", "1.dead", "1-backup.dead", "README"):
        (tmp_path / "dead" / name).write_text("mine")
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "dead" / f"1-{'0' * 32}.dead").symlink_to(tmp_path / "precious")
    assert dead.evict(NOW_NS) == 0
    assert (tmp_path / "precious").read_text() == "precious"
    assert len(os.listdir(dead_directory.fd)) == 5
    add(dead)
    assert len(list(dead_reading.letters_of(dead_directory))) == 1


# Damage.


def test_damaged_bytes_are_kept_for_whoever_looks_and_are_bounded(
    dead: DeadLetters, tmp_path: Path
) -> None:
    dead.keep_damaged(NAME, 256, b"damaged", NOW_NS)
    dead.keep_damaged(NAME, 300, b"x" * (2 * FRAME_BYTES_MAX), NOW_NS)
    found = sorted((tmp_path / "dead").iterdir(), key=lambda path: path.stat().st_size)
    assert [path.read_bytes()[:7] for path in found] == [b"damaged", b"xxxxxxx"]
    assert found[1].stat().st_size == 1 << 20
    assert dead.evict(NOW_NS + 15 * DAY_NS) == 0, "what was damaged was counted as that"
    assert list((tmp_path / "dead").iterdir()) == []


def test_damaged_bytes_that_cannot_be_kept_are_nobodys_error(
    dead: DeadLetters, dead_directory: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(dead_module, "open_file", refuse)
    dead.keep_damaged(NAME, 256, b"damaged", NOW_NS)


def test_what_a_killed_rewriting_left_is_removed_after_a_minute_and_no_letter_with_it(
    dead: DeadLetters, dead_directory: File
) -> None:
    now_ns = time.time_ns()
    add(dead, 1, now_ns)
    add(dead, 2, now_ns)
    (first, _) = dead_reading.letters_of(dead_directory)

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def rewrite() -> None:
        dead_reading.os.rename = die  # type: ignore[assignment]
        dead_reading.remove_letters(dead_directory, {first.id})

    with pytest.raises(AssertionError, match="the child died"):
        in_child(rewrite)

    def left() -> list[str]:
        return [name for name in os.listdir(dead_directory.fd) if name.endswith(".tmp")]

    assert len(left()) == 1
    dead.evict(now_ns)
    assert len(left()) == 1, "it may be under way"
    assert dead.evict(now_ns + 62 * 10**9) == 0
    assert left() == []
    assert [letter[0] for letter in letters(dead_directory)] == ["HTTP 400 1", "HTTP 400 2"]


def test_a_target_that_refuses_much_evicts_no_letter_of_another(
    dead: DeadLetters, dead_directory: File
) -> None:
    lab = DeadLetters(dead_directory, 1000, 14 * 86_400.0, "lab")
    add(dead, 1)
    dead.keep_damaged(NAME, 256, b"damaged", NOW_NS)
    add(dead, 2)
    for number in range(3, 100):
        add(lab, number)
    assert lab.evict(NOW_NS) == 97
    assert [letter[0] for letter in letters(dead_directory)] == ["HTTP 400 1", "HTTP 400 2"]
    add(lab, 100)
    assert dead.evict(NOW_NS + 15 * DAY_NS) == 2
    assert [letter.target for letter in dead_reading.letters_of(dead_directory)] == ["lab"]
    assert dead_reading.damaged_of(dead_directory) == []
    lab.close()
