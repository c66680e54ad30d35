"""The key and the headers of the user: who is told what."""

from __future__ import annotations

from typing import Any

import pytest

from fallom._core.settings import Settings
from fallom._flusher.credentials import key_headers, traces_headers

KEY = {"Authorization": "Bearer key"}
OWN = {"configs_url": "https://llm.example", "traces_url": "https://llm.example:4318"}
ANOTHER = {"traces_url": "https://otlp.example"}


@pytest.mark.parametrize("where", [{}, OWN, ANOTHER])
def test_the_key_says_who_we_are_where_nothing_else_does(where: dict[str, str]) -> None:
    settings = Settings(api_key="key", **where)
    assert traces_headers(settings) == key_headers(settings) == KEY


@pytest.mark.parametrize("where", [{}, OWN])
def test_the_backend_that_the_key_is_for_gets_it_beside_other_headers(
    where: dict[str, str],
) -> None:
    settings = Settings(api_key="key", traces_headers={"X-Tenant": "t"}, **where)
    assert traces_headers(settings) == {"X-Tenant": "t", **KEY}


def test_another_backend_with_headers_of_its_own_is_not_told_the_key() -> None:
    settings = Settings(api_key="key", traces_headers={"dd-api-key": "d"}, **ANOTHER)
    assert traces_headers(settings) == {"dd-api-key": "d"}
    assert key_headers(settings) == KEY


@pytest.mark.parametrize("where", [{}, OWN, ANOTHER])
@pytest.mark.parametrize("name", ["Authorization", "authorization"])
def test_an_authorization_of_the_user_takes_the_place_of_the_key(
    where: dict[str, str], name: str
) -> None:
    settings = Settings(api_key="key", traces_headers={name: "Basic x"}, **where)
    assert traces_headers(settings) == {name: "Basic x"}


@pytest.mark.parametrize("changes", [{}, {"traces_headers": {"X-Tenant": "t"}}])
def test_without_a_key_none_is_sent(changes: dict[str, Any]) -> None:
    settings = Settings(**changes)
    assert traces_headers(settings) == changes.get("traces_headers", {})
    assert key_headers(settings) == {}
