from __future__ import annotations

import decimal
import enum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.targeting import INDIVIDUAL, compile_targeting, find_target


def literal_rule(
    targets: list[tuple[str, Any, int]],
    rules: list[tuple[list[tuple[str, str, Any]], int]],
    customer_id: str | None,
    context: dict[str, Any] | None,
) -> tuple[int, int] | None:
    """The rule of the published SDKs, word for word, for well-formed input."""
    ctx = dict(context or {})
    if customer_id:
        ctx["customerId"] = customer_id
    for field, value, index in targets:
        if field in ctx and ctx[field] is not None and ctx[field] == value:
            return INDIVIDUAL, index
    for number, (conditions, index) in enumerate(rules):
        if all(literal_condition(ctx.get(f), op, v) for f, op, v in conditions):
            return number, index
    return None


def literal_condition(given: Any, operator: str, value: Any) -> bool:
    if given is None:
        return False
    texts = isinstance(given, str) and isinstance(value, str)
    return {
        "eq": lambda: given == value,
        "neq": lambda: given != value,
        "in": lambda: isinstance(value, list) and given in value,
        "nin": lambda: isinstance(value, list) and given not in value,
        "contains": lambda: texts and value in given,
        "startsWith": lambda: texts and given.startswith(value),
        "endsWith": lambda: texts and given.endswith(value),
    }.get(operator, lambda: False)()


_FIELDS = st.sampled_from(["plan", "region", "customerId", "n"])
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from(["", "a", "ab", "ba", "pro", "1"]),
    st.floats(-1, 1),
)
_VALUES = st.one_of(_SCALARS, st.lists(_SCALARS, max_size=3))
_OPERATORS = st.sampled_from(
    ["eq", "neq", "in", "nin", "contains", "startsWith", "endsWith", "gt", ""]
)


@given(
    st.lists(st.tuples(_FIELDS, _VALUES, st.integers(0, 3)), max_size=6),
    st.lists(
        st.tuples(st.lists(st.tuples(_FIELDS, _OPERATORS, _VALUES), max_size=3), st.integers(0, 3)),
        max_size=4,
    ),
    st.one_of(st.none(), st.sampled_from(["", "a", "pro"])),
    st.one_of(st.none(), st.dictionaries(_FIELDS, _VALUES)),
)
def test_compiled_targeting_matches_as_the_literal_rule(
    targets: list[Any], rules: list[Any], customer_id: str | None, context: dict[str, Any] | None
) -> None:
    compiled = compile_targeting(targets, rules)
    assert find_target(compiled, customer_id, context) == literal_rule(
        targets, rules, customer_id, context
    )


def test_the_customer_id_overwrites_the_context_but_an_empty_one_does_not() -> None:
    targeting = compile_targeting([("customerId", "a", 0), ("customerId", "b", 1)], [])
    assert find_target(targeting, "b", {"customerId": "a"}) == (INDIVIDUAL, 1)
    assert find_target(targeting, "", {"customerId": "a"}) == (INDIVIDUAL, 0)
    assert find_target(targeting, None, {"customerId": "a"}) == (INDIVIDUAL, 0)


def test_the_context_of_the_caller_is_not_changed() -> None:
    context = {"plan": "pro"}
    find_target(compile_targeting([("customerId", "a", 0)], []), "a", context)
    assert context == {"plan": "pro"}


def test_a_target_of_null_does_not_match_everyone_who_lacks_the_field() -> None:
    targeting = compile_targeting([("customerId", None, 0)], [])
    assert find_target(targeting, None, {}) is None
    assert find_target(targeting, None, {"customerId": None}) is None


def test_the_first_target_wins_also_across_fields() -> None:
    targeting = compile_targeting([("a", 1, 0), ("b", 2, 1), ("a", 3, 2)], [])
    assert find_target(targeting, None, {"a": 3, "b": 2}) == (INDIVIDUAL, 1)
    assert find_target(targeting, None, {"a": 1, "b": 2}) == (INDIVIDUAL, 0)


class _Plan(str, enum.Enum):
    PRO = "pro"


@pytest.mark.parametrize("value", [_Plan.PRO, type("Text", (str,), {})("pro")])
def test_texts_of_a_subclass_match_as_texts(value: str) -> None:
    targeting = compile_targeting([("plan", "pro", 0)], [([("region", "in", ["pro"])], 1)])
    assert find_target(targeting, None, {"plan": value}) == (INDIVIDUAL, 0)
    assert find_target(targeting, None, {"region": value}) == (0, 1)


def test_numbers_match_as_python_compares_them() -> None:
    targeting = compile_targeting([("n", 1, 0)], [])
    for value in (1, 1.0, True, decimal.Decimal(1)):
        assert find_target(targeting, None, {"n": value}) == (INDIVIDUAL, 0)
    assert find_target(targeting, None, {"n": "1"}) is None


class _Hostile:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


class _NoTruth:
    def __eq__(self, other: object) -> Any:  # as numpy's arrays do
        return _Hostile()

    __hash__ = None  # type: ignore[assignment]


def _cycle() -> list[Any]:
    around: list[Any] = []
    around.append(around)
    return around


@pytest.mark.parametrize(
    "value", [_Hostile(), _NoTruth(), [], {}, set(), object(), b"a", 1j, float("nan"), _cycle()]
)
@pytest.mark.parametrize("operator", ["eq", "in", "contains", "startsWith", "endsWith", "?"])
@pytest.mark.parametrize("wanted", ["pro", ["pro"], None, {"a": 1}, _cycle(), 5])
def test_what_cannot_be_compared_does_not_match_and_never_raises(
    value: Any, operator: str, wanted: Any
) -> None:
    targeting = compile_targeting([("f", wanted, 0)], [([("f", operator, wanted)], 1)])
    assert find_target(targeting, None, {"f": value}) is None


@pytest.mark.parametrize("operator", ["neq", "nin"])
def test_a_comparison_that_fails_is_no_match_also_when_it_is_negated(operator: str) -> None:
    targeting = compile_targeting([], [([("f", operator, ["a"])], 0)])
    assert find_target(targeting, None, {"f": _Hostile()}) is None


@pytest.mark.parametrize("context", [5, "text", [1], object(), _Hostile(), [("a", 1, 2)]])
def test_a_context_that_is_no_mapping_counts_as_none(context: Any) -> None:
    targeting = compile_targeting([("a", 1, 0)], [([], 1)])
    assert find_target(targeting, None, context) == (0, 1)


def test_any_mapping_may_be_the_context() -> None:
    targeting = compile_targeting([("a", 1, 0)], [])
    assert find_target(targeting, None, MappingProxyType({"a": 1})) == (INDIVIDUAL, 0)


def test_thousands_of_targets_are_found_by_one_lookup() -> None:
    compared = 0

    class Counting(str):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = str.__hash__

    targets = [("customerId", Counting(f"c{i}"), i % 3) for i in range(5000)]
    targeting = compile_targeting(targets, [])
    assert find_target(targeting, "c4999", None) == (INDIVIDUAL, 4999 % 3)
    assert compared < 50
