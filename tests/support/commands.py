"""Running ``fallom`` as a user does: in a process of its own, or, where that adds nothing, in this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

from fallom.__main__ import main
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


def fallom_here(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process; an error that it does not tell is one of the test's."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with (
        mock.patch.dict(os.environ, environ),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(list(arguments))
    said = [each.buffer.getvalue().decode() for each in (out, err)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, code, *said)


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
