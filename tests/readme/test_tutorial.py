"""The tutorial: its files and commands, in their order, do what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from fallom.dev.server import LocalCloud
from tests.support.flushers import wait_for
from tests.support.scripts import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
# Language and text of each block, in order. A file's first line is a comment with its name.
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, flags=re.DOTALL)
FILES = [
    (name[1], text) for _, text in BLOCKS if (name := re.match(r"# (\S+\.\w+)\n", text)) is not None
]
SAID = [text for language, text in BLOCKS if language == "text"]


class Reader:
    """Somebody who follows the page: writes its files as they come, and runs its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = iter(FILES)
        for name in ("configs", "prompts", "prompt-ab-tests"):
            (folder / "cloud" / name).mkdir(parents=True)

    def write(self, *expected: str) -> None:
        """Write the page's next files, which are these."""
        for each in expected:
            name, text = next(self._files)
            assert name == each
            # This reader has no time to look at the page meanwhile.
            (self.folder / name).write_text(text.replace("sleep(0.05)", "sleep(0.01)"), "utf-8")

    def start(self, *command: str) -> subprocess.Popen[str]:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str) -> str:
        with self.start(*command) as process:
            out, _ = process.communicate(timeout=100)
        assert process.returncode == 0, out
        return out


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    folder = tmp_path / "reader"
    folder.mkdir()
    return Reader(folder)


@pytest.fixture
def cloud(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    with LocalCloud(reader.folder / "cloud", db=tmp_path / "cloud.db") as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FALLOM_SYNC_INTERVAL", "1")
        monkeypatch.setenv("FALLOM_LINGER", "2")
        yield running


def lines_until(stream: IO[str], pattern: str) -> list[str]:
    """Read lines until one matches; the test's own timeout bounds it."""
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    raise AssertionError(f"ended without {pattern!r}:\n{''.join(lines)}")


def page_of(cloud: LocalCloud, path: str) -> str:
    with urllib.request.urlopen(cloud.url + path, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def test_the_page_is_followed_to_its_end(reader: Reader, cloud: LocalCloud) -> None:
    reader.write("cloud/configs/assistant.yaml", "first.py")
    assert reader.run("first.py") == SAID[0]
    (span,) = wait_for(cloud.spans)
    assert span["attributes"]["fallom.session_id"] == "chat-0"

    reader.write("assistant.py", "visitors.py")
    visitors = reader.start("visitors.py")
    try:
        assert visitors.stdout is not None
        assert lines_until(visitors.stdout, "chats 61 to 120") == SAID[1].splitlines(keepends=True)
        wait_for(lambda: "helped" in page_of(cloud, "/ui/experiment/config/assistant"))

        reader.write("cloud/configs/assistant.yaml")
        lines_until(visitors.stdout, r"'gpt-4o': (3[89]|4\d|5\d)")
        explained = reader.run("-m", "fallom", "configs", "explain", "assistant", "chat-1")
        assert "version 2" in explained

        reader.write("cloud/prompts/support.yaml", "cloud/prompt-ab-tests/support-test.yaml")
        wait_for(lambda: "support-test" in reader.run("-m", "fallom", "prompts", "ls"))
    finally:
        visitors.terminate()
        visitors.wait(30)
        visitors.communicate()

    reader.write("assistant.py")
    with reader.start("visitors.py") as visitors:
        wait_for(
            lambda: [
                row
                for row in cloud.spans()
                if row["attributes"].get("fallom.prompt_ab_test") == "support-test"
            ]
        )
        visitors.terminate()

    reader.write("test_assistant.py", "pytest.ini")
    assert SAID[2].strip() in reader.run("-m", "pytest", "-q", "-p", "no:randomly")


def test_every_file_of_the_page_was_written_by_the_test_above() -> None:
    assert len(FILES) == 10
    assert len(SAID) == 3
