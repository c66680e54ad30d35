from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fallom._version import __version__

ROOT = Path(__file__).parents[2]

# A finder that hides modules, as if their extras were not installed.
WITHOUT = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from fallom.__main__ import main
sys.exit(main({arguments!r}))
"""


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fallom", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environ},
        timeout=60,
    )


def run_without(hidden: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    script = WITHOUT.format(hidden=hidden, arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )


def test_version_needs_the_core_alone() -> None:
    ended = run_without(["click"], "--version")
    assert (ended.returncode, ended.stdout) == (0, f"fallom {__version__}\n")


def test_flusher_help_needs_the_core_alone() -> None:
    ended = run_without(["click", "starlette", "uvicorn", "yaml"], "flusher", "--help")
    assert ended.returncode == 0
    assert "--once" in ended.stdout
    assert "exit codes" in ended.stdout


@pytest.mark.parametrize("hidden", ["click", "starlette", "uvicorn", "yaml"])
def test_missing_extra_is_named_with_what_to_install(hidden: str) -> None:
    ended = run_without([hidden], "dev", "--port", "0")
    assert ended.returncode == 2
    assert f"{hidden!r}, which is not installed" in ended.stderr
    assert 'pip install "fallom[dev]"' in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [("status",), ("dead", "ls"), ("--help",), ()])
def test_commands_other_than_dev_ask_for_the_smaller_extra(command: tuple[str, ...]) -> None:
    ended = run_without(["click"], *command)
    assert ended.returncode == 2
    assert 'pip install "fallom[cli]"' in ended.stderr


def test_help_lists_the_commands_and_exit_codes() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    for word in ("dev", "flusher", "status", "Exit codes"):
        assert word in ended.stdout
    assert "\x1b" not in ended.stdout


def test_no_command_shows_the_help() -> None:
    ended = run()
    assert ended.returncode in (0, 2)  # click changed its mind about it in 8.2
    assert "dev" in ended.stdout + ended.stderr


def test_unknown_command_is_told() -> None:
    ended = run("develop")
    assert ended.returncode == 2
    assert "No such command 'develop'" in ended.stderr


def test_api_key_is_no_argument_of_the_flusher() -> None:
    ended = run("flusher", "--api-key", "secret")
    assert ended.returncode == 2
    assert "secret" not in run("flusher", "--help").stdout


def test_bad_setting_of_the_flusher_is_told_without_a_traceback() -> None:
    ended = run("flusher", "--once", FALLOM_SYNC_INTERVAL="soon")
    assert ended.returncode == 2
    assert "FALLOM_SYNC_INTERVAL is 'soon'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_of_a_command_loads_none_of_its_imports() -> None:
    script = (
        "import sys\nfrom fallom.__main__ import main\n"
        "main(['dev', '--help'])\n"
        "print([m for m in ('starlette', 'uvicorn', 'yaml', 'requests') if m in sys.modules])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert ended.stdout.endswith("[]\n")
