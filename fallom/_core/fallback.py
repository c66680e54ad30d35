"""The fallback of a prompt, as a caller gives it: a text, two texts by name, or a list of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from fallom._core.errors import ConfigurationError
from fallom._core.prompt import ROLES, CompiledPrompt, compile_prompt

__all__ = ["FALLBACK_VERSION", "Fallback", "check_fallback", "compile_fallback"]

FALLBACK_VERSION = 0  # what a fallback's result says; nothing about it is put on spans

Fallback: TypeAlias = "str | Mapping[str, str] | Sequence[Mapping[str, str]]"

_EXPECTED = (
    "expected the user's text, a mapping with 'system' and 'user', or a list of messages, each with "
    "'role' and 'content'"
)


def check_fallback(fallback: Any) -> None:
    """See that a fallback can serve; at every call, because a mistake must not wait for the bad day.

    Raises:
        ConfigurationError: It cannot; the message says why, and holds none of its text.
    """
    if not fallback:
        raise _refusal("is empty")
    if isinstance(fallback, str):
        return
    if isinstance(fallback, Mapping):
        for name, text in fallback.items():
            if name not in ("system", "user"):
                raise _refusal(f"has {name!r:.50}")
            _check_text(text, name)
    elif isinstance(fallback, list | tuple):
        for number, message in enumerate(fallback):
            if not isinstance(message, Mapping):
                raise _refusal(f"[{number}] is of type {type(message).__name__}")
            role = message.get("role")
            if role not in ROLES:
                raise _refusal(f"[{number}] has the role {role!r:.50}, not {', '.join(ROLES)}")
            _check_text(message.get("content"), f"[{number}].content")
    else:
        raise _refusal(f"is of type {type(fallback).__name__}")


def compile_fallback(key: str, fallback: Any) -> CompiledPrompt:
    """Compile a fallback that was checked."""
    if isinstance(fallback, str):
        return compile_prompt(key, FALLBACK_VERSION, "", fallback)
    if isinstance(fallback, Mapping):
        system, user = fallback.get("system", ""), fallback.get("user", "")
        return compile_prompt(key, FALLBACK_VERSION, system, user)
    messages = [(message["role"], message["content"]) for message in fallback]
    return compile_prompt(key, FALLBACK_VERSION, "", "", messages)


def _check_text(text: Any, name: str) -> None:
    if not isinstance(text, str):
        raise _refusal(f"{name} is of type {type(text).__name__}")


def _refusal(finding: str) -> ConfigurationError:
    return ConfigurationError(f"fallback {finding}; {_EXPECTED}.", "fallback")
