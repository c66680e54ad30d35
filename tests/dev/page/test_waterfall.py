from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fallom.dev.page.waterfall import waterfall


def span(number: int, parent: str = "", start: int = 0, end: int = 100, first: int = 0) -> Any:
    return {
        "id": number,
        "span_id": f"s{number}",
        "parent": parent,
        "start_ns": start,
        "end_ns": end,
        "first_token_ns": first,
    }


def test_children_stand_below_their_parent_by_start() -> None:
    steps = waterfall([span(3, "s1", 50), span(1), span(4, "s2", 12), span(2, "s1", 10)])
    assert [(step.span["id"], step.depth) for step in steps] == [(1, 0), (2, 1), (4, 2), (3, 1)]


def test_bars_are_shares_of_the_whole_and_stay_within() -> None:
    whole, part, tiny = waterfall([span(1), span(2, "s1", 25, 75, 10), span(3, "s1", 100, 100)])
    assert (whole.x, whole.width) == (0, 100)
    assert (part.x, part.width, part.first) == (25, 50, 35)
    assert tiny.x + tiny.width <= 100
    assert tiny.width > 0


def test_a_span_without_its_parent_is_shown_and_marked() -> None:
    (step,) = waterfall([span(2, "elsewhere")])
    assert step.is_orphan
    assert step.depth == 0


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_every_span_is_drawn_once_whatever_its_parents_are(seed: int, count: int) -> None:
    rng = Random(seed)
    spans = [
        span(n, rng.choice(["", f"s{rng.randrange(count)}", "x"]), rng.randrange(90))
        for n in range(count)
    ]
    steps = waterfall(spans)
    assert sorted(step.span["id"] for step in steps) == list(range(count))


def test_a_deep_chain_is_drawn_without_recursion() -> None:
    spans = [span(n, f"s{n - 1}" if n else "") for n in range(5000)]
    assert len(waterfall(spans)) == 5000
