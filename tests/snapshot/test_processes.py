"""Real processes: publishers that are killed, readers beside them, forks while threads read."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fallom._host.forks import ForkGuard
from fallom._snapshot.publish import Publisher
from fallom._snapshot.reader import SnapshotReader
from tests.snapshot.builders import Page, config, configs, prompt, prompts

ROOT = Path(__file__).parents[2]
KEYS = 20

# Publishes state n = 1, 2, 3, ...: every config and prompt of state n says n. Large texts, so that a
# commit takes a while.
PUBLISHER = """
import sys
from pathlib import Path
from fallom._snapshot.publish import Publisher
from tests.snapshot.builders import config, configs, prompt, prompts
publisher = Publisher(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    listed = prompts(*(prompt(f"p{k}", number, f"{number} " * 4000) for k in range(20)))
    publisher.publish([configs(*(config(f"c{k}", number) for k in range(20))), listed])
    print(number, flush=True)
    number += 1
"""

# Reads all keys by a new reader each time, and says what it saw that must not be.
READER = """
import contextlib, sys, time
from pathlib import Path
from fallom._snapshot.reader import SnapshotReader
directory = Path(sys.argv[1])
newest, looks = 0, 0
print("ready", flush=True)
while not (directory / "stop").exists():
    # A generous timeout: this test is of what is read, not of how soon.
    reader = SnapshotReader(
        lambda: directory, lambda: 0, contextlib.nullcontext,
        busy_timeout_s=30, busy_timeout_first_s=30,
    )
    generation = reader.info().generation
    assert generation, f"a false miss of everything: {reader.info().last_error}"
    seen = set()
    for k in range(20):
        for found in (reader.config(f"c{k}"), reader.prompt(f"p{k}")):
            assert found is not None, f"a false miss: {reader.info().last_error}"
            seen.add(found.version)
            if hasattr(found, "user"):
                assert found.user.text.split() == [str(found.version)] * 4000, "torn"
    assert reader.info().generation >= generation
    assert len(seen) == 1, f"a mixture: {seen}"
    assert max(seen) >= newest, f"back in time: {seen} after {newest}"
    newest, looks = max(seen), looks + 1
print(looks, flush=True)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], deadline_s: float = 60) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], deadline_s)
    line = process.stdout.readline() if readable else ""
    assert line, (
        f"no line: {process.stderr.read() if process.poll() is not None and process.stderr else ''}"
    )
    return line


@pytest.mark.timeout(300)  # more than twenty starts of Python, one after the other
def test_publishers_killed_at_any_instant_leave_readers_one_whole_generation(
    directory: Path,
) -> None:
    publisher = start(PUBLISHER, str(directory), "1")
    number = int(wait_for_line(publisher))
    readers = [start(READER, str(directory)) for _ in range(2)]
    for reader in readers:
        wait_for_line(reader)
    for _ in range(20):
        time.sleep(random.uniform(0, 0.05))  # where in the commit the kill falls is left to chance
        publisher.kill()
        printed = publisher.communicate()[0].split()
        number = max([number, *map(int, printed)]) + 2  # one more may be committed and not printed
        publisher = start(PUBLISHER, str(directory), str(number))
        number = int(wait_for_line(publisher))
    publisher.kill()
    publisher.communicate()
    (directory / "stop").touch()
    for reader in readers:
        out, err = reader.communicate(timeout=60)
        assert reader.returncode == 0, err
        assert int(out.split()[-1]) > 0
    assert not (directory / "aside").exists(), "a kill must not break the database"
    last = Publisher(directory).manifest()
    assert (
        len({item.current for section in last.sections.values() for item in section.values()}) == 1
    )


@pytest.mark.timeout(180)
def test_a_publisher_killed_within_its_commit_is_rolled_back_by_whoever_reads_next(
    directory: Path, page: Page
) -> None:
    Publisher(directory).publish([configs(config("a", 1))])
    code = """
import os, sys
from pathlib import Path
from fallom._snapshot import publish, store
from tests.snapshot.builders import config, configs
publisher = publish.Publisher(Path(sys.argv[1]))
publisher.manifest()
import diskcache
delete = diskcache.Cache.set
def set_and_die(self, key, value):
    delete(self, key, value)
    if key.startswith("m:"):
        self._sql("PRAGMA cache_spill = 1")
        self._sql("PRAGMA cache_size = 1")  # pages go to the file before the commit
        delete(self, "e:big", os.urandom(1 << 20))
        os.kill(os.getpid(), 9)
diskcache.Cache.set = set_and_die
publisher.publish([configs(config("a", 2))])
"""
    process = start(code, str(directory))
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    assert (directory / "cache.db-journal").stat().st_size > 0
    found = page.reader(directory).config("a")
    assert found is not None
    assert found.version == 1
    assert Publisher(directory).publish([configs(config("a", 3))]) > 0
    assert not (directory / "aside").exists()


@pytest.mark.timeout(180)
def test_forks_while_threads_read_hang_nobody(directory: Path) -> None:
    publisher = Publisher(directory)
    page = Page()
    page.publish(publisher, configs(config("a")), prompts(prompt("p")))
    guard = ForkGuard()
    stop = threading.Event()
    looks = [0, 0, 0]
    misses: list[str] = []

    def patient() -> SnapshotReader:
        """Give a reader that waits as long as it takes: this test is of hangs, not of waits."""
        return SnapshotReader(
            lambda: directory,
            lambda: page.generation,
            guard.held,
            busy_timeout_s=30,
            busy_timeout_first_s=30,
        )

    def read(which: int) -> None:
        while not stop.is_set():
            reader = patient()  # it holds nothing, so that it reads the database at every look
            if reader.config("a") is None or reader.prompt("p") is None:
                misses.append(str(reader.info().last_error))
            looks[which] += 1

    threads = [threading.Thread(target=read, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    try:
        shared = patient()
        for number in range(50):
            page.publish(publisher, configs(config("a", number + 2)))
            pid = os.fork()
            if pid == 0:  # it has its own reader and the one it inherited
                fresh = patient()
                found = [fresh.config("a"), shared.config("a"), fresh.prompt("p")]
                os._exit(0 if all(found) else 1)
            assert _exit_code(pid) == 0, f"child {number}"
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert all(count > 0 for count in looks)
    assert misses == []


def _exit_code(pid: int, deadline_s: float = 20) -> int:
    give_up = time.monotonic() + deadline_s
    while time.monotonic() < give_up:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail(f"a forked child hung for {deadline_s} s")
