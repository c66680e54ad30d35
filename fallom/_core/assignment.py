"""Assignment: which variant a session gets. A pure function of the session id and the config.

It must be the same in every process, host and language, so the rule is fixed to the bit:
``bucket = first four bytes of md5(session id), big-endian, modulo 1,000,000``; variants are walked
with ``cumulative += float(weight) * 10000`` until ``bucket < cumulative``; if nobody is reached, the
last variant has it. Neither key nor version is hashed: a session has one bucket for all configs, so that
experiments on the same sessions are not independent of each other.

A config or test that has a ``salt`` (a text without NUL) asks for a bucket of its own: then
``bucket = first four bytes of md5(salt, one zero byte, session id), big-endian, modulo 1,000,000``, with
texts as UTF-8, and the same walk. Two of them with the same salt go together; of different salts they are
independent. An implementation that does not know the field ignores it, and assigns by the first rule.

| salt | session id | first four bytes | bucket |
| --- | --- | --- | --- |
| (none) | session-123 | 79c5ca4c | 5516 |
| checkout | session-123 | 1cb801fc | 821180 |
| greeting-2026 | session-123 | 5dd3f793 | 172563 |
| checkout | user-42 | 208fc2a9 | 292393 |
| größe | søren | f285bb64 | 850532 |

A walk costs one md5 and one bisection, because ``bucket < cumulative`` for whole buckets is the same
as ``bucket < ceil(cumulative)``, and these integers are made once per config.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fallom._core.digest import md5
from fallom._core.frozen import Frozen
from fallom._core.targeting import INDIVIDUAL, CompiledTargeting, find_target

__all__ = [
    "BUCKETS",
    "Assignment",
    "CompiledConfig",
    "CompiledTest",
    "PromptVariant",
    "bucket_of",
    "choose",
    "choose_prompt",
    "compile_salt",
    "compile_thresholds",
    "explain",
]

_first_four = struct.Struct(">I12x").unpack  # big-endian
BUCKETS = 1_000_000  # a weight is a percentage, so 0.01 % is 100 buckets


class CompiledConfig(NamedTuple):
    """One version of a config, ready to be walked."""

    key: str
    version: int
    models: tuple[str, ...]
    thresholds: tuple[int, ...]  # of ``compile_thresholds``, one a model
    targeting: CompiledTargeting | None = None
    salt: bytes = b""  # of ``compile_salt``


class PromptVariant(NamedTuple):
    """One arm of a prompt A/B test."""

    prompt_key: str
    prompt_version: int | None  # None for the prompt's current version


class CompiledTest(NamedTuple):
    """A prompt A/B test, ready to be walked."""

    key: str
    version: int
    variants: tuple[PromptVariant, ...]
    thresholds: tuple[int, ...]
    salt: bytes = b""  # of ``compile_salt``


class Assignment(Frozen):
    """Who got what, and why.

    Attributes:
        model: The model of the variant.
        index: Of the variant, from 0.
        bucket: Of the session, 0 to 999,999; also where targeting decided.
        reason: "individual_target", "rule:0" (the number of the rule) or "weight".
    """

    model: str
    index: int
    bucket: int
    reason: str


def bucket_of(session_id: str, salt: bytes = b"") -> int:
    """Give the bucket of a session, 0 to 999,999.

    Args:
        session_id: The session.
        salt: Of ``compile_salt``; empty for the bucket that is the same in every config without a salt.
    """
    try:
        raw = session_id.encode()
    except UnicodeEncodeError:  # lone surrogates; no well-formed id is spelled by these bytes
        raw = session_id.encode("utf-8", "surrogatepass")
    bucket: int = _first_four(md5(salt + raw).digest())[0] % BUCKETS
    return bucket


def compile_salt(salt: str) -> bytes:
    """Give what is hashed before the session id for a config's salt; nothing for none."""
    return salt.encode() + b"\0" if salt else b""


def compile_thresholds(weights: Iterable[float]) -> tuple[int, ...]:
    """Give for each variant the lowest bucket that is beyond it.

    The sums are accumulated as floats, in order, because the rule does so and its rounding decides
    who gets the bucket at an edge. They never fall, which bisection needs: a negative weight makes
    its variant unreachable, as in the walk. The last variant has whatever is left.
    """
    thresholds: list[int] = []
    cumulative = 0.0
    reached = 0
    for weight in weights:
        cumulative += float(weight) * 10000
        if cumulative > reached:  # False for NaN, as every comparison of the walk would be
            reached = math.ceil(cumulative) if cumulative < BUCKETS else BUCKETS
        thresholds.append(reached)
    if thresholds:
        thresholds[-1] = BUCKETS
    return tuple(thresholds)


def choose(
    config: CompiledConfig,
    session_id: str,
    customer_id: str | None = None,
    context: Mapping[str, Any] | None = None,
) -> int:
    """Give the index of the variant that a session gets. Never raises for text session ids."""
    if config.targeting is not None:
        target = find_target(config.targeting, customer_id, context)
        if target is not None and 0 <= target[1] < len(config.models):
            return target[1]
    return bisect_right(config.thresholds, bucket_of(session_id, config.salt))


def explain(
    config: CompiledConfig,
    session_id: str,
    customer_id: str | None = None,
    context: Mapping[str, Any] | None = None,
) -> Assignment:
    """Give what ``choose`` gives, with the bucket and the reason."""
    bucket = bucket_of(session_id, config.salt)
    if config.targeting is not None:
        target = find_target(config.targeting, customer_id, context)
        if target is not None and 0 <= target[1] < len(config.models):
            rule, index = target
            reason = "individual_target" if rule == INDIVIDUAL else f"rule:{rule}"
            model = config.models[index]
            return Assignment(model=model, index=index, bucket=bucket, reason=reason)
    index = bisect_right(config.thresholds, bucket)
    return Assignment(model=config.models[index], index=index, bucket=bucket, reason="weight")


def choose_prompt(test: CompiledTest, session_id: str) -> int:
    """Give the index of the variant of a prompt A/B test that a session gets."""
    return bisect_right(test.thresholds, bucket_of(session_id, test.salt))
