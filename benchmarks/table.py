"""A table: what one benchmark found, as rows for people and for programs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SHARES", "Table", "distribution", "percentile", "percentiles", "summarised"]

SHARES = tuple(1 - 10 ** (-step / 20) for step in range(91))  # as the plot has them, evenly
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@dataclass
class Table:
    """One benchmark's result."""

    name: str
    title: str
    columns: Sequence[str]  # of rows, in the order of the Markdown; other fields are in the JSON
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)  # for the plots
    about: dict[str, Any] = field(default_factory=dict)  # when, where and of what it was measured

    def row(self, name: str) -> dict[str, Any]:
        """Give the row of that name.

        Raises:
            KeyError: There is none.
        """
        for row in self.rows:
            if row["row"] == name:
                return row
        raise KeyError(name)

    def markdown(self) -> str:
        """Give the table, its notes under it."""
        lines = [
            "| " + " | ".join(("", *self.columns)) + " |",
            "| --- " + "| ---: " * len(self.columns) + "|",
        ]
        for row in self.rows:
            cells = [str(row["row"]), *(_cell(row.get(column)) for column in self.columns)]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give a percentile of values in ascending order."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def distribution(ordered: Sequence[float]) -> list[float]:
    """Give the percentiles of ``SHARES`` that so many values can tell, for a plot of the tail."""
    told = [share for share in SHARES if len(ordered) * (1 - share) >= 1]
    return [float(f"{percentile(ordered, share):.4g}") for share in told]


def percentiles(ordered: Sequence[float]) -> dict[str, float]:
    """Give the three that the tables have."""
    return {name: percentile(ordered, share) for name, share in PERCENTILES.items()}


def summarised(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a row's figures of the rounds of one contestant: medians, and percentiles of single calls."""

    def median(value: Any) -> float:
        return statistics.median(value(each) for each in rounds)

    singles = sorted(ns / 1000 for each in rounds for ns in each["singles_ns"])
    row: dict[str, Any] = {
        "us": median(lambda r: r["wall_ns"]) / 1000,
        "x cal": median(lambda r: r["wall_ns"] / r["cal_wall_ns"]),
        "CPU us": median(lambda r: r["cpu_ns"]) / 1000,
        "CPU x cal": median(lambda r: r["cpu_ns"] / r["cal_cpu_ns"]),
        "CPU us in all": median(lambda r: r["all_cpu_ns"]) / 1000,
        "cal us": median(lambda r: r["cal_cpu_ns"]) / 1000,
        "repeats": len(rounds),
    }
    if singles:
        row.update(percentiles(singles))
    return row


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        if value and abs(value) < 0.1:
            return f"{value:.2g}"
        return f"{value:,.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
