"""The entry: one immutable version of a config, a prompt or an A/B test, as bytes.

An entry is one msgpack array, canonical: the same content gives the same bytes on every host, so that
its name can be the hash of them. Its first element is the format, 1; its second the kind.

| kind | the array |
| --- | --- |
| 1 config | ``[1, 1, key, version, [[model, weight], ...], targeting, salt]`` |
| 2 prompt | ``[1, 2, key, version, system, user, [[role, text], ...]]`` |
| 3 A/B test | ``[1, 3, key, version, [[prompt key, prompt version or nil, weight], ...], salt]`` |

Weights are 64-bit floats. Targeting is nil or ``[targets, rules]``: a target is ``[field, value, variant
index]``, a rule ``[conditions, variant index]``, a condition ``[field, operator, value]``. Values are
JSON; their objects have sorted keys. The last element, salt or messages, is left out where there is
none. Text is UTF-8, lone surrogates as three bytes each.

Worked example, an A/B test "t" version 2 with one variant, prompt "p", its current version, weight 1:
``95 01 03 a1 74 02 91 93 a1 70 c0 cb 3f f0 00 00 00 00 00 00``.

The database is data from outside: ``decode_entry`` raises nothing but ``PayloadError``. Another format
is refused, not guessed at; a reader then keeps what it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, NoReturn, TypeAlias

import msgpack

from fallom._core.assignment import (
    CompiledConfig,
    CompiledTest,
    PromptVariant,
    compile_salt,
    compile_thresholds,
)
from fallom._core.digest import sha256
from fallom._core.errors import PayloadError
from fallom._core.prompt import CompiledPrompt, compile_prompt
from fallom._core.targeting import CompiledTargeting, compile_targeting

__all__ = [
    "ENTRY_BYTES_MAX",
    "KEY_CHARS_MAX",
    "SALT_CHARS_MAX",
    "VERSION_MAX",
    "AbTestRecord",
    "Compiled",
    "CompiledPrompt",
    "ConfigRecord",
    "Entry",
    "Kind",
    "PromptRecord",
    "Record",
    "canonical_value",
    "decode_entry",
    "encode_entry",
    "hash_of",
]

ENTRY_BYTES_MAX = 8 << 20  # guess: longer than any model's context; bounds what a reader loads
KEY_CHARS_MAX = 1024  # of keys and models; guess
SALT_CHARS_MAX = 200  # guess: a key and a date
VERSION_MAX = (1 << 63) - 1  # OTLP's integers
VALUE_DEPTH_MAX = (
    16  # of a targeting value; guess: a value that is compared is rarely nested at all
)

_FORMAT = 1


class Kind(IntEnum):
    """What an entry is; the numbers are on disk."""

    CONFIG = 1
    PROMPT = 2
    AB_TEST = 3


class ConfigRecord(NamedTuple):
    """A validated config version."""

    key: str
    version: int
    variants: Sequence[tuple[str, float]]  # (model, weight)
    targeting: tuple[Sequence[Any], Sequence[Any]] | None  # (targets, rules)
    salt: str = ""


class PromptRecord(NamedTuple):
    """A validated prompt version."""

    key: str
    version: int
    system: str
    user: str
    messages: Sequence[tuple[str, str]] = ()  # (role, text)


class AbTestRecord(NamedTuple):
    """A validated A/B test."""

    key: str
    version: int
    variants: Sequence[tuple[str, int | None, float]]  # (prompt key, prompt version, weight)
    salt: str = ""


Record: TypeAlias = "ConfigRecord | PromptRecord | AbTestRecord"
Compiled: TypeAlias = "CompiledConfig | CompiledPrompt | CompiledTest"

_KINDS: dict[type[Any], Kind] = {
    ConfigRecord: Kind.CONFIG,
    PromptRecord: Kind.PROMPT,
    AbTestRecord: Kind.AB_TEST,
}


class Entry(NamedTuple):
    """An encoded entry and what the manifest says of it."""

    kind: Kind
    key: str
    version: int
    hash: str
    data: bytes


def hash_of(data: bytes) -> str:
    """Give the name of an entry: half a SHA-256 in hex, because collisions must not be findable."""
    return sha256(data).hexdigest()[:32]


def encode_entry(record: Record) -> Entry:
    """Encode a validated record.

    Raises:
        PayloadError: It is too long, or holds what msgpack cannot (an integer beyond 64 bits).
    """
    kind = _KINDS[type(record)]
    fields: tuple[Any, ...] = record
    if not fields[-1]:  # the bytes, and so the name, are those of before there was this element
        fields = fields[:-1]
    try:
        data: bytes = msgpack.packb((_FORMAT, int(kind), *fields), unicode_errors="surrogatepass")
    except (ValueError, OverflowError) as error:
        raise PayloadError(
            f"a value cannot be stored ({error}); expected JSON with integers of at most 64 bits."
        ) from None
    if len(data) > ENTRY_BYTES_MAX:
        raise PayloadError(
            f"it is {len(data)} bytes long; expected at most {ENTRY_BYTES_MAX}. Shorten its text."
        )
    return Entry(kind, record.key, record.version, hash_of(data), data)


def decode_entry(data: bytes) -> Compiled:
    """Decode an entry to what workers use.

    Raises:
        PayloadError: These bytes are no entry of this format.
    """
    if len(data) > ENTRY_BYTES_MAX:
        _refuse(f"an entry of {len(data)} bytes")
    try:
        fields = msgpack.unpackb(data, unicode_errors="surrogatepass", strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        _refuse(f"an entry that is not msgpack ({type(error).__name__})")
    if type(fields) is not list or len(fields) < 2 or fields[0] != _FORMAT:
        _refuse("an entry of another format")
    decode = _DECODERS.get(fields[1]) if type(fields[1]) is int else None
    if decode is None:
        _refuse("an entry of another kind")
    return decode(fields[2:])


def canonical_value(value: Any, depth: int = 0) -> Any:
    """Give a JSON value with its objects' keys sorted.

    Raises:
        ValueError: It is nested too deeply or is no JSON value; the message says which.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if depth >= VALUE_DEPTH_MAX:
        raise ValueError(f"nested deeper than {VALUE_DEPTH_MAX} levels")
    if type(value) is list:
        return [canonical_value(each, depth + 1) for each in value]
    if type(value) is not dict or any(type(key) is not str for key in value):
        raise ValueError(f"of type {type(value).__name__}")
    return {key: canonical_value(value[key], depth + 1) for key in sorted(value)}


def _decode_config(fields: list[Any]) -> CompiledConfig:
    key, version, variants, targeting, salt = _exactly(_with_last(fields, 4, ""), 5)
    models: list[str] = []
    weights: list[float] = []
    for variant in _rows(variants, 2, "variants"):
        models.append(_text(variant[0], "model"))
        weights.append(_weight(variant[1]))
    return CompiledConfig(
        _text(key, "key"),
        _version(version),
        tuple(models),
        compile_thresholds(weights),
        None if targeting is None else _decode_targeting(targeting),
        _salt(salt),
    )


def _decode_targeting(targeting: Any) -> CompiledTargeting:
    targets, rules = _exactly(targeting, 2)
    for target in _rows(targets, 3, "targets", empty=True):
        _text(target[0], "field")
        _value(target[1])
        _index(target[2])
    for rule in _rows(rules, 2, "rules", empty=True):
        for condition in _rows(rule[0], 3, "conditions", empty=True):
            _text(condition[0], "field")
            _text(condition[1], "operator")
            _value(condition[2])
        _index(rule[1])
    return compile_targeting(targets, rules)


def _decode_prompt(fields: list[Any]) -> CompiledPrompt:
    key, version, system, user, messages = _exactly(_with_last(fields, 4, []), 5)
    return compile_prompt(
        _text(key, "key"),
        _version(version),
        _text(system, "system"),
        _text(user, "user"),
        [
            (_text(role, "role"), _text(text, "message"))
            for role, text in _rows(messages, 2, "messages", empty=True)
        ],
    )


def _decode_test(fields: list[Any]) -> CompiledTest:
    key, version, variants, salt = _exactly(_with_last(fields, 3, ""), 4)
    found: list[PromptVariant] = []
    weights: list[float] = []
    for prompt_key, prompt_version, weight in _rows(variants, 3, "variants"):
        pinned = None if prompt_version is None else _version(prompt_version)
        found.append(PromptVariant(_text(prompt_key, "prompt key"), pinned))
        weights.append(_weight(weight))
    return CompiledTest(
        _text(key, "key"),
        _version(version),
        tuple(found),
        compile_thresholds(weights),
        _salt(salt),
    )


_DECODERS: dict[int, Callable[[list[Any]], Compiled]] = {
    Kind.CONFIG: _decode_config,
    Kind.PROMPT: _decode_prompt,
    Kind.AB_TEST: _decode_test,
}


def _refuse(found: str) -> NoReturn:
    raise PayloadError(f"the snapshot holds {found}; expected an entry of format {_FORMAT}.")


def _exactly(fields: Any, count: int) -> list[Any]:
    if type(fields) is not list or len(fields) != count:
        _refuse("an entry with missing or surplus fields")
    return fields


def _with_last(fields: list[Any], count_without: int, none: Any) -> list[Any]:
    return [*fields, none] if len(fields) == count_without else fields


def _rows(rows: Any, width: int, name: str, empty: bool = False) -> list[list[Any]]:
    if type(rows) is not list or not (rows or empty):
        _refuse(f"an entry without {name}")
    if any(type(row) is not list or len(row) != width for row in rows):
        _refuse(f"an entry with malformed {name}")
    return rows


def _text(value: Any, name: str) -> str:
    if type(value) is not str:
        _refuse(f"an entry whose {name} is not text")
    return value


def _salt(value: Any) -> bytes:
    try:
        return compile_salt(_text(value, "salt"))
    except UnicodeEncodeError:
        _refuse("a salt that is not valid Unicode")


def _value(value: Any) -> None:
    try:
        canonical_value(value)
    except ValueError as error:
        _refuse(f"a targeting value {error}")


def _version(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= VERSION_MAX:
        _refuse("an entry whose version is not a version")
    return value


def _weight(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value) or value < 0:
        _refuse("an entry whose weight is not a weight")
    return value


def _index(value: Any) -> None:
    if type(value) is not int:
        _refuse("an entry whose variant index is not a number")
