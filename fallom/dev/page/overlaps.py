"""``read_overlaps``: which other experiments the sessions of an experiment were in.

By the compatible rule a session has one bucket for everything without a salt, and one for each salt: of two
experiments that go by the same buckets, what a session got in one tells what it got in the other.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from fallom.dev.page.versions import NEWEST, TEST, Served, Version, known_versions

__all__ = ["Overlap", "Overlaps", "read_overlaps"]

_OTHERS_MAX: Final = 6  # that are shown, those with the most sessions in common
_PAIRS_MAX: Final = 20_000  # of a session here and what it got elsewhere, that are looked at: 40 ms
_Group = tuple[Any, ...]  # how many pairs are alike in all that comes before


class Overlap(NamedTuple):
    """Another experiment, in the version that most of the sessions had.

    Attributes:
        other: That version.
        sessions: How many were in both.
        drawn: How many of them were drawn by weight in both; only for those the buckets decided.
        is_bound: Whether both go by the same buckets.
        table: Sessions that were drawn in both: for each variant here, those of each variant there.
    """

    other: Version
    sessions: int
    drawn: int
    is_bound: bool
    table: list[list[int]]


class Overlaps(NamedTuple):
    """All of them; ``left_out`` more experiments had sessions in common and were not looked at."""

    bound: tuple[Overlap, ...] = ()
    independent: tuple[Overlap, ...] = ()
    left_out: int = 0


def read_overlaps(index: sqlite3.Connection, current: Served, version: Version) -> Overlaps:
    """Give the other experiments that the newest sessions of a version were in.

    Args:
        index: The index.
        current: What is served.
        version: Of the experiment that is looked at.
    """
    if not version.draws:
        return Overlaps()
    cursor = index.cursor()
    cursor.row_factory = None
    groups: dict[tuple[str, str], list[_Group]] = {}
    for kind, key, *group in cursor.execute(_GROUPS, (*version.place, version.kind, version.key)):
        groups.setdefault((kind, key), []).append(tuple(group))
    most = sorted(groups, key=lambda other: -sum(group[-1] for group in groups[other]))
    read = (
        _overlap(version, known_versions(index, current, *other), groups[other])
        for other in most[:_OTHERS_MAX]
    )
    found = [one for one in read if one is not None]
    bound = tuple(one for one in found if one.is_bound and one.drawn)
    independent = tuple(one for one in found if not one.is_bound)
    return Overlaps(bound, independent, max(0, len(most) - _OTHERS_MAX))


def _overlap(
    version: Version, known: dict[int, Version], groups: Sequence[_Group]
) -> Overlap | None:
    of_time = sorted(known.values(), key=lambda one: one.begin_ns)
    sessions: Counter[int] = Counter()
    by_version: dict[int, list[_Group]] = {}
    for own_number, served, *rest in groups:
        number = own_number
        if served is not None:
            number = of_time[min(max(served, 1), len(of_time)) - 1].number
        sessions[number] += rest[-1]
        by_version.setdefault(number, []).append(tuple(rest))
    ((commonest, count),) = sessions.most_common(1)
    other = known.get(commonest)
    if other is None or not other.draws:
        return None
    here, there = version.reader().read, other.reader().read
    table = [[0] * len(other.labels) for _ in version.labels]
    for group in by_version[commonest]:
        own, is_drawn = here(*group[:3])
        its, is_drawn_too = there(*group[3:6])
        if own is not None and its is not None and is_drawn and is_drawn_too:
            table[own][its] += group[-1]
    return Overlap(other, count, sum(map(sum, table)), version.salt == other.salt, table)


# Spans do not name a test's version: how many had been served when the session's first call began does.
_GROUPS: Final = f"""
SELECT kind, key, version, served, variant, model, reason, its_variant, its_model, its_reason, count(*)
FROM (
    SELECT o.kind, o.key, o.version, CASE o.kind WHEN '{TEST}' THEN (
            SELECT count(*) FROM served AS s
            WHERE s.kind = o.kind AND s.key = o.key AND s.first_ns <= o.first_ns
        ) END AS served,
        a.variant, a.model, a.reason,
        o.variant AS its_variant, o.model AS its_model, o.reason AS its_reason
    FROM ({NEWEST}) AS a CROSS JOIN assignment AS o ON o.session_id = a.session_id
    WHERE o.kind <> ? OR o.key <> ? LIMIT {_PAIRS_MAX}
) GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
"""  # noqa: S608
