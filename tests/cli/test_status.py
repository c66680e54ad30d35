from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fallom.cli.status import status_lines, troubles
from fallom.dev.server import LocalCloud

ROOT = Path(__file__).parents[2]
SOUND: dict[str, Any] = {
    "state_dir": "/x",
    "flusher": {"is_alive": True, "paused_s": None},
    "spool": {"unaccepted_bytes": 9},
    "dropped": {"disk_full": 3},
}


def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environ},
        timeout=60,
    )


def test_status_is_a_screen_of_plain_facts_with_units() -> None:
    status = {
        "version": "1",
        "flusher": {"is_alive": True, "pid": 7, "beat_age_s": 0.25, "last_error": None},
        "dropped": {},
        "spool": {"traces": {"waiting_bytes": 1536, "oldest_s": 7200.0}},
        "urls": ["a", "b"],
    }
    assert list(status_lines(status)) == [
        "version     1",
        "urls        a; b",
        "",
        "flusher",
        "  alive       yes",
        "  pid         7",
        "  beat age    0.2 s",
        "  last error  -",
        "",
        "dropped",
        "  none",
        "",
        "spool",
        "  traces",
        "    waiting     1.5 KiB",
        "    oldest      2 h",
    ]


def test_empty_status_gives_nothing() -> None:
    assert list(status_lines({})) == []


@pytest.mark.parametrize(
    ("change", "stranded", "words"),
    [
        ({"state_dir": None}, 0, "FALLOM_STATE_DIR"),
        ({"flusher": {"is_alive": False}}, 7, "fallom flusher --once"),
        ({"flusher": {"is_alive": True, "paused_s": 30.0}, "last_error": "401"}, 0, "30.0 s: 401"),
    ],
)
def test_trouble_is_told_with_what_to_do(change: dict[str, Any], stranded: int, words: str) -> None:
    assert list(troubles(SOUND, 0)) == []
    (trouble,) = troubles({**SOUND, **change}, stranded)
    assert words in trouble


def test_what_waits_without_a_flusher_is_told_and_one_pass_delivers_it(tmp_path: Path) -> None:
    with LocalCloud() as cloud:
        environ = {**cloud.environment(), "FALLOM_STATE_DIR": str(tmp_path / "state")}
        unused = run(environ, "-m", "fallom", "status")
        assert unused.returncode == 0
        assert "Nothing was recorded or fetched here yet" in unused.stdout

        record = (
            "import fallom\nfallom.init(flusher='external')\n"
            "fallom.trace.span({'score': 1}, config_key='c', session_id='s')\n"
        )
        assert run(environ, "-c", record).returncode == 0
        waiting = run(environ, "-m", "fallom", "status")
        assert waiting.returncode == 1
        assert "1 record(s) wait and no flusher lives" in waiting.stdout
        assert cloud.stats()["spans"]["received"] == 0

        once = run(environ, "-m", "fallom", "flusher", "--once")
        assert once.returncode == 0, once.stderr
        assert cloud.stats()["spans"] == {"received": 1, "distinct": 1}
        after = run(environ, "-m", "fallom", "status", "--json")
        assert after.returncode == 0
        status = json.loads(after.stdout)
        assert status["sent"]["metrics_accepted"] == 1
        assert status["state_dir"].startswith(str(tmp_path))


def test_setting_that_cannot_be_used_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for environ in (
        {"FALLOM_TRACES_URL": "nonsense"},
        {"FALLOM_STATE_DIR": str(tmp_path / "file")},
    ):
        ended = run(environ, "-m", "fallom", "status")
        assert ended.returncode == 2
        assert next(iter(environ.values())) in ended.stderr
        assert "Traceback" not in ended.stderr
