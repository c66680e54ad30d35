"""Targeting: who gets a variant by name or by rule, before weights are asked.

The rule is that of the published SDKs: individual targets in order, then rules in order, the first
that matches decides. What a rule or a caller's context holds is data from outside, so whatever
cannot be compared is "no match"; nothing here raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["INDIVIDUAL", "OPERATORS", "CompiledTargeting", "compile_targeting", "find_target"]

INDIVIDUAL = -1  # the "rule number" of an individual target


class _Target(NamedTuple):
    position: int  # among all individual targets; the lowest that matches wins
    value: Any
    variant_index: int


class _FieldTargets(NamedTuple):
    """The individual targets of one field, so that thousands of customers cost one lookup."""

    field: str
    by_text: Mapping[str, _Target]
    in_order: tuple[_Target, ...]


class _Condition(NamedTuple):
    field: str
    holds: Callable[[Any, Any], bool]
    value: Any


class _Rule(NamedTuple):
    conditions: tuple[_Condition, ...]
    variant_index: int


class CompiledTargeting(NamedTuple):
    """Targeting in the form that ``find_target`` walks."""

    targets: tuple[_FieldTargets, ...]
    rules: tuple[_Rule, ...]


def compile_targeting(
    targets: Sequence[tuple[str, Any, int]],
    rules: Sequence[tuple[Sequence[tuple[str, str, Any]], int]],
) -> CompiledTargeting:
    """Prepare targeting for many walks.

    Args:
        targets: (field, value, variant index), in order.
        rules: (conditions, variant index), in order; a condition is (field, operator, value). A
            rule without conditions matches everyone; an operator that is not known matches nobody.
    """
    by_field: dict[str, list[_Target]] = {}
    for position, (field, value, variant_index) in enumerate(targets):
        by_field.setdefault(field, []).append(_Target(position, value, variant_index))
    return CompiledTargeting(
        tuple(_field_targets(field, found) for field, found in by_field.items()),
        tuple(
            _Rule(tuple(_condition(*each) for each in conditions), variant_index)
            for conditions, variant_index in rules
        ),
    )


def find_target(
    targeting: CompiledTargeting, customer_id: str | None, context: Mapping[str, Any] | None
) -> tuple[int, int] | None:
    """Give (rule number, variant index) of the first match, or None.

    The rule number is ``INDIVIDUAL`` for an individual target. The index is as the payload has it:
    the caller looks whether there is such a variant.
    """
    given = _given(customer_id, context)
    if targeting.targets:
        target = _individual_target(targeting.targets, given)
        if target is not None:
            return INDIVIDUAL, target.variant_index
    for number, rule in enumerate(targeting.rules):
        if all(_matches(condition, given) for condition in rule.conditions):
            return number, rule.variant_index
    return None


def _given(customer_id: Any, context: Any) -> dict[str, Any]:
    """Give the context with ``customerId`` in it, if there is one; it overwrites."""
    try:
        given = context if type(context) is dict else dict(context or {})
        return {**given, "customerId": customer_id} if customer_id else given
    except Exception:  # noqa: BLE001 - the caller's own objects may raise anything
        return {}


def _field_targets(field: str, found: list[_Target]) -> _FieldTargets:
    by_text: dict[str, _Target] = {}
    for target in found:
        if isinstance(target.value, str):
            by_text.setdefault(target.value, target)
    return _FieldTargets(field, by_text, tuple(found))


def _individual_target(
    groups: tuple[_FieldTargets, ...], given: Mapping[str, Any]
) -> _Target | None:
    best: _Target | None = None
    for group in groups:
        value = given.get(group.field)
        if value is None:  # a target whose value is null must not match all who lack the field
            continue
        if type(value) is str:
            target = group.by_text.get(value)
        else:  # 1 == 1.0 == True, and objects of the caller's that equal a JSON value
            target = next((t for t in group.in_order if _is_true(_equals, value, t.value)), None)
        if target is not None and (best is None or target.position < best.position):
            best = target
    return best


def _condition(field: str, operator: str, value: Any) -> _Condition:
    holds = OPERATORS.get(operator, _never)
    if operator in ("in", "nin") and type(value) is list:
        texts = frozenset(v for v in value if isinstance(v, str))
        value = _Choices(texts, value)
    return _Condition(field, holds, value)


def _matches(condition: _Condition, given: Mapping[str, Any]) -> bool:
    value = given.get(condition.field)
    if value is None:  # a missing field never matches, also not neq and nin
        return False
    return _is_true(condition.holds, value, condition.value)


def _is_true(holds: Callable[[Any, Any], Any], given: Any, value: Any) -> bool:
    """Compare, and count a comparison that fails as no match."""
    try:
        return bool(holds(given, value))
    except Exception:  # noqa: BLE001 - ``__eq__`` and ``__bool__`` of the caller's objects
        return False


class _Choices(NamedTuple):
    """The list of ``in`` and ``nin``; JSON texts are found by hash, whatever else in order."""

    texts: frozenset[str]
    in_order: list[Any]

    def have(self, given: Any) -> bool:
        return given in self.texts if type(given) is str else given in self.in_order


def _equals(given: Any, value: Any) -> Any:
    return given == value


def _differs(given: Any, value: Any) -> Any:
    return given != value


def _is_in(given: Any, value: Any) -> bool:
    return isinstance(value, _Choices) and value.have(given)


def _is_not_in(given: Any, value: Any) -> bool:
    return isinstance(value, _Choices) and not value.have(given)


def _contains(given: Any, value: Any) -> bool:
    return isinstance(given, str) and isinstance(value, str) and value in given


def _starts_with(given: Any, value: Any) -> bool:
    return isinstance(given, str) and isinstance(value, str) and given.startswith(value)


def _ends_with(given: Any, value: Any) -> bool:
    return isinstance(given, str) and isinstance(value, str) and given.endswith(value)


def _never(given: Any, value: Any) -> bool:
    return False


OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": _equals,
    "neq": _differs,
    "in": _is_in,
    "nin": _is_not_in,
    "contains": _contains,
    "startsWith": _starts_with,
    "endsWith": _ends_with,
}
