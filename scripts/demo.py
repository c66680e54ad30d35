"""The demo: four gunicorn workers, 2,000 requests, and something killed every now and then.

Starts the local cloud and a small application, drives it while it kills -9 a worker, then the flusher,
then restarts the cloud, and counts what arrived. Exits with 1 if anything is not as promised.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WORKERS = 4
CLIENTS = 8
SYNC_INTERVAL_S = 2.0
TAKEOVER_MAX_S = 2.0


class Drive:
    """The clients: threads that send requests and keep what the application told them."""

    def __init__(self, port: int, requests: int) -> None:
        self.port = port
        self.requests = requests
        self.told: list[dict[str, Any]] = []
        self.refused = 0
        self._next = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_for(self, answers: int) -> None:
        """Wait until so many requests were answered or refused."""
        while len(self.told) + self.refused < answers:
            if not any(thread.is_alive() for thread in self._threads):
                return
            time.sleep(0.005)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _client(self) -> None:
        while True:
            with self._lock:
                if self._next >= self.requests:
                    return
                number, self._next = self._next, self._next + 1
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                connection.request("GET", f"/session-{number}")
                told = json.loads(connection.getresponse().read())
                connection.close()
            except (OSError, http.client.HTTPException, ValueError):
                with self._lock:
                    self.refused += 1  # its worker was killed under it: nothing was acknowledged
            else:
                with self._lock:
                    self.told.append(told)


class Application:
    """gunicorn with the demo's application."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self.port = _free_port()
        self._log = (folder / "gunicorn.log").open("wb")
        self.log_path = folder / "gunicorn.log"
        command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS)]
        command += ["--bind", f"127.0.0.1:{self.port}", "--graceful-timeout", "20"]
        command += ["--chdir", str(ROOT / "examples"), "demo_app:app"]
        self._process = subprocess.Popen(command, env=environ, stdout=self._log, stderr=self._log)

    def workers(self) -> list[int]:
        return [child.pid for child in psutil.Process(self._process.pid).children()]

    def wait_until_ready(self) -> None:
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("GET", "/warm-up")
                if connection.getresponse().status == 200 and len(self.workers()) == WORKERS:
                    return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"the application did not start: {self.log_path.read_text()}")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    given = parser.parse_args()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fallom-demo-") as folder:
        report, problems = run(Path(folder), given.requests)
    report.append(("whole demo", f"{time.monotonic() - started_s:.1f} s"))
    width = max(len(name) for name, _ in report)
    for name, value in report:
        print(f"{name:<{width}}  {value}")
    for problem in problems:
        print(f"NOT AS PROMISED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def run(folder: Path, requests: int) -> tuple[list[tuple[str, str]], list[str]]:
    from fallom.dev.server import LocalCloud

    with LocalCloud(db=folder / "cloud.db") as cloud:
        os.environ.update(cloud.environment())
        os.environ["FALLOM_STATE_DIR"] = str(folder / "state")
        os.environ["FALLOM_SYNC_INTERVAL"] = str(SYNC_INTERVAL_S)
        os.environ["FALLOM_LINGER"] = "1"
        import fallom

        fallom.init()
        if not fallom.wait_until_ready(20):
            return [], [f"no configs within 20 s: {fallom.status()}"]
        application = Application(dict(os.environ), folder)
        try:
            application.wait_until_ready()
            driven_s = time.monotonic()
            drive = Drive(application.port, requests)
            drive.start()
            takeover_s = disturb(drive, application, cloud)
            drive.join()
            driven_s = time.monotonic() - driven_s
        finally:
            application.stop()
        left = fallom.flush(20)
        fallom.shutdown()
        report, problems = count(drive, cloud)
        report.insert(0, ("requests", f"{requests} in {driven_s:.1f} s, {WORKERS} workers"))
        report.append(("takeover after the flusher's death", f"{takeover_s:.2f} s"))
        if left:
            problems.append(f"{left} records were not delivered within 20 s: {fallom.status()}")
        if takeover_s > TAKEOVER_MAX_S:
            problems.append(f"the takeover took more than {TAKEOVER_MAX_S:g} s")
        fetches = cloud.stats()["fetches"].get("/configs", 0)
        allowed = (time.monotonic() - _STARTED_S) / SYNC_INTERVAL_S * 1.5 + 4
        report.append(
            ("config fetches, all workers", f"{fetches} (interval {SYNC_INTERVAL_S:g} s)")
        )
        if fetches > allowed:
            problems.append(f"{fetches} config fetches, at most {allowed:.0f} were expected")
        remaining = wait_for_end(folder)
        report.append(("processes left behind", str(len(remaining))))
        if remaining:
            problems.append(f"these processes are still there: {remaining}")
    return report, problems


def disturb(drive: Drive, application: Application, cloud: Any) -> float:
    """Kill a worker, then the flusher, then the cloud; give how long the takeover took."""
    import fallom

    drive.wait_for(drive.requests // 4)
    os.kill(application.workers()[0], signal.SIGKILL)
    drive.wait_for(drive.requests // 2)
    old = fallom.status()["flusher"]["pid"]
    os.kill(old, signal.SIGKILL)
    killed_s = time.monotonic()
    while True:
        flusher = _flusher_on_page()
        if flusher not in (old, None) or time.monotonic() - killed_s > 20:
            takeover_s = time.monotonic() - killed_s
            break
        time.sleep(0.005)
    drive.wait_for(drive.requests * 3 // 4)
    cloud.restart()
    return takeover_s


def count(drive: Drive, cloud: Any) -> tuple[list[tuple[str, str]], list[str]]:
    """Compare what the application was told with what the cloud has."""
    acknowledged = {told["session_id"] for told in drive.told}
    received: Counter[tuple[str, str]] = Counter()
    ids: set[str] = set()
    rows = cloud.spans()
    for row in rows:
        if row["span_id"] not in ids:
            kind = "metrics" if row["name"] == "fallom.metrics" else "call"
            received[kind, row["attributes"]["fallom.session_id"]] += 1
            ids.add(row["span_id"])
    lost = [
        (kind, session_id)
        for session_id in acknowledged
        for kind in ("call", "metrics")
        if not received[kind, session_id]
    ]
    exposed = {row["session_id"] for row in cloud.exposures()}
    unexposed = acknowledged - exposed
    statuses = Counter(told["status"] for told in drive.told)
    report = [
        ("answered, refused", f"{len(drive.told)}, {drive.refused} (their worker was killed)"),
        ("LLM calls", ", ".join(f"{n} {status}" for status, n in statuses.most_common())),
        ("spans acknowledged", str(2 * len(acknowledged))),
        ("spans delivered", str(len(ids))),
        ("lost", str(len(lost))),
        ("sent twice", str(len(rows) - len(ids))),
        ("exposures delivered, missing", f"{len(exposed)}, {len(unexposed)}"),
    ]
    for name in ("models.get", "prompts.get_ab", "trace.span", "session", "wrap_openai"):
        took = sorted(told["took_ns"][name] / 1000 for told in drive.told)
        p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
        report.append((f"{name}, p50 / p99", f"{p50:.0f} / {p99:.0f} us"))
    problems = []
    if lost:
        problems.append(f"{len(lost)} acknowledged spans were lost, for example {lost[:3]}")
    if unexposed:
        problems.append(
            f"{len(unexposed)} exposures are missing, for example {list(unexposed)[:3]}"
        )
    if len(drive.told) < drive.requests * 0.95:
        problems.append(f"only {len(drive.told)} of {drive.requests} requests were answered")
    return report, problems


def wait_for_end(folder: Path) -> list[str]:
    """Wait until the flusher has left by itself; give what is still there."""
    give_up = time.monotonic() + 15
    while True:
        remaining = [
            f"{process.pid} {' '.join(process.cmdline())}"
            for process in psutil.process_iter()
            if _uses(process, folder)
        ]
        if not remaining or time.monotonic() > give_up:
            return remaining
        time.sleep(0.05)


def _uses(process: psutil.Process, folder: Path) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        return any(opened.path.startswith(f"{folder}/state") for opened in process.open_files())
    except psutil.Error:
        return False


def _flusher_on_page() -> int | None:
    import fallom

    return fallom.status()["flusher"]["pid"]


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_STARTED_S = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
