"""The pages about servers: their application and command are started as printed, and deliver."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
from tests.support.flushers import wait_for
from tests.support.hosts import Connection, Host
from tests.support.scripts import ROOT

PAGES = ["gunicorn", "uwsgi", "uvicorn"]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        yield running


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / f"docs/hosts/{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_a_server_is_set_up_as_printed_and_what_it_records_arrives(
    page: str, cloud: LocalCloud, tmp_path: Path
) -> None:
    (code,), (line,) = blocks(page, "python"), blocks(page, "bash")
    (tmp_path / "app.py").write_text(code)
    program, *options = shlex.split(line.replace("8000", "{port}"))
    # What the page's reader does, who has activated the environment.
    path = f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"
    named = ["--virtualenv", sys.prefix] if program == "uwsgi" else []
    found = Path(sys.executable).parent / program
    command = [str(found)] if found.exists() else [sys.executable, "-m", program]
    with Host([*command, *named, *options], tmp_path, environ={"PATH": path}, path="/c-0") as host:
        with Connection(host.port) as connection:
            connection.read("/c-1")
        wait_for(lambda: {"c-1", "/c-1"} & _sessions(cloud), 30)
        host.stop()


def _sessions(cloud: LocalCloud) -> set[str]:
    return {row["attributes"]["fallom.session_id"] for row in cloud.spans()}
