"""What the pages name is there: commands with their options, scripts, files, a test for each code."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

from fallom.cli import flusher
from fallom.cli.commands import root
from tests.support.scripts import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
# A page with code -> the module here that runs it.
RUN_BY = {
    "README.md": "test_readme",
    "docs/backends/datadog.md": "test_backend_pages",
    "docs/backends/grafana-tempo.md": "test_backend_pages",
    "docs/backends/langfuse.md": "test_backend_pages",
    "docs/backends/opentelemetry-collector.md": "test_backend_pages",
    "docs/backends/phoenix.md": "test_backend_pages",
    "docs/context.md": "test_host_pages",
    "docs/fan-out.md": "test_fan_out_page",
    "docs/hosts/batch.md": "test_host_pages",
    "docs/hosts/celery.md": "test_host_pages",
    "docs/hosts/gunicorn.md": "test_server_pages",
    "docs/hosts/multiprocessing.md": "test_host_pages",
    "docs/hosts/uvicorn.md": "test_server_pages",
    "docs/hosts/uwsgi.md": "test_server_pages",
    "docs/how-it-works/experiments.md": "test_explanation_pages",
    "docs/index.md": "test_readme",
    "docs/migration/from-opentelemetry.md": "test_migration_pages",
    "docs/operations.md": "test_operations_pages",
    "docs/prompts.md": "test_prompts_page",
    "docs/testing.md": "test_testing_page",
    "docs/tutorial.md": "test_tutorial",
}


def commands() -> list[tuple[str, str]]:
    """Give each command line of fallom that stands in a page, with the page."""
    found: dict[tuple[str, str], None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [
            line.partition("  #")[0]
            for block in re.findall(r"```(?:bash|cron)\n(.*?)```", text, flags=re.DOTALL)
            for line in block.splitlines()
        ]
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in lines:
            if of_fallom := re.match(r"(?:.*/bin/|)(fallom [^|>]*)", line.rpartition("&& ")[2]):
                found[(of_fallom[1].strip(), str(page.relative_to(ROOT)))] = None
    return list(found)


@pytest.mark.parametrize(("line", "page"), commands())
def test_a_command_and_its_options_exist(line: str, page: str) -> None:
    command: click.Command = root
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name.isupper():  # "COMMAND", for any
            return
        assert name in command.commands, f"{page}: there is no {line!r}"
        command = command.commands[name]
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    if command.name == "flusher":  # works without click, so that its options are argparse's
        options |= set(re.findall(r"--[a-z-]+", inspect.getsource(flusher)))
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= options | {"-h", "--help"}, f"{page}: {line!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:scripts|tests|fallom|examples|docs|benchmarks)/[\w./-]*\w)/?`", text)
    named += re.findall(r"^(scripts/\w+)", text, re.MULTILINE)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_each_page_with_code_is_run_by_a_test() -> None:
    with_code = {
        str(page.relative_to(ROOT)) for page in PAGES if "```python" in page.read_text("utf-8")
    }
    assert with_code == set(RUN_BY)
    for page, module in RUN_BY.items():
        text = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        assert Path(page).stem in text, f"{module} does not read {page}"
