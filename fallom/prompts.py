"""Prompt management: prompts by key, and A/B tests of prompts. Read from memory; no network here.

Getting a prompt tags the next LLM call of the same context (thread or task) with it, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar

from fallom._arguments import check_text, version_of
from fallom._context import CURRENT_PROMPT, PromptTag
from fallom._core.assignment import choose_prompt
from fallom._core.errors import ConfigurationError, MissingVariableError, NotFoundError
from fallom._core.fallback import Fallback, check_fallback, compile_fallback
from fallom._core.prompt import Chat, CompiledPrompt
from fallom._runtime import HOLDER, Runtime, current
from fallom._waiting import is_in_event_loop, wait_for_publish

__all__ = [
    "PromptResult",
    "clear_prompt_context",
    "get",
    "get_ab",
    "get_prompt_context",
    "init",
]

T = TypeVar("T")
MissingPolicy: TypeAlias = Literal["leave", "empty", "error"]

# What stands for a missing value; where it is refused, nobody sees what does.
_INSTEAD: Mapping[str, str | None] = {"leave": None, "empty": "", "error": None}


class _AsDataclass:
    """Makes a class a dataclass when somebody asks whether it is: to load ``dataclasses`` takes 4 ms."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner

    def __get__(self, instance: object, owner: type) -> Any:
        from dataclasses import dataclass  # whoever asks has loaded it

        made: Any = dataclass(init=False, repr=False, eq=False)(self._owner)
        return made.__dataclass_fields__  # stands in the place of this one now


class PromptResult:
    """A prompt with its variables replaced; a dataclass.

    Attributes:
        key: The prompt's key; of a fallback that ``get_ab`` gave for an unknown test, empty.
        version: The prompt's version; 0 of a fallback.
        system: The system prompt; of a chat prompt that of its messages, if it has none of its own.
        user: The user's message; of a chat prompt the last one, if it has none of its own.
        ab_test_key: The A/B test that was asked for, if one was.
        variant_index: The index of the variant in that test, from 0; None of a fallback.
        is_fallback: Whether it is the fallback of the call.
        missing: Names of placeholders that had no value, or one that ``str`` raised for.
        unused: Names of variables that no placeholder took.
        chat: The (role, text) pairs of a chat prompt; None of a prompt of two texts.
    """

    key: str
    version: int
    system: str
    user: str
    ab_test_key: str | None = None
    variant_index: int | None = None
    is_fallback: bool = False
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    chat: Chat | None = None

    __match_args__ = (
        "key", "version", "system", "user", "ab_test_key", "variant_index", "is_fallback", "missing",
        "unused", "chat",
    )  # fmt: skip
    __hash__ = None  # type: ignore[assignment]  # it can be changed
    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Any]]
    else:
        __dataclass_fields__ = _AsDataclass()

    def __init__(
        self,
        key: str,
        version: int,
        system: str,
        user: str,
        ab_test_key: str | None = None,
        variant_index: int | None = None,
        is_fallback: bool = False,
        missing: tuple[str, ...] = (),
        unused: tuple[str, ...] = (),
        chat: Chat | None = None,
    ) -> None:
        """Take the fields."""
        self.key = key
        self.version = version
        self.system = system
        self.user = user
        self.ab_test_key = ab_test_key
        self.variant_index = variant_index
        self.is_fallback = is_fallback
        self.missing = missing
        self.unused = unused
        self.chat = chat

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._values() == self._values()

    def __repr__(self) -> str:
        return f"PromptResult({', '.join(f'{n}={v!r}' for n, v in self._values().items())})"

    def __replace__(self, **changes: Any) -> PromptResult:
        return PromptResult(**{**self._values(), **changes})

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__match_args__}

    @cached_property
    def messages(self) -> list[Any]:
        """The messages for a client: mappings with ``role`` and ``content``.

        Of a prompt of two texts, those of the system and the user; an empty text gives none.
        """
        pairs = self.chat
        if pairs is None:
            texts = (("system", self.system), ("user", self.user))
            pairs = tuple(pair for pair in texts if pair[1])
        return [{"role": role, "content": text} for role, text in pairs]


def get(
    prompt_key: str,
    variables: Mapping[str, Any] | None = None,
    version: int | None = None,
    *,
    fallback: Fallback | None = None,
    missing: MissingPolicy = "leave",
) -> PromptResult:
    """Give a managed prompt.

    Args:
        prompt_key: The prompt's key.
        variables: Values for the placeholders ``{{name}}``. An inserted value is not looked through for
            placeholders.
        version: Pin to a version; None for the current one.
        fallback: What to use when the prompt is not known: the user's text, a mapping with ``system``
            and ``user``, or a list of messages with ``role`` and ``content``. It takes the same variables.
        missing: What becomes of a placeholder without a value: "leave" it as it is, make it "empty", or
            "error".

    Raises:
        NotFoundError: The prompt, or that version of it, is not known, and no fallback was given.
        MissingVariableError: A placeholder has no value, and ``missing`` is "error".
        ConfigurationError: ``fallback`` or ``missing`` is none of what is described here.
        TypeError: ``prompt_key`` is no text, or ``variables`` no mapping.

    Blocks:
        Never for the network. Where no snapshot was ever published on this host, and without a fallback
        for a key that is not in one from before the last ``sync_interval``, up to
        ``cold_start_timeout`` (1 s), once per process; under a running event loop, if there is a
        fallback, not at all.
    """
    if type(prompt_key) is not str:
        check_text(prompt_key=prompt_key)
    if type(variables) is not dict:
        _check_variables(variables)
    if fallback is not None:
        check_fallback(fallback)
    if missing not in _INSTEAD:
        raise _no_policy(missing)
    if version is not None:
        version = version_of(version)
    runtime = HOLDER.runtime or current()
    runtime.look_if_due()
    prompt = runtime.snapshot.prompt(prompt_key, version)
    if prompt is None:
        prompt = _awaited(runtime, lambda: runtime.snapshot.prompt(prompt_key, version), fallback)
    if prompt is None:
        if fallback is None:
            raise _not_found(runtime, "prompt", prompt_key, version)
        return _fallback(prompt_key, fallback, variables, missing)
    return _result(prompt, variables, missing)


def get_ab(
    ab_test_key: str,
    session_id: str,
    variables: Mapping[str, Any] | None = None,
    *,
    fallback: Fallback | None = None,
    missing: MissingPolicy = "leave",
) -> PromptResult:
    """Give the prompt that a session is assigned to by an A/B test.

    Args:
        ab_test_key: The test's key.
        session_id: The session's id; the same id gets the same prompt.
        variables: As for ``get``.
        fallback: As for ``get``, for a test, or a prompt that it names, that is not known. The session
            then counts for no variant.
        missing: As for ``get``.

    Raises:
        NotFoundError: The test, or the prompt that it names, is not known, and no fallback was given.
        MissingVariableError: As ``get``.
        ConfigurationError: As ``get``.
        TypeError: ``ab_test_key`` or ``session_id`` is no text, or ``variables`` no mapping.

    Blocks:
        As ``get``.
    """
    if type(ab_test_key) is not str or type(session_id) is not str:
        check_text(ab_test_key=ab_test_key, session_id=session_id)
    if type(variables) is not dict:
        _check_variables(variables)
    if fallback is not None:
        check_fallback(fallback)
    if missing not in _INSTEAD:
        raise _no_policy(missing)
    runtime = HOLDER.runtime or current()
    runtime.look_if_due()
    test = runtime.snapshot.ab_test(ab_test_key)
    if test is None:
        test = _awaited(runtime, lambda: runtime.snapshot.ab_test(ab_test_key), fallback)
    if test is None:
        if fallback is None:
            raise _not_found(runtime, "prompt A/B test", ab_test_key, None)
        return _fallback("", fallback, variables, missing, ab_test_key)
    index = choose_prompt(test, session_id)
    variant = test.variants[index]
    prompt = runtime.snapshot.prompt(variant.prompt_key, variant.prompt_version)
    if prompt is None:
        if fallback is None:
            raise _not_found(runtime, "prompt", variant.prompt_key, variant.prompt_version)
        return _fallback(variant.prompt_key, fallback, variables, missing, ab_test_key)
    return _result(prompt, variables, missing, ab_test_key, index)


def _awaited(runtime: Runtime, find: Callable[[], T | None], fallback: Fallback | None) -> T | None:
    """Wait for a publish with what was not found, as far as that is allowed."""
    if fallback is not None and is_in_event_loop():
        return None
    return wait_for_publish(runtime, find, takes_old=fallback is not None)


def _result(
    prompt: CompiledPrompt,
    variables: Mapping[str, Any] | None,
    policy: str,
    ab_test_key: str | None = None,
    variant_index: int | None = None,
    is_fallback: bool = False,
) -> PromptResult:
    system, user, chat, missing, unused = prompt.render(variables, _INSTEAD[policy])
    if missing and policy == "error":
        raise _without_value(prompt, missing, unused)
    key, version = prompt.key, prompt.version
    tagged = None if is_fallback else version
    CURRENT_PROMPT.set([(key, tagged, ab_test_key, variant_index)])
    return PromptResult(
        key, version, system, user, ab_test_key, variant_index, is_fallback, missing, unused, chat
    )


def _fallback(
    key: str,
    fallback: Fallback,
    variables: Mapping[str, Any] | None,
    policy: str,
    ab_test_key: str | None = None,
) -> PromptResult:
    prompt = compile_fallback(key, fallback)
    return _result(prompt, variables, policy, ab_test_key, is_fallback=True)


def _without_value(
    prompt: CompiledPrompt, missing: tuple[str, ...], unused: tuple[str, ...]
) -> MissingVariableError:
    which = f"prompt {prompt.key!r} version {prompt.version}"
    over = f"; variables that it does not use: {', '.join(map(str, unused))}" if unused else ""
    return MissingVariableError(
        f"{which} has placeholders without a value: {', '.join(missing)}{over}. Give each in variables=, "
        "or missing='leave' or 'empty'.",
        prompt.key,
        missing,
        unused,
    )


def _no_policy(missing: object) -> ConfigurationError:
    return ConfigurationError(
        f"missing must be 'leave', 'empty' or 'error', not {missing!r:.50}.", "missing"
    )


def _not_found(runtime: Runtime, what: str, key: str, version: int | None) -> NotFoundError:
    named = f"{what} {key!r}" + (f" version {version}" if version is not None else "")
    why = "no such key"
    if runtime.snapshot.is_empty():
        why = "nothing was ever fetched on this host"
    elif version is not None and runtime.snapshot.prompt(key) is not None:
        why = "no such version"
    return NotFoundError(
        f"{named} is not known ({why}). Check the key in the dashboard and fallom.status(), or give "
        "fallback= so that the application goes on without it.",
        key,
        version,
    )


def _check_variables(variables: object) -> None:
    if variables is not None and not isinstance(variables, Mapping):
        raise TypeError(
            f"variables must be a mapping of names to values, not {type(variables).__name__}"
        )


def get_prompt_context() -> dict[str, Any] | None:
    """Give the prompt that the next LLM call of this context is tagged with; None if there is none.

    The version of a fallback is None.
    """
    held = CURRENT_PROMPT.get()
    if not held:
        return None
    tag = PromptTag(*held[-1])
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
