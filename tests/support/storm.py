"""A storm: writers and flushers killed at random moments, and the count of what became of every span.

The writers are forked from one process, as a pre-forking server does; each says on a pipe which span
was recorded, after the call has returned. What was said there must arrive.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fallom._core.settings import resolve_settings
from fallom._flusher.ship import LaneLimits
from fallom._flusher.window import BATCHES_MAX
from fallom._host.place import Place
from tests.support.flushers import wait_for
from tests.support.scripts import start_script

__all__ = ["SLOW_ANSWERS", "Delivered", "Storm", "count_delivered"]

# A batch is stored long before its answer is there: a flusher that is killed has most often one in flight.
SLOW_ANSWERS = "drip,seconds=0.002,path=/v1/traces"

WRITERS = """
import os, signal, sys, time
import fallom
from fallom import trace

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
fallom.init()
trace.span({}, config_key="app", session_id="parent-0")
os.write(1, b"parent 0\\n")
for line in sys.stdin:
    who, burst, pause_s = line.split()
    if os.fork() == 0:
        os.write(1, f"{who} is {os.getpid()}\\n".encode())
        number = 0
        while True:
            trace.span({"text": "x" * (number % 700)}, config_key="app", session_id=f"{who}-{number}")
            os.write(1, f"{who} {number}\\n".encode())
            number += 1
            if number % int(burst) == 0:
                time.sleep(float(pause_s))
"""


class Storm:
    """Some writers at a time, each replaced when it is killed."""

    def __init__(self, folder: Path, writers: int, burst: int = 20, pause_s: float = 0.004) -> None:
        """Start the process that writers are forked from; the environment says where spans go.

        Args:
            folder: For the script.
            writers: How many live at a time.
            burst: A writer pauses after so many spans.
            pause_s: For so long.
        """
        settings = resolve_settings({}, os.environ)
        self._place = Place.find(settings.state_dir, settings.namespace, os.environ)
        self._pace = f"{burst} {pause_s}"
        self._acknowledged: dict[str, int] = {}  # spans of each writer, in the order of its numbers
        self._pids: dict[str, int] = {}
        self._killed_flusher = 0
        self._started = 0
        self.worker_kills = 0
        self.flusher_kills = 0
        self._process = start_script(WRITERS, folder, {}, stdin=subprocess.PIPE)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._living: list[str] = []
        for _ in range(writers):
            self._start_writer()

    def acknowledged(self) -> int:
        """Count the spans whose recording call has returned."""
        return sum(self._acknowledged.values())

    def sessions(self) -> set[str]:
        """Name the spans whose recording call has returned."""
        said = list(self._acknowledged.items())
        return {f"{who}-{number}" for who, count in said for number in range(count)}

    def kill_a_writer(self) -> None:
        """Kill one that has recorded something, and start the next."""
        who = self._living.pop(random.randrange(len(self._living)))
        wait_for(lambda: self._acknowledged.get(who), what=f"the first span of {who}")
        os.kill(self._pids[who], signal.SIGKILL)
        self.worker_kills += 1
        self._start_writer()

    def is_flusher_there(self) -> bool:
        """Tell whether a flusher lives that was not killed yet."""
        return self.flusher_pid() not in (0, self._killed_flusher)

    def flusher_pid(self) -> int:
        """Give the process that beats, 0 if none does."""
        page = self._place.page
        return page.flusher_pid() if page.is_alive(time.monotonic_ns()) else 0

    def kill_the_flusher(self) -> None:
        """Wait for one that was not killed yet, and kill it."""
        wait_for(self.is_flusher_there, what="a flusher")
        self._killed_flusher = self.flusher_pid()
        os.kill(self._killed_flusher, signal.SIGKILL)
        self.flusher_kills += 1

    def end(self) -> None:
        """Kill all writers and wait until everything that they said was heard."""
        for who in self._living:
            wait_for(lambda who=who: who in self._pids)
            os.kill(self._pids[who], signal.SIGKILL)
            self.worker_kills += 1
        self._living.clear()
        self._process.kill()
        self._listener.join(20)
        assert not self._listener.is_alive(), "somebody inherited the writers' pipe"
        self._process.communicate()

    def __enter__(self) -> Storm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.end()

    def _start_writer(self) -> None:
        who = f"w{self._started}"
        self._started += 1
        self._living.append(who)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{who} {self._pace}\n")
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        rest = ""
        for chunk in iter(lambda: os.read(self._process.stdout.fileno(), 1 << 16).decode(), ""):
            *lines, rest = (rest + chunk).split("\n")  # half a line was never said
            for line in lines:
                who, _, said = line.partition(" ")
                if said.startswith("is "):
                    self._pids[who] = int(said[3:])
                else:
                    self._acknowledged[who] = int(said) + 1


@dataclass
class Delivered:
    """What the cloud has, span by span."""

    sessions: set[str] = field(default_factory=set)
    twice: int = 0  # receipts beyond the first of a span
    # Of each request that came in vain: how many of its spans came again with a later one. The same
    # spans count once more for each time that they came again.
    resent: dict[str, int] = field(default_factory=dict)
    forged: list[str] = field(default_factory=list)  # sessions whose one span came under two ids

    def broken_bounds(self, flusher_kills: int) -> list[str]:
        """Say where more was sent twice than a flusher has in flight when it is killed."""
        batch, largest = LaneLimits().items_max, max(self.resent.values(), default=0)
        found = []
        if len(self.resent) > flusher_kills * BATCHES_MAX:
            found.append(f"{len(self.resent)} batches came again after {flusher_kills} kills")
        if largest > batch:
            found.append(f"{largest} spans of one request came again, and a batch has {batch}")
        return found


def count_delivered(database: Path) -> Delivered:
    """Read what arrived from the local cloud's database."""
    found = Delivered()
    last_request: dict[str, str] = {}
    ids: dict[str, set[str]] = defaultdict(set)
    resent: Counter[str] = Counter()
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT span_id, session_id, request_id FROM spans ORDER BY id")
        for span_id, session_id, request_id in rows:
            found.sessions.add(session_id)
            ids[session_id].add(span_id)
            if span_id in last_request:
                resent[last_request[span_id]] += 1
            last_request[span_id] = request_id
    connection.close()
    found.resent, found.twice = dict(resent), resent.total()
    found.forged = [session for session, known in ids.items() if len(known) > 1]
    return found
