"""Hosting: web requests while a backlog is delivered, and what idle workers cost."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench import NOWHERE, Bench, Entry, expect
from benchmarks.contestant import Contestant
from benchmarks.environments import MissingPeerError, interpreter_of
from benchmarks.receiver import Receiver
from benchmarks.table import Table, distribution, percentile

WORKERS = 2
CLIENTS = 2
SPANS = 10  # a request, as the application has it
_ADAPTERS = Path(__file__).resolve().parent.parent / "adapters"


def web(bench: Bench) -> Table:
    """Ask a gunicorn, in turns: without tracing, with fallom while it drains, with OpenTelemetry."""
    with Receiver(is_elsewhere=True) as receiver:
        return _web(dataclasses.replace(bench, receiver=receiver))


def _web(bench: Bench) -> Table:
    requests, backlog = bench.sized(1500, 300), bench.sized(200_000, 8_000)
    ways = (("no tracing", "none", "fallom"), ("**fallom**, draining", "fallom", "fallom"),
            ("OpenTelemetry, its thread in the worker", "opentelemetry", "opentelemetry"))  # fmt: skip
    found: dict[str, list[list[float]]] = {name: [] for name, _, _ in ways}
    kept: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    for repeat in range(bench.sized(bench.repeats, 2)):
        for name, kind, peer in ways[repeat % 3 :] + ways[: repeat % 3]:
            try:
                took, share = _served(bench, kind, peer, requests, backlog)
            except MissingPeerError as error:
                bench.miss(str(error))
                continue
            found[name].append(took)
            kept[name].append(share)
    columns = ("p50 ms", "p99 ms", "p99.9 ms", "p50 x none", "p99 x none", "kept %")
    table = Table("web", "A web request in gunicorn, ms, while a backlog is delivered", columns)
    for name, rounds in found.items():
        if not rounds:
            continue
        singles = sorted(ms for each in rounds for ms in each)
        row: dict[str, Any] = {"row": name, "repeats": len(rounds)}
        for label, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
            row[f"{label} ms"] = percentile(singles, share)
            pairs = zip(rounds, found[ways[0][0]], strict=True)
            row[f"{label} x none"] = statistics.median(
                percentile(sorted(mine), share) / percentile(sorted(none), share)
                for mine, none in pairs
            )
        if kept[name] and name != ways[0][0]:
            row["kept %"] = 100 * statistics.mean(kept[name])
        if "fallom" in name:
            expect(row["kept %"] == 100, f"only {row['kept %']:.1f} % arrived")
        table.rows.append(row)
        table.curves[name] = distribution([1000 * ms for ms in singles])
    table.notes = [
        f"{WORKERS} sync workers, {CLIENTS} clients that ask one request after the other, {requests} "
        f"requests a repeat, {SPANS} spans of 10 attributes a request. Beside fallom's requests its "
        f"flusher delivers a backlog of {backlog:,} spans; OpenTelemetry's thread delivers what the "
        "requests record. Its flusher, of which a host has one, has started before the first of them.",
        "The receiver, which stands for another host, waits where the others want the processor.",
        "x none: of the same repeat, median. Kept: of the spans of the requests and the backlog.",
    ]
    return table


def _served(
    bench: Bench, kind: str, peer: str, requests: int, backlog: int
) -> tuple[list[float], float]:
    bench.receiver.clear()
    environ = bench.ours("process", bench.receiver.url) if kind == "fallom" else {}
    expected = requests * SPANS
    if kind == "fallom":
        fill = {**environ, "FALLOM_FLUSHER": "external"}
        filler = Contestant("filler", "fallom", "shipping", "fill", {"is_llm": False}, fill)
        filler.order("warm", calls=backlog)
        filler.order("answers")
        filler.close()
        expected += backlog
    with _gunicorn(
        peer, {**environ, "BENCH_TRACING": kind, "BENCH_URL": bench.receiver.url}
    ) as port:
        warmed = 20
        _ask(port, warmed)
        if kind == "fallom":  # its flusher has started, once per host, and is at work
            give_up_s = time.monotonic() + 60
            while not bench.receiver.distinct():
                expect(time.monotonic() < give_up_s, "nothing of the backlog came")
                time.sleep(0.05)
        took = sorted(_ask(port, requests))
        expected += warmed * SPANS
        if kind == "fallom":
            # Killed workers would lose nothing; but only while a flusher lives something arrives.
            give_up_s = time.monotonic() + 120
            while bench.receiver.distinct() < expected and time.monotonic() < give_up_s:
                time.sleep(1.0)
    kept = bench.receiver.distinct() if kind != "none" else expected
    return took, kept / expected


@contextlib.contextmanager
def _gunicorn(peer: str, environ: dict[str, str]) -> Iterator[int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FALLOM_", "OTEL_"))}
    command = [
        interpreter_of(peer),
        "-m",
        "gunicorn",
        "--chdir",
        _ADAPTERS,
        "--workers",
        str(WORKERS),
    ]
    command += ["--bind", "127.0.0.1:0", "--log-level", "info", "web_app:app"]
    process = subprocess.Popen(
        command,
        env={**clean, **environ},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    try:
        port = 0
        for line in process.stderr:
            if "Listening at" in line:
                port = int(line.partition("http://127.0.0.1:")[2].split()[0])
                break
        expect(port, "gunicorn did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield port
    finally:
        process.terminate()
        try:
            process.wait(40)  # its workers flush at their exit, if they do
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(port: int, requests: int) -> list[float]:
    took: list[list[float]] = [[] for _ in range(CLIENTS)]

    def client(mine: list[float]) -> None:
        for _ in range(requests // CLIENTS):
            begun = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert answer.status == 200
            assert len(answer.read()) == 64
            connection.close()
            mine.append((time.perf_counter() - begun) * 1000)

    threads = [threading.Thread(target=client, args=(mine,)) for mine in took]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flat = [ms for mine in took for ms in mine]
    expect(len(flat) == requests // CLIENTS * CLIENTS, f"{len(flat)} answers of {requests}")
    return flat


def idle(bench: Bench) -> Table:
    """Leave workers alone for a minute, and look at what they used."""
    seconds, workers = bench.sized(60, 6), 4
    url = bench.receiver.url
    servers = {"FALLOM_CONFIGS_URL": url, "FALLOM_PROMPTS_URL": url}
    ours = bench.ours("process", url, FALLOM_LINGER="3600", **servers)
    kinds = (("**fallom**", "fallom", "fallom_now", {"delivered": True}, ours),
             ("OpenTelemetry", "opentelemetry", "opentelemetry_sdk", {}, {}),
             ("ddtrace", "ddtrace", "datadog", {}, {}),
             ("langfuse", "langfuse", "langfuse_sdk", {}, {}))  # fmt: skip
    entries = [
        Entry(f"{name} {number}", *(peer, "idling", "idle"), environ=environ,
              options={**options, "adapter": adapter})
        for name, peer, adapter, options, environ in kinds
        for number in range(workers)
    ]  # fmt: skip
    columns = ("CPU ms a minute", "% of a core", "wake-ups a minute", "threads")
    table = Table("idle", f"Nothing to do: {workers} workers each, {seconds} s", columns)
    with bench.contestants(entries) as pairs:
        groups = {
            f"{name} {workers} workers": [c.pid for e, c in pairs if e.name.startswith(name)]
            for name, *_ in kinds
        }
        for _, contestant in pairs:
            contestant.order("warm", calls=5)
        flusher = _flusher_of(ours["FALLOM_STATE_DIR"])
        groups["**fallom** flusher of the host"] = [flusher]
        time.sleep(12)  # until what the recording set off is over, and the flusher is quiet
        before = {name: _used(pids) for name, pids in groups.items()}
        time.sleep(seconds)
        after = {name: _used(pids) for name, pids in groups.items()}
    for name, pids in groups.items():
        if not pids:
            continue
        cpu_ns, wakes = (after[name][n] - before[name][n] for n in (0, 1))
        table.rows.append(
            {
                "row": name,
                "CPU ms a minute": cpu_ns / 1e6 * 60 / seconds,
                "% of a core": cpu_ns / 1e9 / seconds * 100,
                "wake-ups a minute": round(wakes * 60 / seconds),
                "threads": after[name][2] // len(pids),
            }
        )
    mine = table.rows[0]
    expect(mine["wake-ups a minute"] == 0, f"idle workers woke up: {mine}")
    table.notes = [
        "CPU by the scheduler's own count in nanoseconds, wake-ups by voluntary context switches, of all "
        "threads; sums over the workers; threads: of a worker. The server of configs answers, and has no "
        "news.",
    ]
    return table


def _flusher_of(state: str) -> int:
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        if "_flusher/boot.py" in " ".join(process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                if any(state in opened.path for opened in process.open_files()):
                    return int(process.pid)
    raise AssertionError(f"no flusher in {state}, {NOWHERE}")


def _used(pids: list[int]) -> tuple[int, int, int]:
    """Give (CPU ns, voluntary switches, threads) of all threads of some processes."""
    cpu_ns = switches = threads = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            cpu_ns += int((task / "schedstat").read_text().split()[0])
            status = (task / "status").read_text()
            switches += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
            threads += 1
    return cpu_ns, switches, threads


TABLES = {"web": web, "idle": idle}
