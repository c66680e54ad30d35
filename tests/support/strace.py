"""Exact-point faults: a function runs in a forked child under strace, which kills or fails one system call.

The child waits until strace is attached, so that the calls are counted from the function's first line on
and the n-th of one run is the n-th of the next.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["ERRORS", "Ending", "Point", "faults_of", "run_traced", "why_unusable"]

Say = Callable[[str], None]

ERRORS = ("ENOSPC", "EIO", "EROFS", "EMFILE")
_WRITES = ("write", "pwrite64")
_CALLS = (
    "write pwrite64 rename renameat renameat2 fsync fdatasync unlink unlinkat link linkat openat "
    "ftruncate mkdir mkdirat"
).split()
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")
_SHORT_BYTES = 5  # what a short write says that it wrote
_RUN_S = 10.0  # a run takes 0.1 s


class Point(NamedTuple):
    """One system call on a file below the directory that is watched."""

    call: str
    number: int  # of this call in its process, from 1
    shown: str


class Ending(NamedTuple):
    """How a run ended: exit status or minus the signal, what it said, and its points."""

    status: int
    said: list[str]
    points: list[Point]


def why_unusable() -> str:
    """Say why this machine cannot do it, "" if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-e", "inject=getppid:error=EPERM", "-o", os.devnull, "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"strace cannot trace here: {tried.stderr.strip()}" if tried.returncode else ""


def faults_of(point: Point) -> list[str]:
    """List what can be done at a point, as strace spells it: first the kill."""
    faults = ["signal=KILL", *(f"error={error}" for error in ERRORS)]
    return [*faults, f"retval={_SHORT_BYTES}"] if point.call in _WRITES else faults


def run_traced(
    body: Callable[[Say], None],
    folder: Path,
    watched: Path,
    point: Point | None = None,
    fault: str = "",
) -> Ending:
    """Run a function in a forked child.

    Args:
        body: Is given a function that says something to the test, whatever becomes of the child.
        folder: For strace's log.
        watched: Calls on files below it are points.
        point: Where the fault is.
        fault: What happens there; see ``faults_of``.
    """
    go_read, go_write = os.pipe()
    said_read, said_write = os.pipe()
    with warnings.catch_warnings():  # of Python 3.12: the test runner has threads
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.read(go_read, 1)
            body(lambda text: _write_line(said_write, text))
            status = 0
        except BaseException:
            _write_line(said_write, traceback.format_exc())
        finally:
            os._exit(status)
    os.close(go_read)
    os.close(said_write)
    log = folder / "strace.log"
    command = ["strace", "-qq", "-y", "-s", "0", "-o", str(log), "-p", str(pid)]
    command += ["-e", f"trace={','.join(_CALLS)}", "-e", "signal=none"]
    if point is not None:
        command += ["-e", f"inject={point.call}:{fault}:when={point.number}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as strace:
        _wait_until_traced(pid, strace)
        os.write(go_write, b"g")
        os.close(go_write)
        hung = threading.Timer(_RUN_S, os.kill, (pid, signal.SIGABRT))
        hung.start()
        with os.fdopen(said_read, encoding="utf-8") as pipe:
            said = pipe.read().splitlines()
        hung.cancel()
        _, status = os.waitpid(pid, 0)
        strace.communicate()
    return Ending(os.waitstatus_to_exitcode(status), said, _points(log, watched))


def _wait_until_traced(pid: int, strace: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _RUN_S
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0" in status.read_text():
        assert strace.poll() is None, "strace ended"
        assert time.monotonic() < give_up, "strace did not attach"
        time.sleep(0.0005)


def _points(log: Path, watched: Path) -> list[Point]:
    points = []
    counts: Counter[str] = Counter()
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        call, rest = found.groups()
        counts[call] += 1
        makes = call != "openat" or "O_CREAT" in rest
        if makes and str(watched) in rest:
            points.append(Point(call, counts[call], rest))
    return points


def _write_line(fd: int, text: str) -> None:
    os.write(fd, (text + "\n").encode())
