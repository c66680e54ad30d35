"""Spans come from any library: nothing that one says may end the thread that indexes all of them."""

from __future__ import annotations

from typing import Any

import pytest

from fallom.dev.page.details import detail_of
from fallom.dev.page.facts import facts_of


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gen_ai.operation.name", ["chat"]),
        ("gen_ai.response.time_to_first_chunk", 1e308),
        ("gen_ai.input.messages", '[{"role": "user", "content": "half of \\ud83d"}]'),
        ("fallom.output", '"\\udc00"'),
    ],
)
def test_what_a_span_says_amiss_is_indexed_and_shown(
    index: Any, row: Any, name: str, value: Any
) -> None:
    one = row(attributes={name: value})
    index.add([one], [], [])
    assert index.position()[0] == one["id"]
    detail_of(one)


def test_half_a_character_is_searched_and_previewed_as_a_mark(row: Any) -> None:
    asked = '[{"role": "user", "content": "half of \\ud83d it"}]'
    facts = facts_of(row(attributes={"gen_ai.input.messages": asked}))
    assert facts.question == "half of ? it"
    assert "half of ? it" in facts.text


@pytest.mark.parametrize(
    "value", ["1" + "0" * 400, "1e308", '{"\\ud83d": "\\ud83d"}', '["\\ud83d"]', '"\\ud83d"']
)
def test_a_metric_that_nobody_can_count_with_is_kept_as_text(
    index: Any, read: Any, value: str
) -> None:
    data = f'{{"a\\udc00": {value}}}'
    metric = {"id": 1, "session_id": "s", "config_key": "c", "data": data, "received_unix_ns": 1}
    index.add([], [], [metric])
    ((field, number, shown),) = read.execute("SELECT field, value, shown FROM metric").fetchall()
    assert (field, number) == ("a?", None)
    assert shown
