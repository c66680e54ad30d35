"""Every cell of the hosts' tests, those that are too long for each run included."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.soaking.cloud import Report

ROOT = Path(__file__).resolve().parents[2]


def hosts(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Run the hosts' tests without leaving any out, and tell what became of each."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:randomly", "-m", "long or not long"]
    command += ["tests/processes/hosts", "--basetemp", str(folder / "tests")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.findall(r"^\S+::test_(\S+?)(?:\[(.*)\])? (PASSED|FAILED|SKIPPED)", ran.stdout, re.M)
    report = [(f"{cell or 'one cell'}: {test.replace('_', ' ')}", end) for test, cell, end in found]
    return report, [ran.stdout[-5000:]] if ran.returncode else []
