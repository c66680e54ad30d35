"""A table: what one benchmark found, as rows for people and for programs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Table", "percentile", "summarised"]


@dataclass
class Table:
    """One benchmark's result."""

    name: str
    title: str
    columns: tuple[str, ...]  # of rows, in the order of the Markdown; other fields are in the JSON
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)  # for the plots; not in the JSON

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
        row.update(
            p50=percentile(singles, 0.5),
            p99=percentile(singles, 0.99),
            **{"p99.9": percentile(singles, 0.999)},
        )
    return row


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        if value and abs(value) < 0.1:
            return f"{value:.2g}"
        return (
            f"{value:,.2f}"
            if abs(value) < 10
            else f"{value:,.1f}"
            if abs(value) < 100
            else f"{value:,.0f}"
        )
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
