"""A collector that was not written here, as an extra target, beside one that is dead."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import trace
from fallom.dev.server import LocalCloud
from tests.support.flushers import wait_for
from tests.support.hosts import free_port

COUNT = 3000
DEAD_BUDGET_BYTES = 1 << 20

ROTEL = importlib.util.find_spec("rotel")
pytestmark = pytest.mark.skipif(ROTEL is None, reason="no rotel: pip install 'rotel>=0.0.1a15'")


@pytest.fixture
def behind(folder: Path, tmp_path: Path) -> Iterator[LocalCloud]:
    """The backend behind the collector."""
    with LocalCloud(folder, db=tmp_path / "behind.db") as running:
        yield running


@pytest.fixture
def collector(behind: LocalCloud, tmp_path: Path) -> Iterator[str]:
    """The URL of a collector's OTLP/HTTP receiver; it forwards to ``behind``."""
    assert ROTEL is not None
    assert ROTEL.origin is not None
    port = free_port()
    command = [
        str(Path(ROTEL.origin).parent / "rotel-agent"),
        *("start", "--exporter", "otlp"),
        *("--otlp-http-endpoint", f"127.0.0.1:{port}"),
        *("--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"),
        *("--otlp-exporter-protocol", "http"),
        *("--otlp-exporter-endpoint", behind.url),
    ]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    environ["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))  # where its Python is
    with (tmp_path / "rotel.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_for(lambda: is_open(port), 30, what="the collector")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def numbers(cloud: LocalCloud) -> list[int]:
    return sorted(int(row["attributes"]["fallom.session_id"][1:]) for row in cloud.spans())


def test_a_collector_gets_everything_while_a_dead_target_keeps_to_its_own_budget(
    cloud: LocalCloud,
    behind: LocalCloud,
    collector: str,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FALLOM_TRACES_EXTRA_COLLECTOR_URL", collector)
    monkeypatch.setenv("FALLOM_TRACES_EXTRA_GONE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("FALLOM_TRACES_EXTRA_GONE_BYTES_MAX", str(DEAD_BUDGET_BYTES))
    fallom.init(segment_bytes_max=1 << 16)
    for start in range(0, COUNT, 500):
        for number in range(start, start + 500):
            data = {"number": number, "text": "x" * 1000}
            trace.span(data, config_key="app", session_id=f"s{number}")
        assert fallom.flush(60) == 0, "the main target alone is waited for"

    everything = list(range(COUNT))
    assert numbers(cloud) == everything
    wait_for(lambda: targets()["collector"]["waiting_records"] == 0, 60, what="the collector")
    wait_for(lambda: numbers(behind) == everything, 60, what="all of it behind the collector")
    (arrived,) = (row for row in behind.spans() if row["attributes"]["fallom.session_id"] == "s7")
    assert arrived["attributes"]["fallom.metric.number"] == 7

    def is_kept_to() -> bool:
        gone = targets()["gone"]
        lost = int(gone["dropped"].get("budget", 0))
        return lost > 0 and gone["waiting_records"] + lost == COUNT

    wait_for(is_kept_to, what="the dead one's records to wait or to be counted")
    gone = targets()["gone"]
    assert gone["accepted"] == 0
    assert gone["waiting_records"] > 0
    # A segment that is written to stays, and what one look's time brings.
    assert gone["unaccepted_bytes"] <= 2 * DEAD_BUDGET_BYTES
    assert targets()["collector"]["dropped"] == {}
    assert fallom.status()["dropped"] == {}


def targets() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in fallom.status()["targets"]}
