"""Limits of the host: a full spool, a full or read-only disk, no descriptors, descriptors taken away.

No exception reaches the caller, what is given up is counted exactly and by its reason, and recording goes
on by itself when the cause is gone. Each worker is a process of its own and without a flusher, unless the
flusher is what is tested: then every record is either acknowledged in the spool or counted.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pickle
import resource
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import _runtime, trace
from fallom._core.span import Span
from fallom._spool.quota import usage_of
from fallom._spool.segment import HEAD_BYTES, segment_names
from fallom._spool.survey import _open
from fallom._spool.tail import count_records
from fallom.dev.server import LocalCloud
from tests.support.flushers import wait_for
from tests.support.processes import Child, in_child
from tests.support.scripts import ROOT

MIB = 1 << 20


def record(count: int, size: int = 1000, name: str = "s") -> None:
    for number in range(count):
        trace.span({"text": "x" * size}, config_key="app", session_id=f"{name}{number}")


def kept() -> int:
    """Count the records in this process's spool."""
    place = _runtime.current().whereabouts.place
    assert place is not None
    total = 0
    try:
        names = segment_names(place.directory.spool)
    except OSError:  # its number is not ours any more
        return 0
    for name in names:
        file = _open(place.directory.spool, name)
        if file is not None:
            total += count_records(file, name, HEAD_BYTES, file.size())
            file.close()
    return total


def dropped() -> dict[str, int]:
    return dict(fallom.status()["dropped"])


def record_until(wanted: Callable[[], bool]) -> int:
    """Record until something holds, at most for 20 s; give how many records that took."""
    count = 0

    def one_more() -> bool:
        nonlocal count
        record(1, 10, name="again")
        count += 1
        return wanted()

    wait_for(one_more)
    return count


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No flusher, and nobody to send to."""
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    monkeypatch.setenv("FALLOM_BASE_URL", "http://127.0.0.1:9")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    point = tmp_path / "disk"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(point)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


# The quota.


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_without_a_flusher_workers_keep_the_limit_themselves_and_refuse_the_newest(
    alone: None, policy: str
) -> None:
    def worker() -> int:
        fallom.init(spool_bytes_max=MIB, spool_policy=policy)
        record(3000)
        return sum(_runtime.current().drops.pending().values())  # those that are not in the page

    children = [Child(worker) for _ in range(4)]
    pending = sum(child.result() for child in children)
    fallom.init(spool_bytes_max=MIB, spool_policy=policy)
    place = _runtime.current().whereabouts.place
    assert place is not None
    assert usage_of(place.directory.spool).bytes < 1.25 * MIB
    assert kept() + dropped()["quota"] + pending == 4 * 3000


def test_a_flusher_that_lives_makes_room_by_dropping_the_oldest(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.fault("hang,path=/v1/traces")
    fallom.init(spool_bytes_max=MIB)
    place = _runtime.current().whereabouts.place
    assert place is not None
    most = recorded = 0
    while dropped().get("oldest", 0) < 500:
        record(50, name=f"{recorded}-")
        recorded += 50
        most = max(most, usage_of(place.directory.spool).bytes)
    record(1, 10, name="last")
    assert most < 1.25 * MIB, "the limit holds between the flusher's looks, too"
    assert not {"disk", "internal"} & set(dropped())


def test_drop_newest_keeps_the_oldest_and_counts_what_is_refused(cloud: LocalCloud) -> None:
    cloud.fault("503,path=/v1/traces,retry_after=2")
    fallom.init(spool_bytes_max=MIB, spool_policy="drop_newest")
    record(3000)
    refused = dropped()["quota"]
    assert set(dropped()) == {"quota"}
    cloud.fault()
    assert fallom.flush(60) == 0
    arrived = {row["attributes"]["fallom.session_id"] for row in cloud.spans()}
    assert len(arrived) == 3000 - refused
    assert {f"s{number}" for number in range(500)} <= arrived


def test_too_many_files_are_too_much_as_well(alone: None) -> None:
    def leave_a_file() -> None:
        _runtime.reset()
        fallom.init(spool_segments_max=16, segment_bytes_max=4096)
        record(1, 5000)

    for _ in range(40):  # each finds no file that it could go on with: all are full
        in_child(leave_a_file)
    fallom.init(spool_segments_max=16, segment_bytes_max=4096)
    assert kept() + dropped()["quota"] == 40
    place = _runtime.current().whereabouts.place
    assert place is not None
    assert usage_of(place.directory.spool).segments <= 20, (
        "a segment of wishes says that a process lives"
    )


def test_near_the_limit_bodies_of_messages_go_and_all_else_stays(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    cloud.fault("503,path=/v1/traces,retry_after=2")
    fallom.init(spool_bytes_max=MIB)
    body = "b" * 4000

    def span(number: int) -> Span:
        content = {"gen_ai.input.messages": body, "gen_ai.usage.input_tokens": number}
        ids = number.to_bytes(16, "big"), number.to_bytes(8, "big"), b""
        return Span(*ids, "chat m", 3, 1, 2, 2, "an error", content)

    for number in range(1, 2000):
        _runtime.current().record_span(span(number))
        if dropped():
            break
    cloud.fault()
    assert fallom.flush(60) == 0
    rows = {row["attributes"]["gen_ai.usage.input_tokens"]: row for row in cloud.spans()}
    shed = [n for n, row in rows.items() if row["attributes"].get("fallom.shed") is True]
    whole = [n for n, row in rows.items() if row["attributes"].get("gen_ai.input.messages") == body]
    assert shed, "some were recorded near the limit"
    assert whole, "and some before"
    assert not set(shed) & set(whole)
    assert set(shed) | set(whole) == set(rows)
    assert min(shed) > min(whole)
    assert {row["status_message"] for row in rows.values()} == {"an error"}


# The disk.


def test_a_full_disk_costs_only_what_is_counted_and_recording_resumes(
    alone: None, small_disk: Path
) -> None:
    def worker() -> tuple[int, int, dict[str, int]]:
        fallom.init(state_dir=small_disk)
        record(500)  # twice what there is room for
        full = dropped()
        (small_disk / "ballast").unlink()
        before = kept()
        again = record_until(lambda: kept() > before)  # a second later it is tried again
        assert full
        return kept(), 500 + again, dropped()

    (small_disk / "ballast").write_bytes(bytes(64 << 10))
    found, recorded, drops = in_child(worker)
    assert set(drops) == {"disk"}
    assert found + drops["disk"] == recorded


def test_a_disk_that_takes_half_a_frame_costs_that_record_and_spoils_no_other(
    cloud: LocalCloud, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    monkeypatch.setenv("FALLOM_STATE_DIR", str(small_disk))

    def worker() -> dict[str, int]:
        fallom.init()
        record(1, 10, name="before")
        record(1, 300_000, name="torn")  # the rest of the disk takes a part of it
        record(1, 10, name="refused")
        return dropped()

    assert in_child(worker) == {"disk": 2}
    command = [sys.executable, "-m", "fallom", "flusher", "--once"]
    subprocess.run(command, cwd=ROOT, timeout=60, check=True)
    in_child(lambda: record(1, 10, name="after"))
    subprocess.run(command, cwd=ROOT, timeout=60, check=True)
    arrived = [row["attributes"]["fallom.session_id"] for row in cloud.spans()]
    assert arrived == ["before0", "after0"]
    assert in_child(dropped) == {"disk": 2, "damaged": 1}


def test_a_read_only_disk_is_a_counted_drop_and_recording_resumes(
    alone: None, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALLOM_STATE_DIR", str(small_disk))

    def worker() -> int:
        record(7, 10, name="ro")
        assert dropped() == {"no_directory": 7}
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        recorded = 7 + record_until(lambda: fallom.status()["state_dir"] is not None and kept() > 0)
        return recorded - kept() - dropped()["no_directory"]

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert in_child(worker) == 0


def test_without_free_descriptors_an_open_segment_records_on_and_a_new_one_is_counted(
    alone: None,
) -> None:
    def take_all(taken: list[int]) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))

    def worker() -> tuple[int, dict[Any, int], dict[str, int]]:
        fallom.init()
        record(3, 10)
        taken: list[int] = []
        take_all(taken)
        record(4, 10)
        none_yet = dict(_runtime.current().drops.pending())
        _runtime.current().seal()
        for _ in range(6):
            take_all(taken)  # those of the segments too, and what a collection may free meanwhile
            record(1, 10)
        pending = {drop.name: n for drop, n in _runtime.current().drops.pending().items()}
        for fd in taken:
            os.close(fd)
        again = record_until(lambda: kept() > 7)
        return kept() + sum(dropped().values()) - 13 - again, none_yet, pending

    def limited() -> Any:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        return worker()

    difference, none_yet, pending = in_child(limited)
    assert none_yet == {}
    assert pending == {"NO_DESCRIPTOR": 6}
    assert difference == 0


# A host that does not know our descriptors.


def test_a_host_that_closes_all_descriptors_gets_no_frame_of_ours_into_its_own_file(
    alone: None, tmp_path: Path
) -> None:
    def host() -> tuple[int, bytes, list[int]]:
        logging.disable()  # the test runner's stderr is among the descriptors that are closed
        gc.disable()  # sockets that other tests dropped would close these numbers when collected
        fallom.init()
        record(5, 10)
        # As a daemon does it: close everything, then open files of its own by the same numbers.
        os.closerange(3, 256)
        path = tmp_path / "host.log"
        own = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) for _ in range(40)]
        for fd in own:
            os.write(fd, b"own\n")
        record(5, 10, name="after")
        record_until(lambda: kept() >= 6)
        _runtime.current().seal()
        _runtime.reset()
        closed = []
        for fd in own:
            try:
                os.fstat(fd)
            except OSError:
                closed.append(fd)
        return len(own), path.read_bytes(), closed

    count, log, closed = _in_child_without_pipes(host, tmp_path / "answer")
    assert log == b"own\n" * count, "nobody else wrote to it"
    assert closed == [], "nobody else's descriptor was closed"


def test_the_directory_may_be_removed_again_and_again_under_a_worker(
    alone: None, state_dir: Path
) -> None:
    def worker() -> None:
        fallom.init()
        for _ in range(3):
            record(5, 10)
            shutil.rmtree(state_dir)
            record_until(lambda: state_dir.exists() and kept() > 0)
        assert set(dropped()) <= {"no_directory", "disk"}

    in_child(worker)


def _in_child_without_pipes(body: Callable[[], Any], answer: Path) -> Any:
    """Run a function that closes all descriptors in a child, and give what it returned."""
    pid = os.fork()
    if pid == 0:
        try:
            found: Any = body()
        except BaseException:
            found = traceback.format_exc()
        answer.write_bytes(pickle.dumps(found))
        os._exit(0)
    os.waitpid(pid, 0)
    found = pickle.loads(answer.read_bytes())
    assert not isinstance(found, str), found
    return found
