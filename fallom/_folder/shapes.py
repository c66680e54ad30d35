"""What may stand in the folder: configs, prompts, prompt A/B tests, checked field by field.

Checks are strict, because a person has the file open and can mend it now. What comes out is built
afresh from the known fields, so a file can bring nothing else onto the wire, however it is nested.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from fallom._core.prompt import ROLES
from fallom._core.targeting import OPERATORS
from fallom._folder.documents import Document, Path

__all__ = ["SHAPES", "Check", "ab_test_shape", "config_shape", "prompt_shape"]

_OPERATORS: Final = tuple(OPERATORS)
_PERCENT_TOLERANCE: Final = 0.1  # seven times 14.28 are meant as 100
_VERSION_MAX: Final = (1 << 53) - 1  # the largest whole number that every JSON reader keeps


class Check:
    """A document while it is checked: it raises at the first mistake and gathers warnings."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.warnings: list[tuple[str, Path]] = []

    def fail(self, path: Path, expected: str, value: Any = ...) -> Exception:
        """Give the error for what stands at ``path``."""
        said = "" if value is ... else f" is {_shown(value)};"
        return self.document.error(f"{_dotted(path)}{said} {expected}", path)

    def warn(self, path: Path, message: str) -> None:
        """Note something that is served but is hardly meant."""
        self.warnings.append((f"{_dotted(path)}: {message}", path))

    def mapping(self, value: Any, path: Path, fields: Iterable[str]) -> dict[str, Any]:
        """Give a mapping whose unknown keys are not typing mistakes of ``fields``."""
        if not isinstance(value, dict):
            raise self.fail(path, f"expected a mapping with {', '.join(fields)}", value)
        for name in value:
            if isinstance(name, str) and name not in fields:
                close = difflib.get_close_matches(name, fields, n=1)
                if close:
                    message = f"{name!r} is not a field; did you mean {close[0]!r}?"
                    raise self.document.error(message, (*path, name), at_key=True)
        return value

    def items(self, value: Any, path: Path) -> list[tuple[Path, Any]]:
        """Give the items of a list; None is an empty one."""
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.fail(path, "expected a list", value)
        return [((*path, i), item) for i, item in enumerate(value)]

    def text(self, value: Any, path: Path, *, empty: bool = False) -> str:
        """Give a text."""
        if not isinstance(value, str):
            raise self.fail(path, "expected text; put it in quotes", value)
        if not value and not empty:
            raise self.fail(path, "expected text that is not empty", value)
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise self.fail(path, "expected text without lone surrogates")
        return value

    def whole(self, value: Any, path: Path, low: int, high: int, expected: str) -> int:
        """Give a whole number from ``low`` to ``high``."""
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(path, expected, value)
        return value

    def weight(self, value: Any, path: Path) -> float:
        """Give a percentage; text that ``float`` accepts is a number too."""
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number <= 100:
            raise self.fail(path, "expected a percentage from 0 to 100, for example 12.5", value)
        return int(number) if number.is_integer() else number

    def scalar(self, value: Any, path: Path) -> Any:
        """Give what JSON has and what is not a list or mapping."""
        if isinstance(value, str):
            return self.text(value, path, empty=True)
        is_number = _is_storable(value) if isinstance(value, int) else isinstance(value, float)
        if value is not None and not (is_number and math.isfinite(value)):
            expected = "expected text, a number, true, false or null; put dates in quotes"
            raise self.fail(path, expected, value)
        return value

    def version(self, entry: dict[str, Any], path: Path, default: int) -> int:
        """Give the version of an entry."""
        expected = "expected a whole number from 1 on"
        value = entry.get("version", default)
        return self.whole(value, (*path, "version"), 1, _VERSION_MAX, expected)


Shape = Callable[[Check, Any, Path, str, int], dict[str, Any]]


def config_shape(check: Check, entry: Any, path: Path, key: str, version: int) -> dict[str, Any]:
    """Give a config as ``GET /configs`` has it; ``key`` and ``version`` are its defaults."""
    entry = check.mapping(entry, path, ("key", "version", "variants", "targeting", "salt"))
    here = (*path, "variants")
    variants = entry.get("variants")
    if isinstance(variants, dict):
        named = [((*here, str(name)), variant) for name, variant in variants.items()]
    else:
        named = check.items(variants, here)
    if not named:
        raise check.fail(here, "expected at least one variant with 'model' and 'weight'")
    served: list[dict[str, Any]] = []
    for at, raw in named:
        variant = check.mapping(raw, at, ("model", "weight"))
        model = check.text(_needed(check, variant, at, "model"), (*at, "model"))
        weight = check.weight(_needed(check, variant, at, "weight"), (*at, "weight"))
        served.append({"model": model, "weight": weight})
    _check_sum(check, here, [variant["weight"] for variant in served])
    return {
        "key": check.text(entry.get("key", key), (*path, "key")),
        "version": check.version(entry, path, version),
        "variants": served,
        "targeting": _targeting(check, entry.get("targeting"), (*path, "targeting"), len(served)),
        **_salt(check, entry, path),
    }


def prompt_shape(check: Check, entry: Any, path: Path, key: str, version: int) -> dict[str, Any]:
    """Give a prompt as ``GET /prompts`` has it."""
    fields = ("key", "version", "system_prompt", "user_template", "messages")
    entry = check.mapping(entry, path, fields)
    texts = {}
    for name in ("system_prompt", "user_template"):
        text = entry.get(name)  # null is none, as in a server's listing
        texts[name] = "" if text is None else check.text(text, (*path, name), empty=True)
    messages = [
        _message(check, message, at)
        for at, message in check.items(entry.get("messages"), (*path, "messages"))
    ]
    if not any(texts.values()) and not messages:
        raise check.fail(path, "has neither 'system_prompt' nor 'user_template' nor 'messages'")
    return {
        "key": check.text(entry.get("key", key), (*path, "key")),
        "version": check.version(entry, path, version),
        **texts,
        **({"messages": messages} if messages else {}),
    }


def _message(check: Check, raw: Any, path: Path) -> dict[str, Any]:
    message = check.mapping(raw, path, ("role", "content"))
    role = _needed(check, message, path, "role")
    if role not in ROLES:
        close = difflib.get_close_matches(str(role), ROLES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(ROLES)}"
        raise check.fail((*path, "role"), hint, role)
    at = (*path, "content")
    return {
        "role": role,
        "content": check.text(_needed(check, message, path, "content"), at, empty=True),
    }


def ab_test_shape(check: Check, entry: Any, path: Path, key: str, version: int) -> dict[str, Any]:
    """Give a prompt A/B test as ``GET /prompt-ab-tests`` has it."""
    entry = check.mapping(entry, path, ("key", "version", "variants", "salt"))
    here = (*path, "variants")
    served: list[dict[str, Any]] = []
    for at, raw in check.items(entry.get("variants"), here):
        variant = check.mapping(raw, at, ("prompt_key", "prompt_version", "weight"))
        number = variant.get("prompt_version")
        if number is not None:
            expected = "expected a whole number from 1 on, or null for the current version"
            number = check.whole(number, (*at, "prompt_version"), 1, _VERSION_MAX, expected)
        served.append(
            {
                "prompt_key": check.text(
                    _needed(check, variant, at, "prompt_key"), (*at, "prompt_key")
                ),
                "prompt_version": number,
                "weight": check.weight(_needed(check, variant, at, "weight"), (*at, "weight")),
            }
        )
    if not served:
        raise check.fail(here, "expected at least one variant with 'prompt_key' and 'weight'")
    _check_sum(check, here, [variant["weight"] for variant in served])
    return {
        "key": check.text(entry.get("key", key), (*path, "key")),
        "version": check.version(entry, path, version),
        "variants": served,
        **_salt(check, entry, path),
    }


def _salt(check: Check, entry: dict[str, Any], path: Path) -> dict[str, Any]:
    """Give the salt, where there is one: sessions get a bucket of their own in this experiment."""
    salt = check.text(entry.get("salt") or "", (*path, "salt"), empty=True)
    return {"salt": salt} if salt else {}


# the name in the payload -> its check
SHAPES: Final[dict[str, Shape]] = {
    "configs": config_shape,
    "prompts": prompt_shape,
    "prompt_ab_tests": ab_test_shape,
}


def _targeting(check: Check, raw: Any, path: Path, variants: int) -> dict[str, Any] | None:
    if raw is None:
        return None
    targeting = check.mapping(raw, path, ("enabled", "individualTargets", "rules"))
    enabled = targeting.get("enabled", True)
    if not isinstance(enabled, bool):
        raise check.fail((*path, "enabled"), "expected true or false", enabled)
    targets = []
    for at, item in check.items(targeting.get("individualTargets"), (*path, "individualTargets")):
        target = check.mapping(item, at, ("field", "value", "variantIndex"))
        targets.append(
            {
                "field": check.text(_needed(check, target, at, "field"), (*at, "field")),
                "value": check.scalar(_needed(check, target, at, "value"), (*at, "value")),
                "variantIndex": _index(check, target, at, variants),
            }
        )
    rules = []
    for at, item in check.items(targeting.get("rules"), (*path, "rules")):
        rule = check.mapping(item, at, ("conditions", "variantIndex"))
        conditions = [
            _condition(check, condition, place)
            for place, condition in check.items(rule.get("conditions"), (*at, "conditions"))
        ]
        if not conditions:
            check.warn(at, "a rule without conditions matches every session")
        rules.append({"conditions": conditions, "variantIndex": _index(check, rule, at, variants)})
    return {"enabled": enabled, "individualTargets": targets, "rules": rules}


def _condition(check: Check, raw: Any, path: Path) -> dict[str, Any]:
    condition = check.mapping(raw, path, ("field", "operator", "value"))
    operator = _needed(check, condition, path, "operator")
    if operator not in _OPERATORS:
        close = difflib.get_close_matches(str(operator), _OPERATORS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(_OPERATORS)}"
        raise check.fail((*path, "operator"), hint, operator)
    value, at = _needed(check, condition, path, "value"), (*path, "value")
    if operator in ("in", "nin"):
        if not isinstance(value, list):
            raise check.fail(at, f"expected a list, because the operator is {operator!r}", value)
        value = [check.scalar(item, place) for place, item in check.items(value, at)]
    elif operator in ("eq", "neq"):
        value = check.scalar(value, at)
    else:
        value = check.text(value, at, empty=True)
    field = check.text(_needed(check, condition, path, "field"), (*path, "field"))
    return {"field": field, "operator": operator, "value": value}


def _index(check: Check, entry: dict[str, Any], path: Path, variants: int) -> int:
    value = _needed(check, entry, path, "variantIndex")
    expected = f"expected the position of a variant, from 0 to {variants - 1}"
    return check.whole(value, (*path, "variantIndex"), 0, variants - 1, expected)


def _needed(check: Check, entry: dict[str, Any], path: Path, name: str) -> Any:
    if name not in entry:
        raise check.fail(path, f"has no {name!r}, which is needed here")
    return entry[name]


def _check_sum(check: Check, path: Path, weights: list[float]) -> None:
    total = sum(weights)
    if abs(total - 100) > _PERCENT_TOLERANCE:
        check.warn(
            path,
            f"the weights add up to {total:g}, not to 100 percent; "
            "the last variant gets what is missing",
        )


def _dotted(path: Path) -> str:
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return "".join(parts).lstrip(".") or "the file"


def _is_storable(number: int) -> bool:
    return -(1 << 63) <= number < 1 << 64


def _shown(value: Any) -> str:
    """Describe a value: what holds others, and may hold them a billion times, by its kind alone."""
    if isinstance(value, list | tuple | set | dict):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not _is_storable(value):
        return "a number beyond 64 bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
