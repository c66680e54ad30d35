"""What must hold of any server with fallom in its application, beside the same one without."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

import fallom
from fallom.dev.server import LocalCloud
from tests.support.flushers import leader_pids, wait_for
from tests.support.hosts import Answer, Connection, Footprint, Host, Kind, footprint

REQUESTS_AFTER = 10


@dataclass(frozen=True)
class Observed:
    """A server at rest, after some requests to each of its workers."""

    master: Footprint
    workers: list[Footprint]
    processes: int
    handlers: list[dict[str, str]]
    threads: set[str]


class HostTest:
    """One server, started in a folder, and what it recorded."""

    def __init__(self, kind: Kind, cloud: LocalCloud, folder: Path, state_dir: Path) -> None:
        """Say what is tested, where it sends, and where its state is."""
        self.kind = kind
        self.cloud = cloud
        self.folder = folder
        self.state_dir = state_dir
        self.answered: list[str] = []
        self._drives = 0

    def host(self, port: int = 0, **environ: str) -> Host:
        """Make the server; ``with`` starts it."""
        pid_file = self.folder / "host.pid" if "--daemon" in self.kind.command else None
        given = {**self.kind.environ, **environ}
        return Host(self.kind.command, self.folder, port=port, environ=given, pid_file=pid_file)

    def observe(self, host: Host, name: str) -> Observed:
        """Let every worker answer, and look at all that the server has then."""
        self._drives += 1
        answered, seen = host.drive_all(self.kind.workers, f"{name}-{self._drives}")
        self.answered += answered
        wait_for(lambda: not host.connections(), 30, "the server to close what clients closed")
        workers = [footprint(pid, self.state_dir) for pid in seen if psutil.pid_exists(pid)]
        return Observed(
            footprint(host.pid, self.state_dir),
            workers,
            1 + len(host.children()),
            [answer["handlers"] for answer in seen.values()],
            {name for answer in seen.values() for name in answer["threads"]},
        )

    def check_same(self, host: Host, bare: Observed) -> None:
        """See that a server has nothing that it would not have without fallom, and no other signals."""
        give_up = time.monotonic() + 20  # pools need a moment to settle
        differences = self._differences(bare, self.observe(host, "settled"))
        while differences and time.monotonic() < give_up:
            differences = self._differences(bare, self.observe(host, "settled"))
        assert not differences, "\n".join(differences)
        wait_for(lambda: not host.zombies(), 10, "what has ended to be collected")

    def _differences(self, bare: Observed, found: Observed) -> list[str]:
        tasks_max = max(self.kind.threads_max, *(worker.tasks for worker in bare.workers))
        differences = []
        if found.master != bare.master:
            differences.append(f"master: {found.master}, was {bare.master}")
        if found.processes != bare.processes:
            differences.append(f"processes: {found.processes}, was {bare.processes}")
        if not found.threads <= bare.threads:
            differences.append(f"threads: {found.threads}, was {bare.threads}")
        for worker in found.workers:
            if worker.tasks > tasks_max:
                differences.append(f"tasks: {worker.tasks}, was {tasks_max}")
            for name in ("descriptors", "signals"):
                given, known = getattr(worker, name), [getattr(w, name) for w in bare.workers]
                if given not in known:
                    differences.append(f"{name}: {given}, was {known}")
        for handlers in found.handlers:
            if handlers not in bare.handlers:
                changed = set(handlers.items()) - set(bare.handlers[0].items())
                differences.append(f"handlers: {changed}")
        return differences

    def check_sessions(self, host: Host) -> None:
        """See whose session a request is in whose predecessor set one and did not clear it."""
        with Connection(host.port) as connection:
            setter = connection.get("/apart/enter/set-behind-the-middleware")
            assert setter["whose"] == "set-behind-the-middleware"
            later = [connection.get("/apart/look/x") for _ in range(REQUESTS_AFTER)]
            assert [answer["whose"] for answer in later] == [None] * REQUESTS_AFTER
            streamed = connection.read("/apart/stream/streamed")
            assert streamed.split() == ["streamed"] * 3
            later = [connection.get("/apart/look/x") for _ in range(REQUESTS_AFTER)]
            assert [answer["whose"] for answer in later] == [None] * REQUESTS_AFTER
        self.answered += ["set-behind-the-middleware", "streamed"]
        with Connection(host.port) as connection:  # last: from here on that thread has a session
            setter = connection.get("/plain/enter/leaks")
            later = [connection.get("/plain/look/x") for _ in range(REQUESTS_AFTER)]
            self.answered.append("leaks")
        self._check_leak(setter, later)

    def _check_leak(self, setter: Answer, later: Sequence[Answer]) -> None:
        same = [a for a in later if (a["pid"], a["thread"]) == (setter["pid"], setter["thread"])]
        expected = "leaks" if self.kind.leaks else None
        assert {answer["whose"] for answer in same} <= {expected}, "set_session's documented leak"

    def flusher(self) -> int:
        """Give the one flusher there is, which listens nowhere."""
        pids = leader_pids(self.state_dir)
        assert len(pids) == 1, pids
        sockets = psutil.Process(pids[0]).net_connections("all")
        listening = [each for each in sockets if each.status == psutil.CONN_LISTEN]
        assert not listening, f"inherited from the server: {listening}"
        return pids[0]

    def check_delivered(self) -> None:
        """See that all that was recorded has arrived, by one flusher and with one fetch of configs."""
        self.flusher()
        fallom.init()
        assert fallom.flush(60) == 0, fallom.status()
        assert fallom.status()["dropped"] == {}
        rows = self.cloud.spans()
        arrived = Counter(row["attributes"]["fallom.session_id"] for row in rows)
        acknowledged = Counter((self.folder / "acknowledged").read_text().split())
        assert set(self.answered) <= set(acknowledged), "answered, and not recorded"
        assert acknowledged - arrived == Counter(), "acknowledged and lost"
        assert len({row["span_id"] for row in rows}) == len(rows), (
            "nobody died: nothing comes twice"
        )
        assert self.cloud.stats()["fetches"]["/configs"] == 1, "one fetch an interval"

    def check_stoppable(self) -> None:
        """See that the flusher ends at SIGTERM, whatever thread of whatever server started it."""
        pid = self.flusher()
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not psutil.pid_exists(pid), 30, "the flusher to end at SIGTERM")
