"""A backlog: many sealed segments that nobody delivered yet, and what draining them costs a flusher."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

import fallom
from fallom import _runtime
from fallom._core.settings import resolve_settings
from fallom._core.span import Metrics, new_span_id, new_trace_id
from fallom._host.directory import find_state_directory
from fallom._spool.frame import Kind, encode_frame, pack
from fallom._spool.segment import Destination, create_segment, seal
from fallom.dev.server import LocalCloud
from tests.support.flushers import end_flushers, wait_for

__all__ = ["Drained", "drain", "make_backlog"]


@dataclass(frozen=True)
class Drained:
    """What was measured."""

    spans: int
    started_s: float  # from the start of the flusher to the first span with the server
    took_s: float
    growth_bytes: int  # peak of resident memory above that of an idle flusher


def make_backlog(bytes_total: int, segments: int, record_bytes: int) -> int:
    """Fill the spool that the environment names.

    Returns:
        How many spans there are.
    """
    settings = resolve_settings({}, os.environ)
    assert settings.state_dir is not None
    Path(settings.state_dir).mkdir(mode=0o700, exist_ok=True)
    directory = find_state_directory(settings.state_dir, settings.namespace, os.environ)
    noise = os.urandom(record_bytes).hex()
    each = max(1, bytes_total // segments // record_bytes)
    for number in range(segments):
        name, file = create_segment(directory.spool, Destination.METRICS)
        frames = [encode_frame(Kind.HEADER, pack({"service.name": "backlog"}), name.seed)]
        for index in range(each):
            start = (number * each + index) % record_bytes
            record = Metrics(
                new_trace_id(),
                new_span_id(),
                time.time_ns(),
                "app",
                f"b-{number}-{index}",
                {},
                {"text": noise[start : start + record_bytes]},
            )
            frames.append(encode_frame(Kind.METRICS, pack(record), name.seed))
        os.write(file.fd, b"".join(frames))
        seal(directory.spool, name)
        file.close()
    directory.close()
    return each * segments


def drain(cloud: LocalCloud, spans: int, timeout_s: float) -> Drained:
    """Start a flusher on the backlog and wait until all of it is delivered."""
    idle_bytes = _idle_rss()
    begun_s = time.monotonic()
    fallom.init()
    wait_for(lambda: cloud.stats()["spans"]["received"], what="the first batch")
    started_s = time.monotonic() - begun_s
    pid = wait_for(lambda: fallom.status()["flusher"]["pid"], what="the flusher")
    wait_for(lambda: cloud.stats()["spans"]["distinct"] >= spans, timeout_s, what=f"{spans} spans")
    took_s = time.monotonic() - begun_s
    return Drained(spans, started_s, took_s, _peak_rss(pid) - idle_bytes)


def _idle_rss() -> int:
    """Measure a flusher that has nothing to do, in a state directory of its own."""
    state = f"{os.environ['FALLOM_STATE_DIR']}-idle"
    fallom.init(state_dir=state)
    assert fallom.wait_until_ready(20)
    pid = wait_for(lambda: fallom.status()["flusher"]["pid"], what="an idle flusher")
    idle_bytes = int(psutil.Process(pid).memory_info().rss)
    _runtime.reset()
    end_flushers(state)
    return idle_bytes


def _peak_rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this system does not tell a process's peak")
