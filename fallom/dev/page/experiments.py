"""Experiments: how sessions were shared out among variants, and what became of them.

The unit is the session: it is what is assigned, and calls of one session are alike. Sessions that
targeting decided stand beside the draw, not in it: their shares are nobody's weights.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from fallom.dev.page.overlaps import Overlaps, read_overlaps
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
from fallom.dev.page.versions import CONFIG, NEWEST, Served, Version, known_versions

__all__ = [
    "Experiment",
    "Measure",
    "Variant",
    "list_experiments",
    "read_experiment",
]

_VALUES_MAX: Final = 40_000  # of metrics
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

    version: Version
    versions: list[int]
    variants: list[Variant]
    mismatch: Mismatch
    unknown: int  # sessions of which is not known whether targeting decided
    elsewhere: int  # sessions that got something that is no variant of this version
    plot: Drawing
    measures: list[Measure]
    overlaps: Overlaps
    is_served: bool

    @property
    def sessions(self) -> int:
        """How many sessions were assigned a variant."""
        return sum(variant.drawn + variant.targeted for variant in self.variants)


def list_experiments(index: sqlite3.Connection, current: Served) -> list[Experiment]:
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
    current: Served,
    kind: str,
    key: str,
    number: int | None,
    is_measured: bool = True,
) -> Experiment | None:
    """Give one experiment; None when nothing is known of it.

    Args:
        index: The index.
        current: What is served: (kind, key) -> entry.
        kind: "config" or "prompt_ab_test".
        key: Its key.
        number: Of its version; None for the one that is served, or the newest known.
        is_measured: Whether latency, tokens and metrics are read too.
    """
    versions = known_versions(index, current, kind, key)
    if not versions:
        return None
    served = current.get((kind, key))
    if number not in versions:
        number = served["version"] if served is not None else max(versions)
    version = versions[number]
    weights = version.weights
    drawn, targeted, unknown, elsewhere = _counts(index, version)
    variants = [
        Variant(i, label, weights[i], drawn[i], targeted[i], share_interval(drawn[i], sum(drawn)))
        for i, label in enumerate(version.labels)
    ]
    whole = sum(weights) or 1.0
    bars = [(variant.share, variant.weight / whole) for variant in variants]
    return Experiment(
        version,
        sorted(versions),
        variants,
        share_mismatch(drawn, weights),
        unknown,
        elsewhere,
        share_plot(bars) if bars and is_measured else Drawing(""),
        _measures(index, version) if is_measured else [],
        read_overlaps(index, current, version) if is_measured else Overlaps(),
        served is not None and served["version"] == number,
    )


def _counts(index: sqlite3.Connection, version: Version) -> tuple[list[int], list[int], int, int]:
    """Give sessions of each variant by weight and by targeting, those in doubt, and those of none."""
    drawn, targeted, unknown, elsewhere = [0] * len(version.labels), [0] * len(version.labels), 0, 0
    read = version.reader().read
    rows = index.execute(
        "SELECT variant, model, reason, count(*) FROM assignment WHERE kind = ? AND key = ? "
        "AND version = ? AND first_ns >= ? AND first_ns < ? GROUP BY variant, model, reason",
        version.place,
    )
    for variant, model, reason, count in rows:
        place, is_drawn = read(variant, model, reason)
        if place is None:
            elsewhere += count
        elif is_drawn is None:
            unknown += count
        else:
            (drawn if is_drawn else targeted)[place] += count
    return drawn, targeted, unknown, elsewhere


def _measures(index: sqlite3.Connection, version: Version) -> list[Measure]:
    read, labels = version.reader().read, version.labels
    latency: list[list[float]] = [[] for _ in labels]
    first: list[list[float]] = [[] for _ in labels]
    tokens: list[list[float]] = [[] for _ in labels]
    failed, with_calls = [0] * len(labels), [0] * len(labels)
    cursor = index.cursor()
    cursor.row_factory = None  # plain tuples: there are as many as sessions
    cursor.execute(_USAGE, version.place)
    for variant, model, reason, calls, errors, duration, first_ns, streams, count in cursor:
        place, is_drawn = read(variant, model, reason)
        if place is None or not is_drawn or not calls:
            continue
        latency[place].append(duration / calls / 1e6)
        with_calls[place] += 1
        failed[place] += errors > 0
        if streams:
            first[place].append(first_ns / streams / 1e6)
        if count:
            tokens[place].append(count)
    failures = map(share_interval, failed, with_calls)
    measures = [
        _measure("Latency of a call", _MEDIAN, labels, map(median_interval, latency), shown_ms),
        _measure("Time to first token", _MEDIAN, labels, map(median_interval, first), shown_ms),
        _measure("Tokens of a session", _MEAN, labels, map(mean_interval, tokens), shown_count),
        _measure("Sessions with a failed call", _SHARE, labels, failures, shown_share),
    ]
    measures += _custom(index, version)
    return [m for m in measures if any(interval.sample for _, interval, _ in m.rows)]


def _custom(index: sqlite3.Connection, version: Version) -> Iterable[Measure]:
    read, labels = version.reader().read, version.labels
    cursor = index.cursor()
    cursor.row_factory = None
    own = version.key if version.kind == CONFIG else None
    cursor.execute(_METRICS, (*version.place, own, own, _VALUES_MAX))
    fields: dict[str, list[list[float]]] = {}
    flags: dict[str, bool] = {}
    for variant, model, reason, field, value, is_flag in cursor:
        place, is_drawn = read(variant, model, reason)
        if place is not None and is_drawn:
            fields.setdefault(field, [[] for _ in labels])[place].append(value)
            flags[field] = flags.get(field, True) and bool(is_flag)
    for field, values in sorted(fields.items())[:_METRICS_MAX]:
        if flags[field]:
            shares = (share_interval(int(sum(of)), len(of)) for of in values)
            yield _measure(field, _SHARE, labels, shares, shown_share)
        else:
            yield _measure(field, _MEAN, labels, map(mean_interval, values), shown_number)


# Calls from before the model was chosen have no version; they are the session's all the same.
_USAGE: Final = f"""
SELECT a.variant, a.model, a.reason,
    coalesce(u.calls, 0) + coalesce(w.calls, 0), coalesce(u.errors, 0) + coalesce(w.errors, 0),
    coalesce(u.duration_ns, 0) + coalesce(w.duration_ns, 0),
    coalesce(u.first_token_ns, 0) + coalesce(w.first_token_ns, 0),
    coalesce(u.streams, 0) + coalesce(w.streams, 0),
    coalesce(u.input_tokens + u.output_tokens, 0) + coalesce(w.input_tokens + w.output_tokens, 0)
FROM ({NEWEST}) AS a
LEFT JOIN usage AS u ON u.kind = a.kind AND u.key = a.key AND u.version = a.version
    AND u.session_id = a.session_id
LEFT JOIN usage AS w ON w.kind = a.kind AND w.key = a.key AND w.version = -1
    AND w.session_id = a.session_id
"""  # noqa: S608
_METRICS: Final = f"""
SELECT a.variant, a.model, a.reason, m.field, m.value, m.is_flag
FROM ({NEWEST}) AS a CROSS JOIN metric AS m ON m.session_id = a.session_id
WHERE m.value IS NOT NULL AND (? IS NULL OR m.config_key = ?) LIMIT ?
"""  # noqa: S608
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
    found = list(intervals)
    rows = []
    for label, one in zip(labels, found, strict=True):
        text = "too few sessions" if one.sample else "no sessions"
        if one.low is not None and one.high is not None:
            text = f"{shown(one.low)} to {shown(one.high)}"
        rows.append((label, one, f"{shown(one.value)} ({text})" if one.sample else text))
    return Measure(title, method, interval_plot(found, shown), rows)
