"""Experiments: how sessions were shared out among variants, and what became of them.

The unit is the session: it is what is assigned, and calls of one session are alike. Sessions that
targeting decided stand beside the draw, not in it: their shares are nobody's weights.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fallom.dev.page.plots import Drawing, interval_plot, share_plot
from fallom.dev.page.shown import shown_count, shown_ms, shown_number, shown_share
from fallom.dev.page.statistics import (
    Interval,
    Mismatch,
    mean_interval,
    median_interval,
    share_interval,
    share_mismatch,
)

__all__ = ["Experiment", "Measure", "Variant", "list_experiments", "read_experiment"]

CONFIG: Final = "config"
TEST: Final = "prompt_ab_test"
_SESSIONS_MAX: Final = 20_000  # the newest; more tell no more about a development machine
_METRICS_MAX: Final = 12  # fields that are drawn


class Variant(NamedTuple):
    """A variant, and the sessions that got it."""

    position: int
    label: str
    weight: float  # per cent
    drawn: int  # sessions by weight: those that the weights speak of
    targeted: int
    share: Interval


class Measure(NamedTuple):
    """Something that was measured, for each variant."""

    title: str
    method: str
    plot: Drawing
    rows: list[tuple[str, Interval, str]]  # variant, interval, as text


class Experiment(NamedTuple):
    """A config or prompt A/B test, in one version."""

    kind: str
    key: str
    version: int
    versions: list[int]
    variants: list[Variant]
    mismatch: Mismatch
    unknown: int  # sessions of which is not known whether targeting decided
    elsewhere: int  # sessions that got something that is no variant of this version
    plot: Drawing
    measures: list[Measure]
    is_served: bool

    @property
    def sessions(self) -> int:
        """How many sessions were assigned a variant."""
        return sum(variant.drawn + variant.targeted for variant in self.variants)


class _Session(NamedTuple):
    session_id: str
    variant: int
    is_drawn: bool


def list_experiments(
    index: sqlite3.Connection, current: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[Experiment]:
    """Give all experiments that are served or have sessions, without what was measured.

    Args:
        index: The index.
        current: What is served: (kind, key) -> entry.
    """
    keys = set(current)
    query = "SELECT DISTINCT kind, key FROM assignment"
    keys |= {(row["kind"], row["key"]) for row in index.execute(query)}
    found = (read_experiment(index, current, *place, None, False) for place in sorted(keys))
    return [experiment for experiment in found if experiment is not None]


def read_experiment(
    index: sqlite3.Connection,
    current: Mapping[tuple[str, str], Mapping[str, Any]],
    kind: str,
    key: str,
    version: int | None,
    is_measured: bool = True,
) -> Experiment | None:
    """Give one experiment; None when nothing is known of it.

    Args:
        index: The index.
        current: What is served: (kind, key) -> entry.
        kind: "config" or "prompt_ab_test".
        key: Its key.
        version: Of it; None for the one that is served, or the newest known.
        is_measured: Whether latency, tokens and metrics are read too.
    """
    contents = _contents(index, kind, key)
    served = current.get((kind, key))
    if served is not None:
        contents.setdefault(served["version"], (dict(served), 0))
    versions = sorted(contents)
    if kind == CONFIG:
        query = "SELECT DISTINCT version FROM assignment WHERE kind = ? AND key = ?"
        versions = sorted({*versions, *(row[0] for row in index.execute(query, (kind, key)))})
    if not versions:
        return None
    if version not in versions:
        version = served["version"] if served is not None else versions[-1]
    entry = contents.get(version, ({"variants": []}, 0))[0]
    labels = _labels(kind, entry)
    sessions, unknown, elsewhere = _sessions(index, kind, key, version, entry, contents)
    drawn, targeted = _counts(sessions, len(labels))
    weights = [float(variant["weight"]) for variant in entry["variants"]]
    variants = [
        Variant(i, label, weights[i], drawn[i], targeted[i], share_interval(drawn[i], sum(drawn)))
        for i, label in enumerate(labels)
    ]
    whole = sum(weights) or 1.0
    bars = [(variant.share, variant.weight / whole, variant.position) for variant in variants]
    return Experiment(
        kind,
        key,
        version,
        versions,
        variants,
        share_mismatch(drawn, weights),
        unknown,
        elsewhere,
        share_plot(bars) if bars and is_measured else Drawing(""),
        _measures(index, kind, key, version, sessions, labels) if is_measured else [],
        served is not None and served["version"] == version,
    )


def _contents(
    index: sqlite3.Connection, kind: str, key: str
) -> dict[int, tuple[dict[str, Any], int]]:
    query = "SELECT version, content, first_ns FROM served WHERE kind = ? AND key = ?"
    rows = index.execute(query, (kind, key))
    return {row["version"]: (json.loads(row["content"]), row["first_ns"]) for row in rows}


def _labels(kind: str, entry: Mapping[str, Any]) -> list[str]:
    if kind == CONFIG:
        return [str(variant["model"]) for variant in entry["variants"]]
    labels = []
    for variant in entry["variants"]:
        version = variant.get("prompt_version")
        labels.append(f"{variant['prompt_key']} {'current' if version is None else f'v{version}'}")
    return labels


def _sessions(
    index: sqlite3.Connection,
    kind: str,
    key: str,
    version: int,
    entry: Mapping[str, Any],
    contents: Mapping[int, tuple[dict[str, Any], int]],
) -> tuple[list[_Session], int, int]:
    """Give the sessions of a version, how many of them are in doubt, and how many got no variant."""
    variants = entry["variants"]
    conditions, values = "version = ?", [version]
    if kind == TEST:
        # Spans do not name the test's version: what began while a version was served is its.
        times = sorted((first_ns, number) for number, (_, first_ns) in contents.items())
        place = next((i for i, (_, number) in enumerate(times) if number == version), 0)
        begin = times[place][0] if place else 0
        end = times[place + 1][0] if place + 1 < len(times) else 1 << 62
        conditions, values = "first_ns >= ? AND first_ns < ?", [begin, end]
    models = [variant.get("model") for variant in variants]
    by_model = {model: i for i, model in enumerate(models) if models.count(model) == 1}
    targeting = entry.get("targeting") or {}
    is_targeting = bool(targeting.get("enabled", True)) and any(
        targeting.get(name) for name in ("rules", "individualTargets")
    )
    found, unknown, elsewhere = [], 0, 0
    rows = index.execute(
        "SELECT session_id, model, variant, reason FROM assignment "  # noqa: S608
        f"WHERE kind = ? AND key = ? AND {conditions} ORDER BY first_ns DESC LIMIT ?",
        (kind, key, *values, _SESSIONS_MAX),
    )
    for row in rows:
        variant = row["variant"] if row["variant"] is not None else by_model.get(row["model"])
        if variant is None or not 0 <= variant < len(variants):
            elsewhere += 1
        elif not row["reason"] and is_targeting:
            unknown += 1
        else:
            found.append(_Session(row["session_id"], variant, row["reason"] in ("", "weight")))
    return found, unknown, elsewhere


def _counts(sessions: Iterable[_Session], variants: int) -> tuple[list[int], list[int]]:
    drawn, targeted = [0] * variants, [0] * variants
    for session in sessions:
        (drawn if session.is_drawn else targeted)[session.variant] += 1
    return drawn, targeted


def _measures(
    index: sqlite3.Connection,
    kind: str,
    key: str,
    version: int,
    sessions: Sequence[_Session],
    labels: Sequence[str],
) -> list[Measure]:
    variant_of = {session.session_id: session.variant for session in sessions if session.is_drawn}
    usage: list[list[sqlite3.Row]] = [[] for _ in labels]
    rows = index.execute(
        "SELECT session_id, sum(calls) AS calls, sum(errors) AS errors, "
        "sum(duration_ns) AS duration_ns, sum(first_token_ns) AS first_token_ns, "
        "sum(streams) AS streams, sum(input_tokens + output_tokens) AS tokens, "
        "sum(output_tokens) AS output_tokens FROM usage "
        "WHERE kind = ? AND key = ? AND version IN (?, -1) GROUP BY session_id",
        (kind, key, version if kind == CONFIG else 0),
    )
    for row in rows:
        variant = variant_of.get(row["session_id"])
        if variant is not None:
            usage[variant].append(row)

    def per_session(value: Callable[[sqlite3.Row], float | None]) -> list[list[float]]:
        return [[v for row in of if (v := value(row)) is not None] for of in usage]

    latency = per_session(lambda row: row["duration_ns"] / row["calls"] / 1e6)
    first = per_session(
        lambda row: row["first_token_ns"] / row["streams"] / 1e6 if row["streams"] else None
    )
    tokens = per_session(lambda row: row["tokens"] if row["tokens"] else None)
    failed = [(sum(row["errors"] > 0 for row in of), len(of)) for of in usage]
    measures = [
        _measure("Latency of a call", _MEDIAN, labels, map(median_interval, latency), shown_ms),
        _measure("Time to first token", _MEDIAN, labels, map(median_interval, first), shown_ms),
        _measure("Tokens of a session", _MEAN, labels, map(mean_interval, tokens), shown_count),
        _measure(
            "Sessions with a failed call",
            _SHARE,
            labels,
            (share_interval(*pair) for pair in failed),
            shown_share,
        ),
    ]
    measures += _custom(index, kind, key, variant_of, labels)
    return [m for m in measures if any(interval.sample for _, interval, _ in m.rows)]


def _custom(
    index: sqlite3.Connection,
    kind: str,
    key: str,
    variant_of: Mapping[str, int],
    labels: Sequence[str],
) -> Iterable[Measure]:
    query = "SELECT session_id, field, value, is_flag FROM metric WHERE value IS NOT NULL"
    rows = index.execute(
        f"{query} AND config_key = ?" if kind == CONFIG else query,
        (key,) if kind == CONFIG else (),
    )
    fields: dict[str, list[list[float]]] = {}
    flags: dict[str, bool] = {}
    for session_id, field, value, is_flag in rows:
        variant = variant_of.get(session_id)
        if variant is None:
            continue
        fields.setdefault(field, [[] for _ in labels])[variant].append(value)
        flags[field] = flags.get(field, True) and bool(is_flag)
    for field, values in sorted(fields.items())[:_METRICS_MAX]:
        if flags[field]:
            pairs = ((int(sum(of)), len(of)) for of in values)
            intervals: Iterable[Interval] = (share_interval(*pair) for pair in pairs)
            yield _measure(field, _SHARE, labels, intervals, shown_share)
        else:
            yield _measure(field, _MEAN, labels, map(mean_interval, values), shown_number)


_MEDIAN: Final = (
    "Median over sessions, each by the mean of its calls; "
    "95 % interval by order statistics (binomial)."
)
_MEAN: Final = "Mean over sessions; 95 % interval by Student's t."
_SHARE: Final = "Share of sessions; 95 % interval by Wilson's score."


def _measure(
    title: str,
    method: str,
    labels: Sequence[str],
    intervals: Iterable[Interval],
    shown: Callable[[float], str],
) -> Measure:
    found = list(zip(labels, intervals, strict=True))
    plot = interval_plot([(label, one, i) for i, (label, one) in enumerate(found)], shown)
    rows = []
    for label, one in found:
        text = "too few sessions" if one.sample else "no sessions"
        if one.low is not None and one.high is not None:
            text = f"{shown(one.low)} to {shown(one.high)}"
        rows.append((label, one, f"{shown(one.value)} ({text})" if one.sample else text))
    return Measure(title, method, plot, rows)
