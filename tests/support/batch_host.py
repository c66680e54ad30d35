"""A script as users start it, once without fallom and once with it, and what must be the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.scripts import ROOT

BEGIN = """
import json, os, re, signal, sys, threading, time
IS_BARE = "BARE" in os.environ
if not IS_BARE:
    import fallom
    from fallom import models, trace
    fallom.init()

def record(name, count=20):
    for number in range(0 if IS_BARE else count):
        models.get("app", name, fallback="none")
        with trace.step(f"{name}-{number}"):
            pass
        with open("acknowledged", "a") as acknowledged:
            acknowledged.write(f"{name}-{number}\\n")

def footprint():
    targets = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue
    status = open("/proc/self/status").read()
    return {
        "tasks": len(os.listdir("/proc/self/task")),
        "sockets": sum("socket" in target for target in targets),
        "pipes": sum("pipe" in target for target in targets),
        "signals": re.findall(r"Sig(?:Blk|Ign|Cgt):\\t(\\w+)", status),
    }
"""


class Ended(NamedTuple):
    """How a script ended."""

    status: int
    out: str
    err: str


class BatchScript:
    """One script in a folder, to be run as often as is wanted."""

    def __init__(self, code: str, folder: Path) -> None:
        """Take the code, which knows ``record`` and ``footprint``."""
        self._folder = folder
        self._path = folder / "job.py"
        self._path.write_text(BEGIN + textwrap.dedent(code), encoding="utf-8")

    def check_same(self, *arguments: str, number: signal.Signals | None = None) -> Ended:
        """Run it without fallom and with it; see that nobody could tell which, and give the end.

        Its output is read to the end, which does not come while anybody holds the pipe.
        """
        bare = self.run({"BARE": "yes"}, *arguments, number=number)
        ended = self.run({}, *arguments, number=number)
        assert ended == bare
        return ended

    def run(
        self, environ: Mapping[str, str], *arguments: str, number: signal.Signals | None = None
    ) -> Ended:
        """Run it to its end; a signal is sent when it says ``ready``."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
        environ.pop("FALLOM_AUTO_INSTRUMENT", None)
        with subprocess.Popen(
            [sys.executable, str(self._path), *arguments],
            env=environ,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                if number is not None:
                    assert process.stdout is not None
                    assert process.stdout.readline() == "ready\n"
                    process.send_signal(number)
                out, err = process.communicate(timeout=60)
            except BaseException:
                process.kill()
                raise
        # Without the marks below a line, which depend on when a signal came.
        marks = re.compile(r"^\s*[~^]+\n", re.MULTILINE)
        return Ended(process.returncode, out, marks.sub("", err))
