"""Getting prompts: fallbacks, missing variables, chats, and what is then on spans."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fallom
from fallom import ConfigurationError, NotFoundError, PromptResult, prompts
from fallom._tracing import ContextTracing
from fallom.exceptions import MissingVariableError
from fallom.testing import Capture, capture

CHAT = [
    {"role": "system", "content": "Label: {{labels}}."},
    {"role": "user", "content": "{{question}}"},
]
SERVED = {"hello": {"system": "Greet {{name}}.", "user": "From {{ place }}.", "version": 3}}
VALUES = {"name": "Ann", "place": "Oslo"}


@pytest.fixture
def served() -> Iterator[Capture]:
    tests = {"test": {"hello": 100}, "broken": {"gone": 100}}
    with capture(prompts={**SERVED, "chat": CHAT}, ab_tests=tests) as captured:
        yield captured


def tag() -> dict[str, Any]:
    """Take what the next call's span says of the prompt."""
    return ContextTracing().call_attributes()


@pytest.mark.usefixtures("served")
def test_known_prompt_is_given_though_there_is_a_fallback() -> None:
    plain = prompts.get("hello", VALUES)
    assert plain == PromptResult("hello", 3, "Greet Ann.", "From Oslo.")
    assert prompts.get("hello", VALUES, fallback="other", missing="error") == plain
    assert prompts.get_ab("test", "s", VALUES, fallback="other") == PromptResult(
        "hello", 3, "Greet Ann.", "From Oslo.", "test", 0
    )
    assert tag() == {
        "fallom.prompt_key": "hello",
        "fallom.prompt_version": 3,
        "gen_ai.prompt.name": "hello",
        "gen_ai.prompt.version": "3",
        "fallom.prompt_ab_test": "test",
        "fallom.prompt_variant": 0,
    }


@pytest.mark.usefixtures("served")
def test_fallback_serves_for_an_unknown_prompt_and_for_an_unknown_version() -> None:
    for key, version in (("nothing", None), ("hello", 9)):
        found = prompts.get(key, VALUES, version, fallback="Hi {{name}}")
        assert found == PromptResult(key, 0, "", "Hi Ann", is_fallback=True, unused=("place",))
        context = prompts.get_prompt_context()
        assert context is not None
        assert (context["prompt_key"], context["prompt_version"]) == (key, None)
        assert tag() == {
            "fallom.prompt_key": key,
            "gen_ai.prompt.name": key,
            "fallom.prompt_fallback": True,
        }
        assert tag() == {}


@pytest.mark.usefixtures("served")
def test_fallback_of_a_test_counts_for_no_variant() -> None:
    unknown = prompts.get_ab("nothing", "s", VALUES, fallback={"system": "{{name}}"})
    assert (unknown.key, unknown.version, unknown.system) == ("", 0, "Ann")
    assert (unknown.ab_test_key, unknown.variant_index) == ("nothing", None)
    assert tag() == {"fallom.prompt_fallback": True, "fallom.prompt_ab_test": "nothing"}
    broken = prompts.get_ab("broken", "s", fallback="Hi")
    assert (broken.key, broken.variant_index, broken.is_fallback) == ("gone", None, True)
    assert tag() == {
        "fallom.prompt_key": "gone",
        "gen_ai.prompt.name": "gone",
        "fallom.prompt_fallback": True,
        "fallom.prompt_ab_test": "broken",
    }


@pytest.mark.usefixtures("served")
def test_without_a_fallback_nothing_changed() -> None:
    with pytest.raises(NotFoundError, match=r"'nothing' is not known \(no such key"):
        prompts.get("nothing")
    with pytest.raises(NotFoundError, match=r"'hello' version 99 is not known \(no such version"):
        prompts.get("hello", version=99)
    with pytest.raises(NotFoundError, match=r"'nothing' is not known \(no such key"):
        prompts.get_ab("nothing", "s")
    with pytest.raises(NotFoundError, match="'gone'"):
        prompts.get_ab("broken", "s")


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("known", ["hello", "nothing"])
def test_fallback_that_could_not_serve_is_refused_at_every_call(known: str) -> None:
    for bad in ("", 5, {"usr": "secret"}):
        with pytest.raises(ConfigurationError, match="fallback"):
            prompts.get(known, VALUES, fallback=bad)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="fallback"):
            prompts.get_ab(known, "s", VALUES, fallback=bad)  # type: ignore[arg-type]


@pytest.fixture
def nothing_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host without a flusher, on which a read would wait for a minute."""
    monkeypatch.setenv("FALLOM_STATE_DIR", str(tmp_path / "state"))
    fallom.init(api_key="k", flusher="external", cold_start_timeout=60)


@pytest.mark.usefixtures("nothing_published")
def test_under_an_event_loop_a_fallback_is_given_at_once() -> None:
    async def ask() -> list[PromptResult]:
        return [prompts.get("p", fallback="f"), prompts.get_ab("t", "s", fallback="f")]

    before = time.monotonic()
    assert [found.user for found in asyncio.run(ask())] == ["f", "f"]
    assert time.monotonic() - before < 30


def test_elsewhere_a_fallback_waits_for_the_first_publish_as_models_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FALLOM_STATE_DIR", str(tmp_path / "state"))
    fallom.init(api_key="k", flusher="external", cold_start_timeout=0.2)
    before = time.monotonic()
    assert prompts.get("p", fallback="f").is_fallback
    assert time.monotonic() - before >= 0.2


@pytest.mark.usefixtures("served")
def test_missing_variables_are_left_and_told() -> None:
    found = prompts.get("hello", {"nmae": "Ann", "place": "Oslo"})
    assert (found.system, found.user) == ("Greet {{name}}.", "From Oslo.")
    assert (found.missing, found.unused) == (("name",), ("nmae",))
    assert prompts.get("hello").missing == ("name", "place")
    assert prompts.get("hello", {**VALUES, "more": 1}).unused == ("more",)
    complete = prompts.get_ab("test", "s", VALUES)
    assert (complete.missing, complete.unused) == ((), ())


@pytest.mark.usefixtures("served")
def test_missing_variables_may_be_empty() -> None:
    found = prompts.get("hello", {"place": "Oslo"}, missing="empty")
    assert (found.system, found.user, found.missing) == ("Greet .", "From Oslo.", ("name",))
    assert prompts.get_ab("test", "s", missing="empty").user == "From ."
    assert prompts.get("nothing", fallback="Hi {{name}}!", missing="empty").user == "Hi !"


@pytest.mark.usefixtures("served")
def test_missing_variables_may_be_an_error_that_names_them_and_holds_no_value() -> None:
    for get in (
        lambda given: prompts.get("hello", given, missing="error"),
        lambda given: prompts.get_ab("test", "s", given, missing="error"),
        lambda given: prompts.get(
            "hello", given, 9, fallback={"system": "{{name}}"}, missing="error"
        ),
    ):
        with pytest.raises(MissingVariableError) as raised:
            get({"nmae": "the-secret", 5: "the-secret"})
        error = raised.value
        assert error.key == "hello"
        assert error.missing[0] == "name"
        assert error.unused == ("nmae", 5)
        assert "without a value: name" in str(error)
        assert "does not use: nmae, 5" in str(error)
        assert "the-secret" not in str(error)
        assert isinstance(error, ValueError)
        assert tag() == {}, "a prompt that was not given tags nothing"
    assert prompts.get("hello", VALUES, missing="error").missing == ()


@pytest.mark.usefixtures("served")
def test_policy_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'leave', 'empty' or 'error', not 'keep'"):
        prompts.get("hello", VALUES, missing="keep")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="missing must be"):
        prompts.get_ab("test", "s", VALUES, missing=None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("served")
def test_chat_has_messages_and_the_two_texts_of_earlier_code() -> None:
    found = prompts.get("chat", {"labels": "a, b", "question": "{{labels}}?"})
    assert found.messages == [
        {"role": "system", "content": "Label: a, b."},
        {"role": "user", "content": "{{labels}}?"},
    ]
    assert (found.system, found.user) == ("Label: a, b.", "{{labels}}?")
    assert prompts.get("chat").missing == ("labels", "question")
    instead = prompts.get("nothing", {"question": "q"}, fallback=CHAT, missing="empty")
    assert [message["content"] for message in instead.messages] == ["Label: .", "q"]


@pytest.mark.usefixtures("served")
def test_prompt_of_two_texts_has_messages_too() -> None:
    found = prompts.get("hello", VALUES)
    assert found.messages == [
        {"role": "system", "content": "Greet Ann."},
        {"role": "user", "content": "From Oslo."},
    ]
    assert prompts.get("nothing", fallback="Hi").messages == [{"role": "user", "content": "Hi"}]


@pytest.mark.usefixtures("served")
def test_messages_can_be_added_to_and_are_nobody_elses() -> None:
    found = prompts.get("chat")
    found.messages.append({"role": "assistant", "content": "more"})
    found.messages[0]["content"] = "changed"
    assert len(found.messages) == 3
    assert prompts.get("chat").messages[0]["content"] == "Label: {{labels}}."
    assert len(prompts.get("chat").messages) == 2


@pytest.mark.usefixtures("served")
def test_result_can_be_pickled_and_changed() -> None:
    found = prompts.get("hello", VALUES)
    assert found.messages
    assert pickle.loads(pickle.dumps(found)) == found
    changed = dataclasses.replace(found, user="Other.")
    assert changed.messages[1]["content"] == "Other."
    assert changed != found


@pytest.mark.usefixtures("served")
def test_result_is_a_dataclass_to_whoever_asks() -> None:
    found = prompts.get("hello", VALUES)
    assert dataclasses.is_dataclass(found)
    names = [field.name for field in dataclasses.fields(found)]
    assert names == list(prompts.PromptResult.__match_args__)
    assert prompts.PromptResult(**dataclasses.asdict(found)) == found
    assert repr(found).startswith("PromptResult(key='hello', version=")
    with pytest.raises(TypeError, match="unhashable"):
        hash(found)


def test_capture_refuses_a_message_that_cannot_be_served() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"messages\[0\].role is 'usr'; expected one of"),
        capture(prompts={"p": [{"role": "usr", "content": "x"}]}),
    ):
        pass
