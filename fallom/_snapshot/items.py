"""One item of a payload to one record: every field checked, unknown ones ignored."""

from __future__ import annotations

import math
from typing import Any

from fallom._core.prompt import ROLES
from fallom._core.targeting import OPERATORS
from fallom._snapshot.entries import (
    KEY_CHARS_MAX,
    SALT_CHARS_MAX,
    VERSION_MAX,
    AbTestRecord,
    ConfigRecord,
    PromptRecord,
    canonical_value,
)
from fallom._snapshot.location import Location, shown

__all__ = ["ab_test_record", "config_record", "prompt_record"]

VARIANTS_MAX = 1000  # guess; bounds one walk
MESSAGES_MAX = 1000  # guess: examples of a chat are tens

_WEIGHT = "a finite number of at least 0, in percent (12.5 or '12.5')"
_VERSION_DEFAULT = 1  # as the published SDKs have it


def config_record(values: Any, location: Location, notes: list[str]) -> ConfigRecord:
    """Check a config.

    Args:
        values: The item, parsed.
        location: What the item is called in messages.
        notes: Takes what is legal but hardly meant.

    Raises:
        PayloadError: It cannot be served.
    """
    item = _object(values, location)
    key, version = _key(item, location), _version(item, location)
    here = location.field("variants")
    variants: list[tuple[str, float]] = []
    for position, variant in enumerate(_variants(item.get("variants"), here)):
        there = here.number(position)
        fields = _object(variant, there)
        model = _name(fields.get("model"), there.field("model"))
        variants.append((model, _weight(fields.get("weight"), there.field("weight"))))
    _note_weights([weight for _, weight in variants], here, notes)
    targeting = _targeting(item.get("targeting"), len(variants), location.field("targeting"), notes)
    return ConfigRecord(key, version, variants, targeting, _salt(item, location))


def prompt_record(values: Any, location: Location, notes: list[str]) -> PromptRecord:
    """Check a prompt; see ``config_record``."""
    item = _object(values, location)
    key, version = _key(item, location), _version(item, location)
    texts = [item.get(name) for name in ("system_prompt", "user_template")]
    for name, text in zip(("system_prompt", "user_template"), texts, strict=True):
        if text is not None and type(text) is not str:  # what it is, never what it says
            raise location.field(name).refusal(shown(text), "text, or null for none")
    messages = _messages(item.get("messages"), location.field("messages"))
    if texts == [None, None] and not messages:
        raise location.refusal("without text", "a system_prompt, a user_template or messages")
    return PromptRecord(key, version, texts[0] or "", texts[1] or "", messages)


def ab_test_record(values: Any, location: Location, notes: list[str]) -> AbTestRecord:
    """Check a prompt A/B test; see ``config_record``."""
    item = _object(values, location)
    key, version = _key(item, location), _version(item, location)
    here = location.field("variants")
    variants: list[tuple[str, int | None, float]] = []
    for position, variant in enumerate(_variants(item.get("variants"), here)):
        there = here.number(position)
        fields = _object(variant, there)
        prompt_key = _name(fields.get("prompt_key"), there.field("prompt_key"))
        pinned = fields.get("prompt_version")
        if pinned is not None:
            pinned = _version_number(pinned, there.field("prompt_version"))
        weight = _weight(fields.get("weight"), there.field("weight"))
        variants.append((prompt_key, pinned, weight))
    _note_weights([weight for _, _, weight in variants], here, notes)
    return AbTestRecord(key, version, variants, _salt(item, location))


def _messages(values: Any, location: Location) -> list[tuple[str, str]]:
    messages = []
    for position, value in enumerate(_list(values, location)):
        there = location.number(position)
        message = _object(value, there)
        role, text = message.get("role"), message.get("content")
        if role not in ROLES:
            raise there.field("role").refusal(shown(role), f"one of {', '.join(ROLES)}")
        if type(text) is not str:
            raise there.field("content").refusal(shown(text), "text")
        messages.append((role, text))
    if len(messages) > MESSAGES_MAX:
        raise location.refusal(f"a list of {len(messages)}", f"at most {MESSAGES_MAX} messages")
    return messages


def _targeting(
    values: Any, variant_count: int, location: Location, notes: list[str]
) -> tuple[list[Any], list[Any]] | None:
    if values is None:
        return None
    targeting = _object(values, location)
    if targeting.get("enabled") is False:
        return None
    targets = []
    here = location.field("individualTargets")
    for position, value in enumerate(_list(targeting.get("individualTargets"), here)):
        there = here.number(position)
        target = _object(value, there)
        field = _name(target.get("field"), there.field("field"))
        wanted = _value(target.get("value"), there.field("value"))
        targets.append((field, wanted, _index(target, variant_count, there, notes)))
    rules = []
    here = location.field("rules")
    for position, value in enumerate(_list(targeting.get("rules"), here)):
        there = here.number(position)
        rule = _object(value, there)
        conditions = _conditions(rule.get("conditions"), there.field("conditions"), notes)
        rules.append((conditions, _index(rule, variant_count, there, notes)))
    return (targets, rules) if targets or rules else None


def _conditions(values: Any, location: Location, notes: list[str]) -> list[tuple[str, str, Any]]:
    conditions = []
    for position, value in enumerate(_list(values, location)):
        there = location.number(position)
        condition = _object(value, there)
        operator = condition.get("operator")
        if type(operator) is not str:
            raise there.field("operator").refusal(shown(operator), f"one of {_operators()}")
        if operator not in OPERATORS:  # a newer server's; nobody matches, as the SDKs have it
            note = f"is {shown(operator)}, which never matches; known are {_operators()}."
            notes.append(there.field("operator").note(note))
        field = _name(condition.get("field"), there.field("field"))
        conditions.append((field, operator, _value(condition.get("value"), there.field("value"))))
    return conditions


def _operators() -> str:
    return ", ".join(OPERATORS)


def _index(values: dict[str, Any], variant_count: int, location: Location, notes: list[str]) -> int:
    index = values.get("variantIndex")
    here = location.field("variantIndex")
    if type(index) is not int or not -VERSION_MAX <= index <= VERSION_MAX:
        raise here.refusal(shown(index), f"a whole number from 0 to {variant_count - 1}")
    if not 0 <= index < variant_count:
        notes.append(
            here.note(
                f"is {index}, and there are {variant_count} variants: weights decide instead."
            )
        )
    return index


def _value(value: Any, location: Location) -> Any:
    try:
        return canonical_value(value)
    except ValueError as error:
        raise location.refusal(str(error), "a JSON value of a few levels") from None


def _variants(values: Any, location: Location) -> list[Any]:
    found = list(values.values()) if type(values) is dict else values
    if type(found) is not list or not found:
        what = "empty" if type(values) in (list, dict) else shown(values)
        raise location.refusal(what, "a list of at least one variant")
    if len(found) > VARIANTS_MAX:
        raise location.refusal(f"a list of {len(found)}", f"at most {VARIANTS_MAX} variants")
    return found


def _weight(value: Any, location: Location) -> float:
    try:
        weight = float(value) if type(value) in (int, float, str) else math.nan
    except (ValueError, OverflowError):
        weight = math.nan
    if not math.isfinite(weight) or weight < 0:
        raise location.refusal(shown(value), _WEIGHT)
    return weight


def _note_weights(weights: list[float], location: Location, notes: list[str]) -> None:
    """Say when weights are hardly meant as percentages; they serve as they are."""
    total = sum(weights)  # of finite weights it may be inf, where ``fsum`` raises
    last = f"the last variant gets {max(0.0, 100 - sum(weights[:-1])):.6g} %"
    if len(weights) == 1 or abs(total - 100) < 0.005:
        return
    if 0 < total <= 1:
        finding = (
            f"have weights that sum to {total:.6g}, like fractions; they are percentages: {last}."
        )
    elif total < 100:
        finding = f"have weights that sum to {total:.6g}, not 100: {last}."
    else:
        finding = f"have weights that sum to {total:.6g}, not 100: beyond 100 nobody is reached."
    notes.append(location.note(finding))


def _object(values: Any, location: Location) -> dict[str, Any]:
    if type(values) is not dict:
        raise location.refusal(shown(values), "an object")
    return values


def _list(values: Any, location: Location) -> list[Any]:
    if values is None:
        return []
    if type(values) is not list:
        raise location.refusal(shown(values), "a list")
    return values


def _key(item: dict[str, Any], location: Location) -> str:
    return _name(item.get("key"), location.field("key"))


def _name(value: Any, location: Location) -> str:
    if type(value) is not str or not 0 < len(value) <= KEY_CHARS_MAX:
        what = (
            f"a text of {len(value)} characters" if type(value) is str and value else shown(value)
        )
        raise location.refusal(what, f"a text of 1 to {KEY_CHARS_MAX} characters")
    try:
        value.encode()
    except UnicodeEncodeError:  # it goes into URLs and spans, which cannot carry it
        raise location.refusal("not valid Unicode", "a text without lone surrogates") from None
    return value


def _salt(item: dict[str, Any], location: Location) -> str:
    salt = item.get("salt")
    if salt is None or salt == "":
        return ""
    here = location.field("salt")
    if type(salt) is not str or len(salt) > SALT_CHARS_MAX or "\0" in salt:
        what = shown(salt) if type(salt) is not str else f"a text of {len(salt)} characters"
        what += " with a NUL" if type(salt) is str and "\0" in salt else ""
        expected = f"a text of at most {SALT_CHARS_MAX} characters without NUL, or null for none"
        raise here.refusal(what, expected)
    return _name(salt, here)


def _version(item: dict[str, Any], location: Location) -> int:
    return _version_number(item.get("version", _VERSION_DEFAULT), location.field("version"))


def _version_number(value: Any, location: Location) -> int:
    if type(value) is not int or not 0 <= value <= VERSION_MAX:
        raise location.refusal(shown(value), "a whole number of at least 0")
    return value
