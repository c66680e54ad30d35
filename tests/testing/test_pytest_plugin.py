"""The fixtures, in real runs of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

TESTS = """
import os
import pytest
from fallom import models, prompts, trace


@pytest.mark.fallom(models={"agent": "gpt-4o"})
@pytest.mark.parametrize("number", range(8))
def test_fixed_model(fallom_capture, number):
    assert models.get("agent", f"s-{number}") == "gpt-4o"
    with trace.step(f"step {number}"):
        pass
    assert fallom_capture.span().name.endswith(str(number))


@pytest.mark.fallom({"agent": "gpt-4o"}, {"greeting": "Hello"})
def test_mark_without_names(fallom_capture):
    assert models.get("agent", "s") == "gpt-4o"
    assert prompts.get("greeting").user == "Hello"


def test_without_mark(fallom_capture):
    assert models.get("agent", "s", fallback="f") == "f"
    assert fallom_capture.spans == []
"""
APPLICATION = """
import fallom

fallom.init(api_key="real", traces_url="http://127.0.0.1:9")
with fallom.trace.step("at import"):
    pass


def test_no_fixture():
    assert fallom.status()["flusher"]["mode"] == "none"
    assert fallom.flush() == 0
"""


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = directory / "home"
    home.mkdir(exist_ok=True)
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FALLOM", "PYTEST"))
    }
    environ |= {"PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(directory / "tmp")}
    (directory / "tmp").mkdir(exist_ok=True)
    plugin = ["-p", "fallom.testing.pytest_plugin"] if not is_installed() else []
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(directory), *plugin]
    return subprocess.run(
        [*command, *arguments, str(directory)],
        env=environ,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def is_installed() -> bool:
    """Say whether pytest finds the plugin by itself, as it does where the package is installed."""
    from importlib.metadata import entry_points

    return any(entry.name == "fallom" for entry in entry_points(group="pytest11"))


def test_fixture_and_mark_work_in_parallel_runs(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text(TESTS)
    done = run(tmp_path, "-n", "2", "--strict-markers")
    assert "10 passed" in done.stdout, done.stdout + done.stderr
    assert list((tmp_path / "home").iterdir()) == []


def test_offline_run_starts_nothing_at_import(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfallom_offline = true\n")
    (tmp_path / "test_app.py").write_text(APPLICATION)
    done = run(tmp_path, "-p", "no:cacheprovider")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert list((tmp_path / "home").iterdir()) == []
    assert not list((tmp_path / "tmp").glob("fallom-capture-*"))
