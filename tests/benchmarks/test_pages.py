"""The pages that quote results: their markers are pairs, and name tables that exist."""

from __future__ import annotations

import importlib
import re

from benchmarks.__main__ import CASES
from benchmarks.report import PAGES

NOT_MEASURED = {"budgets", "summary", "versions"}


def test_every_marked_block_is_closed_and_names_a_benchmark() -> None:
    names = {n for case in CASES for n in importlib.import_module(f"benchmarks.cases.{case}").NAMES}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        opened = re.findall(r"<!-- bench:(\w+) -->", text)
        assert opened, page
        assert opened == re.findall(r"<!-- bench:/(\w+) -->", text), page
        assert set(opened) <= names | NOT_MEASURED, page
