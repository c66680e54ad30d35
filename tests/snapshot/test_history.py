"""What was published in the past stays for a while, and can be asked for by time."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psutil

from fallom._core.assignment import CompiledConfig
from fallom._past import Past, past_assignment
from fallom._snapshot.history import opened_history
from fallom._snapshot.publish import MANIFESTS_KEPT, Publisher
from tests.snapshot.builders import config, configs

SECOND = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.unix_s = 1000

    def __call__(self) -> int:
        return self.unix_s * SECOND


def published(directory: Path, *models: str, clock: Clock | None = None) -> Clock:
    """Publish a config with these models, one a minute."""
    clock = clock or Clock()
    publisher = Publisher(directory, unix_ns=clock)
    for number, model in enumerate(models):
        publisher.publish([configs(config("a", number + 1, model))])
        clock.unix_s += 60
    return clock


def explain(directory: Path, unix_s: float | None, version: int | None = None) -> Past:
    with opened_history(directory) as history:
        at = None if unix_s is None else int(unix_s * SECOND)
        return past_assignment(history, "a", "session", at, version)


def model(past: Past) -> str | None:
    return past.assigned.model if past.assigned else None


def test_each_time_has_what_was_published_last_before_it(directory: Path) -> None:
    published(directory, "first", "second", "third")
    wanted: list[tuple[float | None, str]] = [
        (1000, "first"),
        (1059, "first"),
        (1060, "second"),
        (1119.9, "second"),
        (5000, "third"),
        (None, "third"),
    ]
    for unix_s, expected in wanted:
        assert model(explain(directory, unix_s)) == expected
    past = explain(directory, 1065)
    assert (past.reason, past.version, past.published_unix_ns) == ("weight", 2, 1060 * SECOND)


def test_before_what_is_kept_it_says_since_when_it_is(directory: Path) -> None:
    assert explain(directory, 1000).reason == "fallback: no_snapshot"
    published(directory, "first")
    past = explain(directory, 999)
    assert (past.reason, past.kept_since_unix_ns) == ("fallback: not_kept", 1000 * SECOND)


def test_the_last_of_many_changes_are_kept(directory: Path) -> None:
    count = MANIFESTS_KEPT + 5
    published(directory, *(f"m{number}" for number in range(count)))
    oldest = count - MANIFESTS_KEPT
    assert model(explain(directory, 1000 + 60 * oldest)) == f"m{oldest}"
    assert explain(directory, 1000 + 60 * oldest - 1).reason == "fallback: not_kept"


def test_a_version_that_was_current_then_can_be_pinned_now(directory: Path) -> None:
    published(directory, "first", "second")
    assert model(explain(directory, None, version=1)) == "first"
    assert explain(directory, 1000, version=2).reason == "fallback: version_not_found"


def test_a_damaged_manifest_costs_its_own_time_only(directory: Path) -> None:
    published(directory, "first", "second", "third")
    connection = sqlite3.connect(directory / "cache.db")
    (key,) = connection.execute(
        "SELECT key FROM Cache WHERE key LIKE 'm:%' ORDER BY key LIMIT 1 OFFSET 1"
    ).fetchone()
    connection.execute("UPDATE Cache SET value = x'00' WHERE key = ?", (key,))
    connection.commit()
    connection.close()
    assert model(explain(directory, 1065)) == "first"
    assert model(explain(directory, 1125)) == "third"


def test_nothing_stays_open(directory: Path) -> None:
    published(directory, "first")
    explain(directory, None)
    opened = [file.path for file in psutil.Process().open_files()]
    assert not [path for path in opened if path.startswith(str(directory))]


def test_entries_are_compiled_configs(directory: Path) -> None:
    published(directory, "first")
    with opened_history(directory) as history:
        manifest = history.at(None)
        assert manifest is not None
        found = [history.entry(manifest, kind, "a") for kind in manifest.sections]
    assert isinstance(found[0], CompiledConfig)
