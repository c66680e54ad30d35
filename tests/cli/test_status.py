from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fallom._core.settings import resolve_settings
from fallom.cli.prometheus import prometheus_text
from fallom.cli.status import host_status, status_lines, troubles
from fallom.dev.server import LocalCloud

ROOT = Path(__file__).parents[2]


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


def sound() -> dict[str, Any]:
    settings = resolve_settings({}, {})
    status = host_status(None, settings)
    status["state_dir"] = "/x"
    status["flusher"] = {
        "mode": "process",
        "is_alive": True,
        "pid": 7,
        "version": "1.2.3",
        "beat_age_s": 0.25,
        "paused_s": None,
        "batch_mean_s": 0.012,
    }
    status["sent"] = {"spans_accepted": 12, "metrics_accepted": 3, "exposures_accepted": 4}
    status["sent"]["delivery_ms"] = 1500
    status["snapshot"] = {"generation": 5, "age_s": 7200.0, "checked_age_s": 3.0}
    status["spool"] = {
        "segments": 2,
        "allocated_bytes": 8192,
        "unaccepted_bytes": 1536,
        "waiting_records": 3,
        "oldest_age_s": 180.0,
        "limit_bytes": 1 << 29,
    }
    status["dead"] = {"files": 1, "bytes": 2048}
    status["recorded"] = 22
    status["dropped"] = {"disk": 2, "refused": 1}
    return status


def test_status_is_a_screen_of_facts_with_units_and_remedies() -> None:
    lines = [click.unstyle(line) for line in status_lines({**sound(), "version": "9"})]
    assert lines == [
        "fallom 9, /x",
        "flusher     alive: pid 7, version 1.2.3, beat 0.2 s ago",
        "spool       3 record(s) wait, the oldest for 3 min; 8.0 KiB of 512.0 MiB in 2 file(s)",
        "delivered   12 spans, 3 metrics, 4 exposures; 12 ms a batch",
        "recorded    22",
        "dropped     2 disk, 1 refused",
        "            disk: The disk was full or read-only; free space, recording resumes by itself.",
        "            refused: The server refused these; `fallom dead ls` says why.",
        "dead        2.0 KiB: `fallom dead ls`",
        "snapshot    changed 2 h ago, fetched 3.0 s ago",
        "last error  -",
    ]


def test_a_status_in_prometheus_s_form_is_read_by_prometheus_s_parser() -> None:
    status = {**sound(), "namespace": 'a"b\\c'}
    families = {f.name: f for f in text_string_to_metric_families(prometheus_text(status))}
    samples = {
        (s.name, s.labels.get("destination") or s.labels.get("reason")): s.value
        for family in families.values()
        for s in family.samples
    }
    assert samples["fallom_delivered_total", "spans"] == 12
    assert samples["fallom_dropped_total", "disk"] == 2
    assert samples["fallom_lag_seconds", None] == 180.0
    assert samples["fallom_waiting_records", None] == 3
    assert samples["fallom_delivery_seconds_total", None] == 1.5
    assert samples["fallom_flusher_up", None] == 1
    assert samples["fallom_recorded_total", None] == 22
    assert families["fallom_delivered"].type == "counter"
    assert families["fallom_lag_seconds"].type == "gauge"
    assert {s.labels["namespace"] for f in families.values() for s in f.samples} == {'a"b\\c'}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_alive": False}, "fallom flusher --once"),
        ({"paused_s": 30.0}, "30.0 s: HTTP 401"),
    ],
)
def test_trouble_is_told_with_what_to_do(change: dict[str, Any], words: str) -> None:
    status = {**sound(), "last_error": "HTTP 401"}
    assert list(troubles(status)) == []
    (trouble,) = troubles({**status, "flusher": {**status["flusher"], **change}})
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
        elsewhere = run({**environ, "FALLOM_API_KEY": "another"}, "-m", "fallom", "status")
        assert elsewhere.returncode == 0
        assert "`fallom status --namespace ID` shows it" in elsewhere.stdout
        assert re.search(r"--namespace \w{16}: no flusher, [1-9]\d* B unsent", elsewhere.stdout)
        assert cloud.stats()["spans"]["received"] == 0

        once = run(environ, "-m", "fallom", "flusher", "--once")
        assert once.returncode == 0, once.stderr
        assert cloud.stats()["spans"] == {"received": 1, "distinct": 1}
        after = run(environ, "-m", "fallom", "status", "--json")
        assert after.returncode == 0
        status = json.loads(after.stdout)
        assert status["sent"]["metrics_accepted"] == 1
        assert status["state_dir"].startswith(str(tmp_path))
        assert status["recorded"] == 1
        assert status["troubles"] == status["others"] == []
        key = {"FALLOM_API_KEY": "other"}
        elsewhere = run({**environ, **key}, "-m", "fallom", "status")
        assert f"--namespace {status['namespace']}" in elsewhere.stdout
        named = run(
            {**environ, **key}, "-m", "fallom", "status", "--namespace", status["namespace"][:5]
        )
        assert "1 metrics" in named.stdout


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
