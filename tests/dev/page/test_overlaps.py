from __future__ import annotations

from typing import Any

from fallom._core.assignment import bucket_of, compile_salt
from fallom.dev.page.experiments import read_experiment
from fallom.dev.page.overlaps import Overlaps
from fallom.dev.page.versions import CONFIG, TEST


def config(key: str, version: int = 1, salt: str = "", low: float = 50) -> dict[str, Any]:
    variants = [{"model": "a", "weight": low}, {"model": "b", "weight": 100 - low}]
    of_salt = {"salt": salt} if salt else {}
    return {"key": key, "version": version, "variants": variants, "targeting": None, **of_salt}


def prompt_test(key: str, version: int = 1, salt: str = "") -> dict[str, Any]:
    variants = [
        {"prompt_key": "p", "prompt_version": number, "weight": 50.0} for number in (1, None)
    ]
    return {"key": key, "version": version, "variants": variants, "salt": salt}


def exposures(entry: dict[str, Any], sessions: range) -> list[dict[str, Any]]:
    """What the sessions were assigned by the published rule."""
    prefix = compile_salt(entry.get("salt", ""))
    edge = entry["variants"][0]["weight"] * 10_000
    return [
        {
            "id": number + 1,
            "config_key": entry["key"],
            "config_version": entry["version"],
            "session_id": f"s{number}",
            "assigned_model": "a" if bucket_of(f"s{number}", prefix) < edge else "b",
            "received_unix_ns": 5,
        }
        for number in sessions
    ]


def overlaps_of(read: Any, *entries: dict[str, Any]) -> Overlaps:
    """Of the first entry."""
    current = {(CONFIG if "targeting" in e else TEST, e["key"]): e for e in entries}
    kind, key = next(iter(current))
    found = read_experiment(read, current, kind, key, None)
    assert found is not None
    return found.overlaps


def fill(index: Any, *given: tuple[dict[str, Any], range]) -> None:
    for entry, sessions in given:
        index.note_served(CONFIG, [entry], 1)
        index.add([], exposures(entry, sessions), [])


def test_experiments_without_a_salt_are_seen_to_go_together(index: Any, read: Any) -> None:
    here, there = config("here"), config("there", low=80)
    fill(index, (here, range(300)), (there, range(100, 400)))
    (one,) = overlaps_of(read, here, there).bound
    assert (one.other.key, one.sessions, one.drawn) == ("there", 200, 200)
    (a_a, a_b), (b_a, b_b) = one.table
    assert a_b == 0  # whoever is below 50 % is below 80 %
    assert min(a_a, b_a, b_b) > 20
    assert a_a + a_b + b_a + b_b == 200


def test_the_same_salt_goes_together_and_another_is_independent(index: Any, read: Any) -> None:
    here, same = config("here", salt="spring"), config("same", salt="spring")
    other, none = config("other", salt="autumn"), config("none")
    fill(index, *((entry, range(200)) for entry in (here, same, other, none)))
    found = overlaps_of(read, here, same, other, none)
    assert [one.other.key for one in found.bound] == ["same"]
    assert [one.other.key for one in found.independent] == ["none", "other"]
    table = found.bound[0].table
    assert (table[0][1], table[1][0]) == (0, 0)
    assert min(v for one in found.independent for row in one.table for v in row) > 25


def test_experiments_of_other_sessions_are_not_told(index: Any, read: Any) -> None:
    here, there = config("here"), config("there")
    fill(index, (here, range(50)), (there, range(50, 100)))
    assert overlaps_of(read, here, there) == Overlaps()


def test_where_nothing_is_drawn_nothing_goes_together(index: Any, read: Any) -> None:
    here, whole = config("here"), config("whole", low=100)
    fill(index, (here, range(50)), (whole, range(50)))
    assert overlaps_of(read, here, whole) == Overlaps()
    assert overlaps_of(read, whole, here) == Overlaps()


def test_sessions_that_targeting_decided_are_not_in_the_table(
    index: Any, read: Any, row: Any
) -> None:
    here, there = config("here"), config("there")
    fill(index, (here, range(20)), (there, range(20)))
    attributes = {
        "fallom.config_version": 1,
        "fallom.variant_index": 1,
        "fallom.assignment.reason": "rule:0",
    }
    targeted = [
        row(session_id=f"s{n}", config_key="there", attributes=attributes) for n in range(5)
    ]
    index.add(targeted, [], [])
    (one,) = overlaps_of(read, here, there).bound
    assert (one.sessions, one.drawn, sum(map(sum, one.table))) == (20, 15, 15)


def test_of_another_experiment_the_version_counts_that_most_had(index: Any, read: Any) -> None:
    here, old, new = config("here"), config("there"), config("there", 2, salt="x")
    fill(index, (here, range(30)), (old, range(20)), (new, range(20, 30)))
    found = overlaps_of(read, here, new)
    assert [(one.other.number, one.sessions) for one in found.bound] == [(1, 20)]
    assert found.independent == ()


def test_a_prompt_test_is_read_by_the_version_that_was_served_then(
    index: Any, read: Any, row: Any
) -> None:
    here, salted, plain = config("here"), prompt_test("t", 1, "x"), prompt_test("t", 2)
    fill(index, (here, range(30)))
    index.note_served(TEST, [salted], 1000)
    index.note_served(TEST, [plain], 5000)

    def calls(start: int, sessions: range) -> list[Any]:
        tagged = {"fallom.kind": "llm", "fallom.prompt_ab_test": "t", "fallom.prompt_variant": 1}
        return [
            row(session_id=f"s{n}", config_key=None, start_unix_ns=start, attributes=tagged)
            for n in sessions
        ]

    index.add(calls(2000, range(10)), [], [])
    (one,) = overlaps_of(read, here, plain).independent
    assert (one.other.number, one.sessions) == (1, 10)
    index.add(calls(6000, range(10, 25)), [], [])
    (one,) = overlaps_of(read, here, plain).bound
    assert (one.other.number, one.sessions, one.drawn) == (2, 15, 15)
    assert one.other.labels == ["p v1", "p current"]
