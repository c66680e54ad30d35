"""Paths of the snapshot: many prompts read by one worker, and one change read by many workers."""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from driver import Subject, serve
from fallom_now import publish


def snapshot(options: dict[str, Any]) -> Subject:
    """Publish so many prompts; each call changes one that is in use, and reads it."""
    import fallom
    from fallom import prompts

    fallom.init()
    size, used, variables = options["size"], options["used"], {"x": "asked"}
    items = [
        {
            "key": f"p{n}",
            "version": 1,
            "system_prompt": f"You are {n}. " * 20,
            "user_template": "{{x}}",
        }
        for n in range(size)
    ]
    reader = Path("/proc/self/statm")
    told: dict[str, Any] = {}
    # A child publishes, as the flusher does: this process is to hold what a worker holds.
    _in_child(lambda: publish({"prompts": items}))
    before = _resident(reader)
    begun = time.perf_counter_ns()
    prompts.get("p0", variables)
    first_ms = (time.perf_counter_ns() - begun) / 1e6
    for n in range(min(used, size)):
        prompts.get(f"p{n}", variables)
    memory_mib = (_resident(reader) - before) / 2**20

    def change(number: int) -> None:
        version = number + 2
        items[0] = {**items[0], "version": version, "system_prompt": f"Version {version}"}
        publish_ms = _in_child(lambda: publish({"prompts": items}))
        begun, begun_cpu = time.perf_counter_ns(), time.thread_time_ns()
        prompt = prompts.get("p0", variables)
        told["refresh ms"] = (time.perf_counter_ns() - begun) / 1e6
        told["refresh CPU ms"] = (time.thread_time_ns() - begun_cpu) / 1e6
        told["publish ms"] = publish_ms
        told["is_new"] = prompt.system == f"Version {version}"
        begun = time.thread_time_ns()
        for _ in range(2000):
            prompts.get("p0", variables)
        told["get us"] = (time.thread_time_ns() - begun) / 2000 / 1000

    return Subject(
        change, answers=lambda: {**told, "first use ms": first_ms, "worker MiB": memory_mib}
    )


def propagation(options: dict[str, Any]) -> Subject:
    """Fork workers that read all the time, publish, and look at what each call gave."""
    import fallom
    from fallom import models

    fallom.init()
    workers, publishes = options["workers"], options["publishes"]

    def listing(model: str) -> dict[str, Any]:
        variants = [{"model": model, "weight": 100}]
        return {"configs": [{"key": "app", "version": 1 + int(model[1:]), "variants": variants}]}

    def work(write_end: int, until_ns: int) -> None:
        calls = []
        while time.monotonic_ns() < until_ns:
            begun_ns = time.monotonic_ns()
            model = models.get("app", "s", fallback="f")
            calls.append((begun_ns, time.monotonic_ns() - begun_ns, model))
            time.sleep(0.02)
        with os.fdopen(write_end, "w") as pipe:
            json.dump(calls, pipe)

    def answers() -> dict[str, Any]:
        publish(listing("m0"))
        until_ns = time.monotonic_ns() + int((1.5 + 0.4 * publishes + workers / 25) * 1e9)
        pipes = []
        for _ in range(workers):
            read_end, write_end = os.pipe()
            if os.fork() == 0:
                try:
                    work(write_end, until_ns)
                finally:
                    os._exit(0)
            os.close(write_end)
            pipes.append(read_end)
        time.sleep(0.5 + workers / 25)  # until all of them have begun
        published_ns = [0]
        for number in range(1, publishes + 1):
            publish(listing(f"m{number}"))
            published_ns.append(time.monotonic_ns())
            time.sleep(0.3)
        took_ms, stale, seen = [], 0, 0
        for read_end in pipes:
            with os.fdopen(read_end) as pipe:
                calls = json.load(pipe)
            for begun_ns, _, model in calls:
                newest = sum(begun_ns > at for at in published_ns) - 1
                stale += model == "f" or int(model[1:]) < newest
            for number in range(1, publishes + 1):
                took = [took_ns for _, took_ns, model in calls if model == f"m{number}"]
                seen += bool(took)
                took_ms += [took[0] / 1e6] if took else []
            os.wait()
        return {
            "stale": stale,
            "seen": seen,
            "took_ms": took_ms,
            "fetches": _fetches(workers, options["seconds"]),
        }

    return Subject(lambda _: None, answers=answers)


def _fetches(workers: int, seconds: float) -> int:
    """Count the listings that one host with so many workers asks for in some seconds."""
    asked: list[str] = []

    class Listings(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            name = self.path[1:].replace("-", "_")
            body = json.dumps({name: []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listings)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    children = []
    for _ in range(workers):
        pid = os.fork()
        if pid == 0:
            try:
                import fallom
                from fallom import trace

                url = f"http://127.0.0.1:{server.server_address[1]}"
                fallom.init(configs_url=url, prompts_url=url, flusher="process", sync_interval=1)
                trace.span({"n": 1}, "app", "s")
                time.sleep(60)
            finally:
                os._exit(0)
        children.append(pid)
    give_up = time.monotonic() + 30
    while not asked and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(seconds)
    count = len(asked)
    for pid in children:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    server.shutdown()
    return count


def _in_child(body: Any) -> float:
    """Run something in a forked child; give how long it took there, in ms."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        begun = time.perf_counter_ns()
        try:
            body()
            os.write(write_end, str((time.perf_counter_ns() - begun) / 1e6).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        took = pipe.read()
    os.waitpid(pid, 0)
    return float(took)


def _resident(reader: Path) -> int:
    return int(reader.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


PATHS = {"snapshot": snapshot, "propagation": propagation}

if __name__ == "__main__":
    serve(PATHS)
