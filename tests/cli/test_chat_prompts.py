"""Prompts of messages on their way: a folder, the local cloud, a worker, and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import fallom
from fallom import prompts
from fallom.dev.server import LocalCloud
from tests.support.commands import fallom as run

CHAT = """
messages:
  - {role: system, content: "Answer with one word of: {{labels}}."}
  - {role: user, content: "It is broken."}
  - {role: assistant, content: "defect"}
  - {role: user, content: "{{question}}"}
"""
VARIABLES = ("--var", "labels=defect, other", "--var", "question=How?")


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    (tmp_path / "folder/prompts").mkdir(parents=True)
    (tmp_path / "folder/prompts/chat.yaml").write_text(CHAT)
    with LocalCloud(folder=tmp_path / "folder", db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_LINGER", "1")
        fallom.init()
        assert fallom.wait_until_ready(20)
        yield running


@pytest.mark.usefixtures("cloud")
def test_worker_and_commands_give_the_messages_of_the_folder() -> None:
    found = prompts.get("chat", {"labels": "defect, other", "question": "How?"})
    assert [message["role"] for message in found.messages] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert (found.system, found.user) == ("Answer with one word of: defect, other.", "How?")
    assert "labels, question" in run("prompts", "ls").stdout
    shown = run("prompts", "show", "chat").stdout
    parts = [line for line in shown.splitlines() if line.startswith("---")]
    assert parts == ["--- system", "--- user", "--- assistant", "--- user"]
    rendered = run("prompts", "render", "chat", *VARIABLES).stdout
    assert rendered.splitlines()[1::2] == [message["content"] for message in found.messages]
    told = json.loads(run("prompts", "render", "chat", *VARIABLES, "--json").stdout)
    assert told["messages"] == found.messages
    assert (told["missing"], told["unused"]) == ([], [])


@pytest.mark.usefixtures("cloud")
def test_command_tells_what_was_missing_and_what_was_over() -> None:
    ended = run("prompts", "render", "chat", "--var", "labels=a", "--var", "qestion=b")
    assert "without a value: question" in ended.stderr
    assert "in no placeholder: qestion" in ended.stderr
    assert "{{question}}" in ended.stdout


def test_page_of_the_local_cloud_shows_the_messages(cloud: LocalCloud) -> None:
    import httpx

    page = httpx.get(f"{cloud.url}/ui/served").text
    assert "It is broken." in page
    assert '<p class="role">assistant</p>' in page
