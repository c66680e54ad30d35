"""The masks that come with fallom, and what becomes of a text on its way through one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallom
from fallom import _runtime, masks
from fallom._core.masking import MASK_FAILED, guarded_mask, mask_json_or_text
from fallom.exceptions import ConfigurationError

HERE: Any = {f"{name}_url": "http://127.0.0.1:9" for name in ("traces", "configs", "prompts")}


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnop1234",
        "sk-ant-api03-abcdefghijklmnop-_x",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "xoxb-1234567890-abcdef",
        "sk_live_abcdefghijklmnop",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_a_key_is_masked_and_what_is_around_it_stays(key: str) -> None:
    assert masks.api_keys(f"use {key}, please") == "use [key], please"
    assert masks.api_keys(key) == "[key]"


def test_a_bearer_token_is_masked_without_its_word() -> None:
    assert masks.api_keys("Authorization: Bearer abc.def-123") == "Authorization: Bearer [key]"


def test_words_are_no_keys() -> None:
    text = (
        "ask-me-anything about risk-management, sketches, task_force and disk-space-of-the-server"
    )
    assert masks.api_keys(text) == text


@pytest.mark.parametrize("address", ["ada@example.com", "a.b+c@mail.example.co.uk", "ü@exämple.de"])
def test_an_address_is_masked(address: str) -> None:
    assert masks.email_addresses(f"write to <{address}>.") == "write to <[e-mail]>."


def test_what_only_has_an_at_sign_is_no_address() -> None:
    assert masks.email_addresses("@decorator a @ b x@y") == "@decorator a @ b x@y"


def test_a_data_url_is_masked() -> None:
    text = 'see ![x](data:image/png;base64,iVBORw0KGgo=) and "data:,hello"'
    assert masks.data_urls(text) == 'see ![x]([data URL]) and "[data URL]"'
    assert masks.data_urls("data: a, b") == "data: a, b"


def test_masks_compose_in_their_order() -> None:
    both = masks.compose(masks.email_addresses, str.upper)
    assert both("ada@example.com") == "[E-MAIL]"


@given(st.text())
def test_a_mask_of_a_masked_text_changes_nothing(text: str) -> None:
    mask = masks.compose(masks.data_urls, masks.api_keys, masks.email_addresses)
    once = mask(text)
    assert mask(once) == once


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", "@", "a@", "a@b.", "data:", "eyJ", "sk-", "Bearer ", "-----BEGIN PRIVATE KEY-----"],
)
@pytest.mark.timeout(20)
def test_no_text_takes_a_mask_more_than_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    for mask in (masks.data_urls, masks.api_keys, masks.email_addresses):
        mask(text)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_json_stays_json_and_each_text_in_it_is_masked(value: Any) -> None:
    seen: list[str] = []

    def mask(text: str) -> str:
        seen.append(text)
        return 'a "quote"\n'

    masked = mask_json_or_text(mask, json.dumps([value]))
    assert str(json.loads(masked)).count("quote") == len(seen)


def test_what_is_no_json_is_masked_as_one_text() -> None:
    assert mask_json_or_text(str.upper, "[oops") == "[OOPS"
    assert mask_json_or_text(str.upper, "plain") == "PLAIN"


@pytest.mark.parametrize("given_back", [None, 1, b"x"])
def test_what_a_mask_gives_that_is_no_text_is_not_recorded(given_back: Any) -> None:
    failed: list[BaseException] = []
    assert guarded_mask(lambda _: given_back, failed.append)("x") == MASK_FAILED
    assert len(failed) == 1


def test_a_mask_that_raises_masks_all_and_is_counted_without_a_word_of_the_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def mask(text: str) -> str:
        raise ValueError(f"cannot do {text}")

    caplog.set_level(logging.DEBUG, "fallom")
    fallom.init(**HERE, flusher="external", mask=mask)
    guarded = _runtime.current().mask
    assert guarded is not None
    assert guarded("secret") == "[mask failed]"
    assert fallom.status()["dropped"] == {"internal": 1}
    assert "the mask raised ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_a_mask_stays_until_another_is_given() -> None:
    fallom.init(**HERE, flusher="external", mask=str.upper)
    runtime = _runtime.current()
    fallom.init(**HERE, flusher="external")
    assert _runtime.current() is runtime
    fallom.init(**HERE, flusher="external", service_name="other")
    mask = _runtime.current().mask
    assert mask is not None
    assert mask("a") == "A"
    fallom.init(**HERE, flusher="external", service_name="other", mask=str.title)
    mask = _runtime.current().mask
    assert mask is not None
    assert mask("abc") == "Abc"


def test_what_cannot_be_called_is_no_mask(state_dir: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"mask must be a callable.*not str.*fallom\.masks"
    ):
        fallom.init(**HERE, mask="emails")


def test_the_mask_is_not_told_to_the_flusher() -> None:
    from fallom._core.settings import settings_to_dict

    fallom.init(**HERE, flusher="external", mask=str.upper)
    json.dumps(settings_to_dict(_runtime.current().settings))
