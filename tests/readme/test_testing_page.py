"""The page about testing: its code runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.scripts import ROOT, run_script

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
WITH_PYTEST, WITHOUT = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
INI = re.search(r"```ini\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_code_for_pytest_passes(tmp_path: Path) -> None:
    assert INI is not None
    (tmp_path / "pytest.ini").write_text(INI[1])
    (tmp_path / "test_agent.py").write_text(WITH_PYTEST)
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_code_without_pytest_runs(tmp_path: Path) -> None:
    run_script(WITHOUT, tmp_path)
