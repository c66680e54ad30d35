"""How long servers and workers take to start and to stop, with fallom in the application and without."""

from __future__ import annotations

import http.client
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, expect
from benchmarks.environments import MissingPeerError, interpreter_of
from benchmarks.table import Table

_ADAPTERS = Path(__file__).resolve().parent.parent / "adapters"
_WORKERS = "2"
_DEADLINE_S = 60.0
_SETTLE_S = 1.0  # the other worker may still load the application, and would miss the signal


def host_times(bench: Bench) -> Table:
    """Start and stop each host by turns without and with fallom, which has no flusher yet."""
    columns = ("start ms", "with fallom", "differs by", "stop ms", "with it", "stops differ by")
    table = Table("host_times", "Starting and stopping hosts, ms, medians", columns)
    repeats = bench.sized(bench.repeats, 1)
    try:
        hosts = _hosts(interpreter_of("hosts"))
    except MissingPeerError as error:
        bench.miss(str(error))
        hosts = []
    for name, command in hosts:
        found: dict[str, list[tuple[float, float]]] = {"none": [], "fallom": []}
        for repeat in range(bench.sized(repeats + 1, repeats)):
            for kind in ("none", "fallom") if repeat % 2 else ("fallom", "none"):
                found[kind].append(_once(bench, name, command, kind))
        for each in found.values():
            del each[:-repeats]  # the first fills the caches of the disk
        table.rows.append(_row(name, found))
    table.notes = [
        f"{repeats} repeats by turns, {_WORKERS} workers. Start: from the command to the first answer "
        "(Celery: to its word that it is ready). Stop: from SIGTERM to the end of its output. Each with "
        "fallom has a new state directory, and starts a flusher. Differs: median of the differences of "
        "pairs, ms, and between the quartiles of the bare host's times.",
    ]
    return table


def _row(name: str, found: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    row: dict[str, Any] = {"row": name, "repeats": len(found["none"])}
    names = (("start ms", "with fallom", "differs by"), ("stop ms", "with it", "stops differ by"))
    for index, (bare, ours, differs) in enumerate(names):
        without, with_it = ([each[index] for each in found[kind]] for kind in ("none", "fallom"))
        low, _, high = statistics.quantiles(without * 2, n=4)
        by = statistics.median(b - a for a, b in zip(without, with_it, strict=True))
        row[bare] = statistics.median(without)
        row[ours] = statistics.median(with_it)
        row[differs] = f"{by:+.0f} (noise {high - low:.0f})"
    return row


def _hosts(python: Path) -> list[tuple[str, Callable[[int], list[str]]]]:
    def gunicorn(port: int) -> list[str]:
        bind = f"--bind=127.0.0.1:{port}"
        return [str(python), "-m", "gunicorn", "--workers", _WORKERS, bind, "web_app:app"]

    def served(port: int) -> list[str]:
        given = f"--master --die-on-term --http11-socket 127.0.0.1:{port} --processes {_WORKERS}"
        return [str(python.with_name("uwsgi")), *given.split(), "--module", "web_app:app"]

    def celery(_: int) -> list[str]:
        given = f"-A task_app worker --pool prefork --concurrency {_WORKERS} --loglevel INFO"
        return [str(python), "-m", "celery", *given.split()]

    return [
        ("gunicorn", gunicorn),
        ("uWSGI", served),
        ("Celery, prefork", celery),
    ]


def _once(
    bench: Bench, name: str, command: Callable[[int], list[str]], kind: str
) -> tuple[float, float]:
    """Give how long the start took and the stop, in ms."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("FALLOM_", "OTEL_"))}
    ours = bench.ours("process", bench.receiver.url) if kind == "fallom" else {}
    root = str(_ADAPTERS.parent.parent)
    more = {"PYTHONPATH": f"{_ADAPTERS}:{root}", "BENCH_TRACING": kind}
    with tempfile.TemporaryDirectory(dir=bench.folder) as broker:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command(port),
            env={**environ, **ours, **more, "BENCH_BROKER": broker},
            cwd=broker,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            reader = _Reader(process)
            is_ready = reader.is_ready if "Celery" in name else lambda: _answers(port)
            while not is_ready():
                expect(process.poll() is None, f"{name} did not start: {reader.said[-500:]}")
                expect(time.perf_counter() - begun < _DEADLINE_S, f"{name} does not answer")
                time.sleep(0.002)
            started = time.perf_counter()
            time.sleep(_SETTLE_S)
            stopping = time.perf_counter()
            process.terminate()
            reader.thread.join(_DEADLINE_S)
            process.wait(_DEADLINE_S)
            ended = time.perf_counter()
            if ours:
                left = list(Path(ours["FALLOM_STATE_DIR"]).rglob("spool"))
                expect(left, f"{name} was to run fallom and did not")
        finally:
            process.kill()
            process.wait()
    return (started - begun) * 1000, (ended - stopping) * 1000


class _Reader:
    """What a host says, to its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.said = ""
        self._output = process.stdout
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def is_ready(self) -> bool:
        return " ready." in self.said

    def _read(self) -> None:
        assert self._output is not None
        for line in self._output:
            self.said += line


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return len(connection.getresponse().read()) == 64
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


TABLES = {"host_times": host_times}
