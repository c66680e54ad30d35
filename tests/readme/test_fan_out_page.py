"""The page about several backends: its program and its environment say the same, and can be used."""

from __future__ import annotations

import re
import shlex
from typing import Any

import click
import pytest

import fallom
from fallom._core.outcome import judge
from fallom._core.settings import resolve_settings
from fallom._runtime import current
from fallom.cli.status import status_lines
from tests.support.scripts import ROOT

PAGE = (ROOT / "docs" / "fan-out.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_program_and_the_environment_name_the_same_targets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FALLOM_FLUSHER", "external")
    exec(compile(block("python"), "fan-out.md", "exec"), {})
    environ = dict(word.split("=", 1) for word in shlex.split(block("sh")))
    targets = current().settings.extra_targets
    assert resolve_settings({}, environ).extra_targets == targets
    assert [each.name for each in targets] == ["langfuse", "phoenix"]
    assert targets[0].headers == {"Authorization": "Basic cGs6c2s="}
    assert (targets[0].bytes_max, targets[0].age_max_s) == (256 << 20, 172_800.0)


def test_what_it_says_of_the_status_is_there() -> None:
    status: dict[str, Any] = {**fallom.status(), "others": [], "snapshot": {"generation": 0}}
    assert status["targets"] == []
    said = f"traces to phoenix: {judge(503, {}, 0, 0.0).reason}; everything is kept and sent later"
    numbers = {"accepted": 1200, "waiting_records": 340, "unaccepted_bytes": 1_153_434}
    status["targets"] = [
        {
            "name": "phoenix",
            **numbers,
            "limit_bytes": 128 << 20,
            "dropped": {},
            "paused_s": None,
            "last_error": said,
        }
    ]
    assert block("text").rstrip() in [click.unstyle(line) for line in status_lines(status)]
