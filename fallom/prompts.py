"""Prompt management: prompts by key, and A/B tests of prompts. Read from memory; no network here.

Getting a prompt tags the next LLM call of the same context (thread or task) with it, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fallom._arguments import check_text
from fallom._context import CURRENT_PROMPT, PromptTag
from fallom._core.assignment import choose_prompt
from fallom._core.errors import NotFoundError
from fallom._core.template import CompiledPrompt
from fallom._runtime import Runtime, current
from fallom._waiting import wait_for_first_publish

__all__ = [
    "PromptResult",
    "clear_prompt_context",
    "get",
    "get_ab",
    "get_prompt_context",
    "init",
]


@dataclass
class PromptResult:
    """A prompt with its variables replaced.

    Attributes:
        key: The prompt's key.
        version: The prompt's version.
        system: The system prompt.
        user: The user's message.
        ab_test_key: The A/B test that chose it, if one did.
        variant_index: The index of the variant in that test, from 0.
    """

    key: str
    version: int
    system: str
    user: str
    ab_test_key: str | None = None
    variant_index: int | None = None


def get(
    prompt_key: str,
    variables: Mapping[str, Any] | None = None,
    version: int | None = None,
) -> PromptResult:
    """Give a managed prompt.

    Args:
        prompt_key: The prompt's key.
        variables: Values for the placeholders ``{{name}}``. An unknown placeholder stays as it is; an
            inserted value is not looked through for placeholders.
        version: Pin to a version; None for the current one.

    Raises:
        NotFoundError: The prompt, or that version of it, is not known.
        TypeError: ``prompt_key`` is no text, or ``variables`` no mapping.

    Blocks:
        Never for the network. Where no snapshot was ever published on this host, up to
        ``cold_start_timeout`` (1 s), once per process.
    """
    if type(prompt_key) is not str:
        check_text(prompt_key=prompt_key)
    if type(variables) is not dict:
        _check_variables(variables)
    runtime = current()
    runtime.look_if_due()
    prompt = runtime.snapshot.prompt(prompt_key, version)
    if prompt is None and runtime.snapshot.is_empty():
        wait_for_first_publish(runtime)
        prompt = runtime.snapshot.prompt(prompt_key, version)
    if prompt is None:
        raise _not_found(runtime, "prompt", prompt_key, version)
    return _result(prompt, variables)


def get_ab(
    ab_test_key: str,
    session_id: str,
    variables: Mapping[str, Any] | None = None,
) -> PromptResult:
    """Give the prompt that a session is assigned to by an A/B test.

    Args:
        ab_test_key: The test's key.
        session_id: The session's id; the same id gets the same prompt.
        variables: As for ``get``.

    Raises:
        NotFoundError: The test, or the prompt that it names, is not known.
        TypeError: ``ab_test_key`` or ``session_id`` is no text, or ``variables`` no mapping.

    Blocks:
        As ``get``.
    """
    if type(ab_test_key) is not str or type(session_id) is not str:
        check_text(ab_test_key=ab_test_key, session_id=session_id)
    if type(variables) is not dict:
        _check_variables(variables)
    runtime = current()
    runtime.look_if_due()
    test = runtime.snapshot.ab_test(ab_test_key)
    if test is None and runtime.snapshot.is_empty():
        wait_for_first_publish(runtime)
        test = runtime.snapshot.ab_test(ab_test_key)
    if test is None:
        raise _not_found(runtime, "prompt A/B test", ab_test_key, None)
    index = choose_prompt(test, session_id)
    variant = test.variants[index]
    prompt = runtime.snapshot.prompt(variant.prompt_key, variant.prompt_version)
    if prompt is None:
        raise _not_found(runtime, "prompt", variant.prompt_key, variant.prompt_version)
    return _result(prompt, variables, ab_test_key, index)


def _result(
    prompt: CompiledPrompt,
    variables: Mapping[str, Any] | None,
    ab_test_key: str | None = None,
    variant_index: int | None = None,
) -> PromptResult:
    CURRENT_PROMPT.set([PromptTag(prompt.key, prompt.version, ab_test_key, variant_index)])
    return PromptResult(
        prompt.key,
        prompt.version,
        prompt.system.render(variables),
        prompt.user.render(variables),
        ab_test_key,
        variant_index,
    )


def _not_found(runtime: Runtime, what: str, key: str, version: int | None) -> NotFoundError:
    named = f"{what} {key!r}" + (f" version {version}" if version is not None else "")
    why = "nothing was ever fetched on this host" if runtime.snapshot.is_empty() else "no such key"
    return NotFoundError(
        f"{named} is not known ({why}). Check the key in the dashboard and fallom.status().",
        key,
        version,
    )


def _check_variables(variables: object) -> None:
    if variables is not None and not isinstance(variables, Mapping):
        raise TypeError(
            f"variables must be a mapping of names to values, not {type(variables).__name__}"
        )


def get_prompt_context() -> dict[str, Any] | None:
    """Give the prompt that the next LLM call of this context is tagged with; None if there is none."""
    held = CURRENT_PROMPT.get()
    if not held:
        return None
    tag = held[-1]
    return {
        "prompt_key": tag.key,
        "prompt_version": tag.version,
        "ab_test_key": tag.ab_test_key,
        "variant_index": tag.variant_index,
    }


def clear_prompt_context() -> None:
    """Have the next LLM call of this context tagged with no prompt."""
    CURRENT_PROMPT.set(None)


def init(api_key: str | None = None, base_url: str | None = None) -> None:
    """Set where prompts come from, and leave the other settings as they are, as earlier releases did.

    ``fallom.init`` sets all at once.

    Raises:
        ConfigurationError: As ``fallom.init``.
    """
    from fallom._changed_settings import change_settings  # paid for by those who use it

    change_settings(api_key=api_key, prompts_url=base_url)
