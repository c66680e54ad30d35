"""``Version``: one version of a config or prompt A/B test, as the page's experiments go by it.

What was served tells the variants, their weights and the salt; the index's rows of ``assignment`` are read
by it: which variant a session got, and whether it was drawn by weight.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

__all__ = ["CONFIG", "NEWEST", "SESSIONS_MAX", "TEST", "Served", "Version", "known_versions"]

CONFIG: Final = "config"
TEST: Final = "prompt_ab_test"
SESSIONS_MAX: Final = 5_000  # the newest, whose calls, metrics and other experiments are compared
# The newest sessions of a version; wants its ``place``.
NEWEST: Final = f"""
SELECT * FROM assignment WHERE kind = ? AND key = ? AND version = ? AND first_ns >= ?
    AND first_ns < ? ORDER BY first_ns DESC LIMIT {SESSIONS_MAX}
"""  # noqa: S608
_FOREVER: Final = 1 << 62
Served = Mapping[tuple[str, str], Mapping[str, Any]]  # (kind, key) -> entry


class Version(NamedTuple):
    """One version, and where its rows are.

    Attributes:
        kind: "config" or "prompt_ab_test".
        key: Of the config or test.
        number: Of the version.
        entry: What was served; without variants where nobody knows it any more.
        labels: What its variants are called.
        begin_ns: From when on rows are its own; 0 for always.
        end_ns: Until when.
    """

    kind: str
    key: str
    number: int
    entry: Mapping[str, Any]
    labels: list[str]
    begin_ns: int = 0
    end_ns: int = _FOREVER

    @property
    def weights(self) -> list[float]:
        """The weights of its variants, per cent."""
        return [float(variant["weight"]) for variant in self.entry["variants"]]

    @property
    def salt(self) -> str:
        """The salt that its sessions are drawn by; empty for none."""
        return str(self.entry.get("salt") or "")

    @property
    def draws(self) -> bool:
        """Whether there is anything to draw: two variants or more that can be got."""
        return sum(weight > 0 for weight in self.weights) > 1

    @property
    def place(self) -> tuple[str, str, int, int, int]:
        """What finds its rows in the index."""
        number = 0 if self.kind == TEST else self.number
        return (self.kind, self.key, number, self.begin_ns, self.end_ns)

    def reader(self) -> Reader:
        """Give what reads its rows."""
        models = [variant.get("model") for variant in self.entry["variants"]]
        targeting = self.entry.get("targeting") or {}
        is_targeting = bool(targeting.get("enabled", True)) and any(
            targeting.get(name) for name in ("rules", "individualTargets")
        )
        by_model = {model: i for i, model in enumerate(models) if models.count(model) == 1}
        return Reader(len(models), by_model, is_targeting)


class Reader(NamedTuple):
    """What of an assignment's row says which variant it is, and whether it was drawn."""

    variants: int
    by_model: Mapping[Any, int]
    is_targeting: bool

    def read(self, variant: int | None, model: str | None, reason: str) -> tuple[int | None, Any]:
        """Give the variant, None for none of this version; and True, False, or None for unknown."""
        place = variant if variant is not None else self.by_model.get(model)
        if place is None or not 0 <= place < self.variants:
            return None, None
        if reason:
            return place, reason == "weight"
        return place, None if self.is_targeting else True


def known_versions(
    index: sqlite3.Connection, current: Served, kind: str, key: str
) -> dict[int, Version]:
    """Give all versions that were served or have sessions, by number; empty for an unknown key.

    Args:
        index: The index.
        current: What is served.
        kind: "config" or "prompt_ab_test".
        key: Its key.
    """
    query = "SELECT version, content, first_ns FROM served WHERE kind = ? AND key = ?"
    rows = index.execute(query, (kind, key))
    contents = {row["version"]: (json.loads(row["content"]), row["first_ns"]) for row in rows}
    served = current.get((kind, key))
    if served is not None:
        contents.setdefault(served["version"], (dict(served), 0))
    if kind == CONFIG:
        query = "SELECT DISTINCT version FROM assignment WHERE kind = ? AND key = ?"
        for row in index.execute(query, (kind, key)):
            contents.setdefault(row["version"], ({"variants": []}, 0))
    known = {
        number: Version(kind, key, number, entry, _labels(kind, entry))
        for number, (entry, _) in sorted(contents.items())
    }
    if kind == TEST:
        # Spans do not name the test's version: what began while a version was served is its.
        times = sorted((first_ns, number) for number, (_, first_ns) in contents.items())
        ends = [*(first_ns for first_ns, _ in times[1:]), _FOREVER]
        for place, ((first_ns, number), end_ns) in enumerate(zip(times, ends, strict=True)):
            begin_ns = first_ns if place else 0
            known[number] = known[number]._replace(begin_ns=begin_ns, end_ns=end_ns)
    return known


def _labels(kind: str, entry: Mapping[str, Any]) -> list[str]:
    if kind == CONFIG:
        return [str(variant["model"]) for variant in entry["variants"]]
    labels = []
    for variant in entry["variants"]:
        version = variant.get("prompt_version")
        labels.append(f"{variant['prompt_key']} {'current' if version is None else f'v{version}'}")
    return labels
