"""From an entry back to the item that the server lists: for people, and for a snapshot to ship with.

The inverse of ``schema``: what ``read_listing`` makes of an item is the entry that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from fallom._snapshot.entries import Kind, decode_entry

__all__ = ["item_of"]


def item_of(data: bytes) -> dict[str, Any]:
    """Give an entry as an item of the server's payload.

    Raises:
        PayloadError: These bytes are no entry.
    """
    decode_entry(data)  # looks at every field
    fields = msgpack.unpackb(data, unicode_errors="surrogatepass", strict_map_key=True)
    return _ITEMS[Kind(fields[1])](*fields[2:])


def _config(
    key: str, version: int, variants: list[Any], targeting: Any, salt: str = ""
) -> dict[str, Any]:
    return {
        "key": key,
        "version": version,
        "variants": [{"model": model, "weight": weight} for model, weight in variants],
        "targeting": None if targeting is None else _targeting(*targeting),
        **({"salt": salt} if salt else {}),
    }


def _targeting(targets: list[Any], rules: list[Any]) -> dict[str, Any]:
    return {
        "enabled": True,
        "individualTargets": [
            {"field": field, "value": value, "variantIndex": index}
            for field, value, index in targets
        ],
        "rules": [
            {
                "conditions": [
                    {"field": field, "operator": operator, "value": value}
                    for field, operator, value in conditions
                ],
                "variantIndex": index,
            }
            for conditions, index in rules
        ],
    }


def _prompt(
    key: str, version: int, system: str, user: str, messages: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    item: dict[str, Any] = {
        "key": key,
        "version": version,
        "system_prompt": system,
        "user_template": user,
    }
    if messages:
        item["messages"] = [{"role": role, "content": text} for role, text in messages]
    return item


def _test(key: str, version: int, variants: list[Any], salt: str = "") -> dict[str, Any]:
    return {
        "key": key,
        "version": version,
        "variants": [
            {"prompt_key": prompt_key, "prompt_version": prompt_version, "weight": weight}
            for prompt_key, prompt_version, weight in variants
        ],
        **({"salt": salt} if salt else {}),
    }


_ITEMS: dict[Kind, Callable[..., dict[str, Any]]] = {
    Kind.CONFIG: _config,
    Kind.PROMPT: _prompt,
    Kind.AB_TEST: _test,
}
