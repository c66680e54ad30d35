"""The pages that quote results: their markers are pairs, and name tables that exist."""

from __future__ import annotations

import re

from benchmarks.__main__ import tables
from benchmarks.budgets import judged
from benchmarks.report import PAGES, RESULTS, stored

NOT_MEASURED = {"budgets", "summary", "versions"}


def test_every_marked_block_is_closed_and_names_a_benchmark() -> None:
    names = set(tables())
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        opened = re.findall(r"<!-- bench:(\w+) -->", text)
        assert opened, page
        assert opened == re.findall(r"<!-- bench:/(\w+) -->", text), page
        assert set(opened) <= names | NOT_MEASURED, page


def test_every_benchmark_is_quoted_by_a_page() -> None:
    quoted = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in tables() if f"<!-- bench:{name} -->" not in quoted] == []


def test_no_two_budgets_have_one_name() -> None:
    rows = [row["row"] for row in judged(stored(RESULTS)).rows]
    assert len(rows) >= 20
    assert len(set(rows)) == len(rows)
