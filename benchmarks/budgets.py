"""The budgets, and whether the stored results keep to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.table import Table

__all__ = ["judged", "summary"]


@dataclass(frozen=True)
class Budget:
    """At most (or at least) so much of one column of one row."""

    table: str
    row: str  # how it begins
    column: str
    limit: float
    is_floor: bool = False  # the limit is what must be reached
    ending: str = ""  # how the row ends, where the table has a row of several kinds


BUDGETS = (
    Budget("models", "**fallom**", "CPU x cal", 2.5),
    Budget("models", "**fallom**", "x floor", 1.6),
    Budget("models_first", "**fallom**", "CPU x cal", 8),
    Budget("prompts", "**fallom** `prompts.get`", "CPU x cal", 4.5),
    Budget("span", "**fallom**", "CPU x cal", 8),
    Budget("span", "**fallom**", "CPU us", 6),
    Budget("span", "**fallom**", "x floor", 1.5),
    Budget("flood", "**fallom**", "p99 x floor", 2),
    Budget("flood", "**fallom**", "kept %", 100, True),
    Budget("processes", "**fallom**", "kept %", 100, True),
    *(
        Budget("flusher", "**fallom**", column, limit, True, kind)
        for kind in ("10 attributes", "calls to a model")
        for column, limit in (("spans a CPU s", 40_000), ("x OpenTelemetry", 5))
    ),
    Budget("imports", "**fallom**", "CPU ms more", 40),
    Budget("imports", "**fallom**", "MiB more", 6),
    Budget("snapshot", "10000 prompts", "refresh ms", 10),
    Budget("llm", "**fallom**", "of best peer %", 25, ending="create"),
    Budget("llm", "**fallom**", "of best peer %", 25, ending="stream"),
    Budget("llm", "**fallom**", "of best peer %", 25, ending="async"),
    Budget("web", "**fallom**", "p99 x none", 1.05),
    Budget("idle", "**fallom**", "CPU ms a minute", 0.0, ending="4 workers"),
    Budget("idle", "**fallom**", "% of a core", 0.1, ending="flusher of the host"),
)


def judged(tables: Mapping[str, Table]) -> Table:
    """Give a row for each budget whose benchmark was run."""
    found = Table("budgets", "Against the budgets", ("measured", "budget", "kept to"))
    for budget in BUDGETS:
        rows = tables[budget.table].rows if budget.table in tables else []
        values = [
            row[budget.column]
            for row in rows
            if row["row"].startswith(budget.row)
            and row["row"].endswith(budget.ending)
            and row.get(budget.column) is not None
        ]
        if not values:
            continue
        about = [text for text in (tables[budget.table].title, budget.ending) if text]
        worst = min(values) if budget.is_floor else max(values)
        is_kept = worst >= budget.limit if budget.is_floor else worst <= budget.limit
        found.rows.append(
            {
                "row": ": ".join((*about, budget.column)),
                "measured": worst,
                "budget": f"{'>=' if budget.is_floor else '<='} {budget.limit:,g}",
                "kept to": "yes" if is_kept else "**no**",
            }
        )
    return found


SUMMARY = (
    ("`models.get`, warm", "models", "CPU x cal", "x cal", "fallom 0.2.7", "Statsig Rust core, e"),
    (
        "`models.get`, first of a session: on disk",
        "models_first",
        "CPU x cal",
        "x cal",
        "GrowthBook",
        "",
    ),
    ("`prompts.get`, 5 variables", "prompts", "CPU x cal", "x cal", "langfuse", "jinja2"),
    (
        "`trace.span`, 10 attributes: on disk",
        "span",
        "CPU x cal",
        "x cal",
        "OpenTelemetry",
        "ddtrace",
    ),
    ("spans kept in a flood from 8 threads", "flood", "kept %", "%", "OpenTelemetry", "ddtrace"),
    ("flusher, spans a CPU second", "flusher", "spans a CPU s", "", "OpenTelemetry", ""),
    ("`import` and `init`", "imports", "CPU ms more", "ms CPU", "OpenTelemetry", "fallom 0.2.7"),
    ("a wrapped LLM call, overhead", "llm", "overhead us", "us CPU", "OpenTelemetry", "langfuse"),
    (
        "a web request's p99 while a backlog is sent",
        "web",
        "p99 x none",
        "x none",
        "OpenTelemetry",
        "",
    ),
    (
        "four idle workers, wake-ups a minute",
        "idle",
        "wake-ups a minute",
        "",
        "OpenTelemetry",
        "ddtrace",
    ),
)


def summary(tables: Mapping[str, Table]) -> Table:
    """Give the few figures that the README quotes."""
    found = Table("summary", "Figures", ("unit", "fallom", "floor", "beside"))
    for what, name, column, unit, *peers in SUMMARY:
        if name not in tables:
            continue
        rows = [row for row in tables[name].rows if row.get(column) is not None]

        def first(start: str, among: list[dict[str, Any]] = rows, of: str = column) -> Any:
            return next((row[of] for row in among if start and row["row"].startswith(start)), None)

        beside = [
            f"{row['row'].split(',')[0]} {_short(row[column])}"
            for peer in peers
            for row in [next((r for r in rows if peer and r["row"].startswith(peer)), None)]
            if row is not None
        ]
        found.rows.append(
            {
                "row": what,
                "unit": unit,
                "fallom": first("**fallom**"),
                "floor": first("floor"),
                "beside": "; ".join(beside),
            }
        )
    return found


def _short(value: float) -> str:
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"
