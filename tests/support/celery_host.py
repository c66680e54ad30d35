"""A Celery worker in processes of its own, started by its real command line, and what must hold of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from fallom.dev.server import LocalCloud
from tests.support.delivered import acknowledged, check_delivered
from tests.support.flushers import wait_for
from tests.support.hosts import END_OF_FILE_S, Footprint, footprint
from tests.support.scripts import ROOT

_COMMAND = (
    *(sys.executable, "-m", "celery", "-A", "tests.support.celery_app", "worker"),
    *("--loglevel=info", "--without-gossip", "--without-mingle"),
)


@dataclass(frozen=True)
class Pool:
    """A way to run tasks: options of the worker, and how many processes run them."""

    name: str
    options: tuple[str, ...]
    processes: int = 0  # 0: the worker itself runs them

    # How often the bare worker is looked at: a child has what its parent had when it forked, and Redis'
    # client opens a connection for each new greenlet, so that no two looks are the same.
    looks: int = 1


PREFORK = Pool("prefork", ("--pool=prefork", "--concurrency=2"), 2)
RECYCLING = Pool("recycling", (*PREFORK.options, "--max-tasks-per-child=1"), 2, 8)
THREADS = Pool("threads", ("--pool=threads", "--concurrency=3"))
GEVENT = Pool("gevent", ("--pool=gevent", "--concurrency=3"), 0, 8)
SOLO = Pool("solo", ("--pool=solo",))


class CeleryWorker:
    """A worker; ``with`` starts it, and ends it if the test did not."""

    def __init__(self, pool: Pool, folder: Path, broker: str, **environ: str) -> None:
        """Say what to start, where it works, and where its tasks wait."""
        self.pool = pool
        self.said = ""
        self._environ = _environ(folder, broker, environ)
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """The worker's main process."""
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """Give the processes of its pool, dead ones that nobody collected included."""
        return [child.pid for child in psutil.Process(self.pid).children()]

    def zombies(self) -> list[int]:
        """Give its children that have ended and were not collected."""
        found = []
        for pid in self.children():
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    found.append(pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process."""
        os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it as its supervisor would, wait for the end of its output, and give its exit status."""
        assert self._process is not None
        assert self._reader is not None
        os.kill(self._process.pid, number)
        self._process.wait(60)
        self._reader.join(END_OF_FILE_S)
        assert not self._reader.is_alive(), "somebody holds the standard output of the worker"
        return self._process.returncode

    def __enter__(self) -> CeleryWorker:
        self._process = subprocess.Popen(
            [*_COMMAND, *self.pool.options],
            env=self._environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            wait_for(self._is_ready, 60, "the worker to be ready")
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kill()
        if error is not None:
            sys.stderr.write(self.said[-20_000:])

    def _kill(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self.said += line

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the worker did not start\n{self.said}")
        return bool(re.search(r"celery@\S+ ready", self.said))


class CeleryClient:
    """A process that publishes tasks, as a web server does; ``with`` starts and ends it."""

    def __init__(self, folder: Path, broker: str, **environ: str) -> None:
        """Say where it works, and where tasks wait."""
        self._folder = folder
        self._environ = _environ(folder, broker, environ)
        self._process: subprocess.Popen[str] | None = None

    def run(self, code: str) -> Any:
        """Run code that knows the application's tasks and ``get(result)``; give what it calls ``found``."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(textwrap.dedent(code)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["found"]

    def __enter__(self) -> CeleryClient:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.celery_client"],
            env=self._environ,
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()


def _environ(folder: Path, broker: str, given: Mapping[str, str]) -> dict[str, str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ.pop("FALLOM_AUTO_INSTRUMENT", None)  # here it is as users have it
    return {**environ, "CELERY_BROKER": broker, "CELERY_FOLDER": str(folder), **given}


@dataclass(frozen=True)
class Seen:
    """A worker at rest, after some tasks."""

    main: Footprint
    children: list[Footprint]
    processes: int
    handlers: list[Mapping[str, str]]


class CeleryTest:
    """An application's tasks in a folder, and what was recorded by them."""

    def __init__(self, cloud: LocalCloud, folder: Path, state_dir: Path, broker: str) -> None:
        """Say where it sends, works, keeps its state, and has its tasks wait."""
        self.cloud = cloud
        self.folder = folder
        self.state_dir = state_dir
        self.broker = broker
        folder.mkdir()

    def worker(self, pool: Pool, **environ: str) -> CeleryWorker:
        """Make a worker; ``with`` starts it."""
        return CeleryWorker(pool, self.folder, self.broker, **environ)

    def client(self, **environ: str) -> CeleryClient:
        """Make what publishes tasks; ``with`` starts it."""
        return CeleryClient(self.folder, self.broker, **environ)

    def look(self, worker: CeleryWorker, run: Callable[[str], Sequence[Any]]) -> Seen:
        """Have some tasks run in every process of a worker, and look at all that it has then."""
        handlers: dict[int, Mapping[str, str]] = {}
        for number in range(50):
            for found in run(f"look-{id(worker)}-{number}"):
                handlers[found["pid"]] = found["handlers"]
            if len(handlers) >= max(worker.pool.processes, 1):
                break
        wait_for(lambda: len(worker.children()) == worker.pool.processes, 30, "a whole pool")
        children = [footprint(pid, self.state_dir) for pid in worker.children()]
        return Seen(
            footprint(worker.pid, self.state_dir),
            children,
            len(children),
            list(handlers.values()),
        )

    def check_same(
        self, worker: CeleryWorker, bare: Sequence[Seen], run: Callable[[str], Any]
    ) -> None:
        """See that a worker has nothing that it would not have without fallom."""
        differences: list[str] = []

        def is_same() -> bool:  # connections need a moment to settle
            differences[:] = list(_differences(bare, self.look(worker, run)))
            return not differences

        try:
            wait_for(is_same, 20)
        except AssertionError:
            raise AssertionError("\n".join(differences)) from None
        wait_for(lambda: not worker.zombies(), 10, "ended children to be collected")

    def acknowledged(self) -> Counter[str]:
        """Give the names of the spans whose recording had returned."""
        return acknowledged(self.folder)

    def check_delivered(self) -> list[dict[str, Any]]:
        """See that all has arrived; give the spans."""
        return check_delivered(self.cloud, self.folder, self.state_dir)


def _differences(bare: Sequence[Seen], found: Seen) -> Iterator[str]:
    yield from _more(found.main, [seen.main for seen in bare], "main")
    if found.processes != bare[0].processes:
        yield f"processes: {found.processes}, was {bare[0].processes}"
    known = [child for seen in bare for child in seen.children]
    for child in found.children:
        yield from _more(child, known, "child")
    handlers = [each for seen in bare for each in seen.handlers]
    for each in found.handlers:
        if each not in handlers:
            yield f"handlers: {set(each.items()) - set(handlers[0].items())}"


def _more(found: Footprint, known: Sequence[Footprint], what: str) -> Iterator[str]:
    """Tell what a process has more of than any that is known."""
    if found.tasks > max(each.tasks for each in known):
        yield f"{what}: {found.tasks} threads, was {[each.tasks for each in known]}"
    if found.signals not in [each.signals for each in known]:
        yield f"{what}: {found.signals}, was {known[0].signals}"
    for kind, count in found.descriptors.items():
        counts = [each.descriptors.get(kind, 0) for each in known]
        if count > max(counts):
            yield f"{what}: {count} of {kind}, was {counts}"
