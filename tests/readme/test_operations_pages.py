"""The pages for operators: commands exist, snippets run, and the tables have what the code has."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import fallom
from fallom._core.settings import resolve_settings
from fallom.cli.commands import root
from fallom.cli.prometheus import prometheus_text
from fallom.cli.status import host_status
from fallom.dev.server import LocalCloud
from tests.support.commands import fallom as run
from tests.support.scripts import ROOT, run_script

CLI = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def lines(page: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL)
    found = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in found if line.startswith("fallom ")]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        fallom.init()
        assert fallom.wait_until_ready(20)
        yield running


def names_of(group: click.Group, prefix: str = "fallom") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from names_of(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


def test_every_command_is_on_the_page() -> None:
    for name in names_of(root):
        *group, last = name.split()
        row = next(
            (line for line in CLI.splitlines() if " ".join(group) in line and last in line), ""
        )
        assert row, f"{name} is not in docs/cli.md"


@pytest.mark.parametrize(
    "line", [line for line in lines(CLI) if "explain" in line or "prompts" in line]
)
def test_a_command_of_the_page_runs(cloud: LocalCloud, line: str) -> None:
    ended = run(*shlex.split(line)[1:])
    # Of a time before this test's host existed nothing is kept, which it says.
    assert ended.returncode == (1 if "--at" in line else 0), ended.stderr
    assert ended.stderr == ""


def test_the_bootstrap_of_the_page_serves(cloud: LocalCloud, tmp_path: Path) -> None:
    assert run("configs", "export", str(tmp_path / "bootstrap.json")).returncode == 0
    (snippet,) = re.findall(r"```python\n(.*?)```", OPERATIONS, flags=re.DOTALL)
    elsewhere = {"FALLOM_BASE_URL": "http://127.0.0.1:9", "FALLOM_CONFIGS_URL": ""}
    run_script(f"import os\nos.chdir({str(tmp_path)!r})\n{snippet}", tmp_path, elsewhere)


def test_the_table_of_metrics_has_each_metric() -> None:
    told = set(re.findall(r"fallom_[a-z_]+", OPERATIONS))
    status = host_status(None, resolve_settings({}, os.environ))
    status["dropped"] = {"disk": 1}
    status["snapshot"] = {"generation": 1, "age_s": 1.0, "checked_age_s": 1.0}
    exist = set(re.findall(r"^# TYPE (\w+)", prometheus_text(status), flags=re.MULTILINE))
    assert told <= exist
    assert exist - told <= {"fallom_flusher_starts_total", "fallom_sampled_out_total"}
