"""Arguments of the wrong type: a clear error, or the fallback where one was given."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import fallom
from fallom import models, prompts
from fallom.exceptions import NotFoundError
from fallom.testing import capture


class Unhashable:
    __hash__: Any = None

    def __repr__(self) -> str:
        raise RuntimeError("the application's own code")


VERSIONS: list[Any] = [[1], {"version": 1}, Unhashable()]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_that_can_be_no_key_is_not_known(version: Any) -> None:
    with capture(models={"agent": "m"}, prompts={"hello": "Hello."}):
        told = models.explain("agent", "s", version=version)
        assert (told.model, told.reason) == (None, "fallback: version_not_found")
        with pytest.raises(NotFoundError, match=r"version .* is not known"):
            prompts.get("hello", version=version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_that_can_be_no_key_gives_the_fallback(version: Any) -> None:
    with capture(models={"agent": "m"}, prompts={"hello": "Hello."}):
        session = fallom.session("agent", "s")
        assert session.get_model_sync(version=version, fallback="spare") == "spare"
        assert asyncio.run(session.get_model(version=version, fallback="spare")) == "spare"
        assert models.get("agent", "s", version=version, fallback="spare") == "spare"
        assert models.explain("agent", "s", version=version, fallback="spare").model == "spare"
        assert prompts.get("hello", version=version, fallback="Spare.").user == "Spare."


@pytest.mark.parametrize("timeout", [None, "5", [5]])
def test_a_timeout_that_is_no_number_is_told_by_its_name(timeout: Any) -> None:
    said = "timeout must be a number of seconds, not "
    with pytest.raises(TypeError, match=said):
        fallom.flush(timeout)
    with pytest.raises(TypeError, match=said):
        asyncio.run(fallom.aflush(timeout))
    with pytest.raises(TypeError, match=said):
        fallom.wait_until_ready(timeout)


def test_a_key_that_cannot_be_shown_is_told_by_its_type() -> None:
    key: Any = Unhashable()
    with pytest.raises(TypeError, match="prompt_key must be a string, not Unhashable"):
        prompts.get(key)
