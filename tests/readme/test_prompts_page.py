"""The page about prompts: its code runs as printed, and its tables have what the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml

from fallom._core.prompt import ROLES
from fallom.prompts import MissingPolicy
from tests.support.scripts import ROOT, run_script

PAGE = (ROOT / "docs" / "prompts.md").read_text(encoding="utf-8")
SERVED = """
from fallom.testing import capture
onboarding = {"system": "You help customers of {{company}}.", "user": "Welcome {{user_name}}."}
captured = capture(prompts={"onboarding": onboarding, "classifier": CLASSIFIER})
captured.__enter__()
"""


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    (classifier,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    messages = yaml.safe_load(classifier)["messages"]
    code = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(code) == 5
    shown = run_script("\n".join([f"CLASSIFIER = {messages!r}", SERVED, *code]), tmp_path)
    assert "the prompt is not known on this host" in shown
    assert "('user_name',) ('user_nmae',)" in shown


def test_the_page_names_each_policy_and_each_role() -> None:
    for name in get_args(MissingPolicy):
        assert f'| `"{name}"`' in PAGE
    for role in ROLES:
        assert f"`{role}`" in PAGE
