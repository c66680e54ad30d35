"""The README's code runs as printed, against the local cloud; its table has the real settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fallom._core import settings
from fallom.dev.server import LocalCloud
from tests.support.flushers import wait_for
from tests.support.scripts import ROOT, run_script

README = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT_PAGE = (ROOT / "docs/index.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
QUICK_START = next(snippet for snippet in SNIPPETS if "wrap_openai" in snippet)

# What the reader of a later snippet has from an earlier one.
PRELUDE = 'import fallom\nsession_id = "session-123"\n'


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    """The local cloud with its sample, as ``fallom dev`` starts it."""
    with LocalCloud(db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        # A busy machine may need longer than a second for the first flusher; readers have an idle one.
        monkeypatch.setenv("FALLOM_COLD_START_TIMEOUT", "30")
        yield running


def test_the_quick_start_runs_as_printed_and_its_call_arrives(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    run_script(QUICK_START, tmp_path)
    (span,) = wait_for(cloud.spans)
    assert span["name"] == "chat gpt-4o"
    attributes = span["attributes"]
    assert attributes["fallom.config_key"] == "my-app"
    assert attributes["fallom.session_id"] == "session-123"
    assert attributes["fallom.customer_id"] == "user-456"
    assert "Hello!" in attributes["gen_ai.input.messages"]


def test_the_program_of_the_front_page_runs_as_printed_and_its_call_arrives(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", FRONT_PAGE, flags=re.DOTALL)
    run_script(code, tmp_path)
    (span,) = wait_for(cloud.spans)
    assert span["name"] == "chat gpt-4o"
    assert span["attributes"]["fallom.session_id"] == "session-123"


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs_as_printed(cloud: LocalCloud, tmp_path: Path, number: int) -> None:
    run_script(PRELUDE + SNIPPETS[number], tmp_path)


def test_the_table_of_settings_has_each_parameter_with_its_variable() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", README, flags=re.MULTILINE))
    table = settings.PARAMETERS.items()
    expected = {name: variables[0] for name, (_, variables, _) in table if variables}
    assert rows == expected
    for name in settings.PARAMETERS:
        assert f"\n| `{name}` |" in README
