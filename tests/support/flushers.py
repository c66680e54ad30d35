"""Finding and ending the flushers that a test started: none may outlive it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


def wait_for(condition: Callable[[], T], timeout_s: float = 20.0, what: str = "") -> T:
    """Wait until a condition gives something true, and give that; fail after ``timeout_s``."""
    give_up = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}")
        time.sleep(0.01)


def flusher_pids(state_dir: Path | str) -> list[int]:
    """Give the flusher processes of a state directory: leaders, and candidates that will find one."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = process.info["cmdline"] or []
        if any("_flusher/boot.py" in part for part in command) or "flusher" in command:
            try:
                if any(str(state_dir) in opened.path for opened in process.open_files()):
                    found.append(process.info["pid"])
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    return found


def leader_pids(state_dir: Path | str) -> list[int]:
    """Give those flushers of a state directory that hold a leader's lock: one a namespace."""
    locks = {path.stat().st_ino for path in Path(state_dir).glob("v1/*/leader.lock")}
    held = set()
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()  # "1: FLOCK  ADVISORY  WRITE 4711 fe:00:3294993 0 EOF"
        if fields[1] == "FLOCK" and int(fields[5].rpartition(":")[2]) in locks:
            held.add(int(fields[4]))
    return [pid for pid in flusher_pids(state_dir) if pid in held]  # a worker may be probing


def end_flushers(state_dir: Path | str) -> None:
    """Kill the flushers of a state directory, those that are only starting included."""
    give_up = time.monotonic() + 5.0
    quiet_since = time.monotonic()
    while time.monotonic() < give_up and time.monotonic() - quiet_since < 0.05:
        for pid in flusher_pids(state_dir):
            quiet_since = time.monotonic()
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
