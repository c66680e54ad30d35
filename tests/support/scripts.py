"""Running a program as users write them, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start_script(
    code: str,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    *arguments: str,
    stdin: int | None = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start a program; its output is collected by ``communicate``, which also ends its input."""
    path = folder / f"script_{len(list(folder.glob('script_*.py')))}.py"
    path.write_text(textwrap.dedent(code), encoding="utf-8")
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return subprocess.Popen(
        [sys.executable, str(path), *arguments],
        env={**os.environ, "PYTHONPATH": search, **(environ or {})},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def run_script(
    code: str,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    *arguments: str,
    expected_status: int = 0,
) -> str:
    """Run a program to its end; give what it printed."""
    process = start_script(code, folder, environ, *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == expected_status, f"status {process.returncode}\n{out}\n{err}"
    return out
