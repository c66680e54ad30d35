"""Rendering a prompt with its report, chats, and fallbacks as callers give them."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom._core.errors import ConfigurationError
from fallom._core.fallback import check_fallback, compile_fallback
from fallom._core.prompt import CompiledPrompt, compile_prompt


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError


_TEXTS = st.lists(st.sampled_from("{{a}} {{ b }} {{ü}} %(a)s %% text".split())).map(" ".join)
_VARIABLES = st.dictionaries(
    st.sampled_from("a b ü c".split()), st.text() | st.integers() | st.builds(Unspeakable)
)
_CHATS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), _TEXTS), max_size=3)


def has_text(value: Any) -> bool:
    return not isinstance(value, Unspeakable)


@given(_TEXTS, _TEXTS, _CHATS, _VARIABLES, st.sampled_from([None, ""]), st.booleans())
def test_report_and_texts_are_those_of_looking_at_each_name(
    system: str,
    user: str,
    chat: list[tuple[str, str]],
    variables: dict[str, Any],
    instead: str | None,
    is_dict: bool,
) -> None:
    prompt = compile_prompt("k", 1, system, user, chat)
    given: Mapping[str, Any] = variables if is_dict else UserDict(variables)
    system_text, user_text, messages, missing, unused = prompt.render(given, instead)
    templates = [prompt.system, prompt.user, *(template for _, template in prompt.chat)]
    names = [name for template in templates for name in template.names]
    good = {name: value for name, value in variables.items() if has_text(value)}
    assert missing == tuple(dict.fromkeys(name for name in names if name not in good))
    assert unused == tuple(name for name in variables if name not in names)
    filled = good if instead is None else {**dict.fromkeys(missing, instead), **good}
    assert (system_text, user_text) == (
        prompt.system.render_by_pieces(filled)[0],
        prompt.user.render_by_pieces(filled)[0],
    )
    if chat:
        assert messages == tuple(
            (role, each.render_by_pieces(filled)[0]) for role, each in prompt.chat
        )
    else:
        assert messages is None


def test_prompt_without_variables_reports_all_its_names() -> None:
    prompt = compile_prompt("k", 1, "{{a}} {{b}}", "{{a}} 100 %")
    assert prompt.render(None) == ("{{a}} {{b}}", "{{a}} 100 %", None, ("a", "b"), ())
    assert prompt.render(None, "")[:2] == (" ", " 100 %")
    assert compile_prompt("k", 1, "100 %", "").render(None) == ("100 %", "", None, (), ())


def test_mapping_that_cannot_be_walked_reports_nothing_unused() -> None:
    class Closed(UserDict[str, str]):
        def __iter__(self) -> Any:
            raise RuntimeError

    assert compile_prompt("k", 1, "{{a}}", "").render(Closed(a="1")) == ("1", "", None, (), ())


CHAT = [
    ("system", "one {{a}}"),
    ("user", "first"),
    ("assistant", "yes"),
    ("developer", "two"),
    ("user", "last {{b}}"),
    ("tool", "found"),
]


def rendered(*arguments: Any) -> tuple[str, str]:
    return compile_prompt("k", 1, *arguments).render({"a": 1, "b": 2})[:2]


def test_the_two_texts_of_a_chat_are_those_of_its_messages_where_it_has_none_of_its_own() -> None:
    assert rendered("", "", CHAT) == ("one 1\n\ntwo", "last 2")
    assert rendered("own", "", CHAT) == ("own", "last 2")
    assert rendered("", "own", CHAT) == ("one 1\n\ntwo", "own")
    assert rendered("", "", [("assistant", "x")]) == ("", "")


def told(prompt: CompiledPrompt) -> tuple[Any, ...]:
    return prompt.render({"a": 1})[:3]


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [
        ("hi {{a}}", ("", "hi 1", None)),
        ({"system": "s {{a}}", "user": "u"}, ("s 1", "u", None)),
        ({"system": "s"}, ("s", "", None)),
        ([{"role": "user", "content": "u {{a}}"}], ("", "u 1", (("user", "u 1"),))),
        (({"role": "system", "content": "s", "name": "x"},), ("s", "", (("system", "s"),))),
    ],
)
def test_fallback_is_compiled_as_a_prompt_is(fallback: Any, expected: tuple[Any, ...]) -> None:
    check_fallback(fallback)
    prompt = compile_fallback("k", fallback)
    assert (prompt.key, prompt.version, *told(prompt)) == ("k", 0, *expected)


@pytest.mark.parametrize(
    ("fallback", "finding"),
    [
        ("", "is empty"),
        ({}, "is empty"),
        ([], "is empty"),
        (5, "is of type int"),
        (b"secret", "is of type bytes"),
        ({"system": "secret", "usr": "secret"}, "has 'usr'"),
        ({"user": ["secret"]}, "user is of type list"),
        (["secret"], "[0] is of type str"),
        ([{"role": "usr", "content": "secret"}], "[0] has the role 'usr', not system"),
        ([{"content": "secret"}], "[0] has the role None"),
        ([{"role": [], "content": "secret"}], "[0] has the role []"),
        ([{"role": "user", "content": [{"text": "secret"}]}], "[0].content is of type list"),
    ],
)
def test_fallback_that_could_not_serve_is_refused_without_its_text(
    fallback: Any, finding: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_fallback(fallback)
    assert finding in str(refused.value)
    assert "secret" not in str(refused.value)
    assert refused.value.name == "fallback"
