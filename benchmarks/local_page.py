"""How long each view of the local page takes with many spans stored.

    python -m benchmarks.local_page --spans 100000

Prints a table in Markdown: the median and the slowest of the looks at each view, over HTTP on
loopback, one after another, by a server process of its own whose index is complete; and the processor
time of the server for one look, which does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

import psutil

from fallom.dev.server import LocalCloud
from tests.support.stored import fill

LOOKS = 9


def get(port: int, path: str) -> tuple[float, int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    took_ms = (time.perf_counter() - started) * 1000
    connection.close()
    return took_ms, response.status, body


def first_link(body: str, prefix: str) -> str:
    return prefix + body.split(f'href="{prefix}', 1)[1].split('"', 1)[0].replace("&amp;", "&")


def moment(age_s: float) -> str:
    return datetime.fromtimestamp(time.time() - age_s).isoformat(timespec="seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=100_000)
    spans = parser.parse_args().spans
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory) / "dev.db"
        stored = fill(database, spans)
        with LocalCloud(db=database) as cloud:
            started = time.perf_counter()
            while "Still reading" in (body := get(cloud.port, "/")[2]) or "No traces" in body:
                time.sleep(0.2)
            print(f"indexed {stored:,} spans in {time.perf_counter() - started:.1f} s")
            traces, sessions = body, get(cloud.port, "/ui/sessions")[2]
            sizes = body.split('class="sum">', 1)[1].split("<", 1)[0]
            print(sizes, "\n")
            older = first_link(traces, "/?after=")
            views = {
                "traces": "/",
                "traces, page 2": older,
                "traces of a config": "/?config=summarizer-config",
                "of a model, a tag and metadata": "/?model=gpt-4o&tag=beta&meta=plan%3Dpro",
                "with errors": "/?errors=1",
                "of a rare error and a plan": "/?error=rate_limit_exceeded&meta=plan%3Denterprise",
                "slowest first": "/?sort=slowest",
                "most tokens, one customer": "/?sort=tokens&customer=user-7",
                "of the last 15 minutes": "/?period=15m",
                "of a minute long ago": f"/?from={moment(900)}&to={moment(840)}",
                "before all of them": f"/?to={moment(10 * spans)}",
                "slower than all, a tag": "/?slower=900000&tag=beta",
                "search, a frequent word": "/?q=order",
                "search, a frequent word, page 2": first_link(
                    get(cloud.port, "/?q=order")[2], "/?q=order&amp;after="
                ),
                "search, nothing found": "/?q=zzzznothing",
                "search, a phrase and a filter": "/?q=%22trail+shoe%22&errors=1",
                "search, frequent, filter never met": "/?q=order&slower=900000",
                "search, a session's id": "/?q=" + first_link(sessions, "/ui/session/")[12:],
                "sessions": "/ui/sessions",
                "sessions, search and tag": "/ui/sessions?q=lamp&tag=beta",
                "sessions, filter never met": "/ui/sessions?slower=900000",
                "a session": first_link(sessions, "/ui/session/"),
                "a trace": first_link(traces, "/ui/trace/"),
                "experiments": "/ui/experiments",
                "an experiment": "/ui/experiment/config/my-app",
                "a prompt test": "/ui/experiment/prompt_ab_test/onboarding-test",
                "served": "/ui/served",
                "host": "/ui/host",
            }
            server = psutil.Process(cloud.pid)
            print(
                "| view | CPU ms | median ms | slowest ms | KiB |\n| --- | ---: | ---: | ---: | ---: |"
            )
            for name, path in views.items():
                before = sum(server.cpu_times()[:2])
                looks = [get(cloud.port, path) for _ in range(LOOKS)]
                assert all(status == 200 for _, status, _ in looks), (path, looks[0][1])
                cpu_ms = (sum(server.cpu_times()[:2]) - before) * 1000 / LOOKS
                times = [took for took, _, _ in looks]
                size = len(looks[0][2]) / 1024
                middle, worst = statistics.median(times), max(times)
                print(f"| {name} | {cpu_ms:.0f} | {middle:.0f} | {worst:.0f} | {size:.0f} |")


if __name__ == "__main__":
    main()
