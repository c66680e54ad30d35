"""Running ``fallom`` as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.scripts import ROOT

COMMAND = [sys.executable, "-m", "fallom"]


def fallom(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; an empty variable counts as unset."""
    return subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        timeout=100,
    )


def start_fallom(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Start a command."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
