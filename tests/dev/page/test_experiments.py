from __future__ import annotations

from typing import Any

import pytest

from fallom.dev.page.experiments import list_experiments, read_experiment
from fallom.dev.page.versions import CONFIG, TEST

APP = {
    "key": "app",
    "version": 1,
    "variants": [{"model": "a", "weight": 70}, {"model": "b", "weight": 30}],
    "targeting": None,
}
TARGETED = {
    **APP,
    "targeting": {
        "enabled": True,
        "individualTargets": [{"field": "customerId", "value": "x", "variantIndex": 1}],
        "rules": [],
    },
}


def exposure(session: str, model: str, version: int = 1) -> dict[str, Any]:
    return {
        "id": 1,
        "config_key": "app",
        "config_version": version,
        "session_id": session,
        "assigned_model": model,
        "received_unix_ns": 5,
    }


def call(row: Any, session: str, variant: int, reason: str = "weight", **given: Any) -> Any:
    attributes = {
        "fallom.kind": "llm",
        "fallom.config_version": 1,
        "fallom.variant_index": variant,
        "fallom.assignment.reason": reason,
        **given.pop("attributes", {}),
    }
    return row(session_id=session, attributes=attributes, **given)


def test_sessions_are_counted_once_whether_exposures_or_spans_tell(
    index: Any, read: Any, row: Any
) -> None:
    index.note_served(CONFIG, [APP], 1)
    index.add(
        [call(row, "s1", 0), call(row, "s1", 0), call(row, "s2", 1)],
        [exposure("s1", "a"), exposure("s3", "b")],
        [],
    )
    found = read_experiment(read, {(CONFIG, "app"): APP}, CONFIG, "app", None)
    assert found is not None
    assert [variant.drawn for variant in found.variants] == [1, 2]
    assert found.is_served


def test_sessions_of_targeting_stand_beside_the_draw(index: Any, read: Any, row: Any) -> None:
    index.note_served(CONFIG, [TARGETED], 1)
    spans = [call(row, "s1", 0), call(row, "s2", 1, "individual_target")]
    index.add(spans, [exposure("s9", "b")], [])
    found = read_experiment(read, {(CONFIG, "app"): TARGETED}, CONFIG, "app", None)
    assert found is not None
    assert [(v.drawn, v.targeted) for v in found.variants] == [(1, 0), (0, 1)]
    assert found.unknown == 1  # an exposure does not tell what decided


def test_what_a_variant_cost_is_measured_by_session(index: Any, read: Any, row: Any) -> None:
    index.note_served(CONFIG, [APP], 1)
    spans = []
    for number in range(8):
        for _ in range(3):
            spans.append(
                call(
                    row,
                    f"s{number}",
                    number % 2,
                    start_unix_ns=0,
                    end_unix_ns=(1 + number % 2) * 10**9,
                    attributes={"gen_ai.usage.input_tokens": 100},
                )
            )
    metrics = [
        {
            "id": number,
            "config_key": "app",
            "session_id": f"s{number}",
            "data": '{"won": true, "score": 2.5}',
            "received_unix_ns": 9,
        }
        for number in range(8)
    ]
    index.add(spans, [], metrics)
    found = read_experiment(read, {(CONFIG, "app"): APP}, CONFIG, "app", None)
    assert found is not None
    measures = {measure.title: measure.rows for measure in found.measures}
    assert [interval.value for _, interval, _ in measures["Latency of a call"]] == [1000, 2000]
    assert [interval.value for _, interval, _ in measures["Tokens of a session"]] == [300, 300]
    assert [interval.sample for _, interval, _ in measures["won"]] == [4, 4]
    assert [interval.value for _, interval, _ in measures["won"]] == [1.0, 1.0]
    assert [interval.value for _, interval, _ in measures["score"]] == [2.5, 2.5]


def test_versions_are_told_apart(index: Any, read: Any, row: Any) -> None:
    second = {**APP, "version": 2, "variants": [*APP["variants"][:1], {"model": "c", "weight": 30}]}
    index.note_served(CONFIG, [APP, second], 1)
    index.add([], [exposure("s1", "a"), exposure("s1", "c", 2)], [])
    current = {(CONFIG, "app"): second}
    first = read_experiment(read, current, CONFIG, "app", 1)
    newest = read_experiment(read, current, CONFIG, "app", None)
    assert first is not None
    assert newest is not None
    assert ([v.drawn for v in first.variants], first.is_served) == ([1, 0], False)
    assert ([v.drawn for v in newest.variants], newest.is_served) == ([0, 1], True)


def test_a_prompt_test_counts_what_began_while_its_weights_were_served(
    index: Any, read: Any, row: Any
) -> None:
    def entry(version: int) -> dict[str, Any]:
        variants = [{"prompt_key": "p", "prompt_version": None, "weight": 50}] * 2
        return {"key": "t", "version": version, "variants": variants}

    index.note_served(TEST, [entry(1)], 1000)
    index.note_served(TEST, [entry(2)], 5000)
    tagged = {"fallom.kind": "llm", "fallom.prompt_ab_test": "t", "fallom.prompt_variant": 1}
    index.add(
        [
            row(session_id="old", start_unix_ns=500, attributes=tagged),
            row(session_id="new", start_unix_ns=6000, attributes=tagged),
        ],
        [],
        [],
    )
    current = {(TEST, "t"): entry(2)}
    for version in (1, 2):
        found = read_experiment(read, current, TEST, "t", version)
        assert found is not None
        assert [variant.drawn for variant in found.variants] == [0, 1]


def test_the_alarm_is_raised_in_the_list_too(index: Any, read: Any) -> None:
    index.note_served(CONFIG, [APP], 1)
    index.add([], [exposure(f"s{n}", "ab"[n % 2]) for n in range(400)], [])
    (found,) = list_experiments(read, {(CONFIG, "app"): APP})
    assert found.mismatch.is_alarm
    assert found.mismatch.p_value == pytest.approx(0, abs=1e-9)
