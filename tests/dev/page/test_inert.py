from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom.dev.page.inert import inert
from fallom.dev.page.plots import Drawing


@pytest.mark.parametrize(
    "text", ["plain", "tab\tand\nline", "مرحبا بالعالم", "שלום", "日本語", "👩‍👩‍👧 family", "é"]
)
def test_text_of_people_stays_as_it_is(text: str) -> None:
    assert inert(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a⟦U+0000⟧b"),
        ("\x1b[31mred", "⟦U+001B⟧[31mred"),
        ("abc\u202etxt.exe", "abc⟦U+202E⟧txt.exe"),
        ("zero\u200bwidth", "zero⟦U+200B⟧width"),
        ("line\r\nend", "line\nend"),
        ("lone\rreturn", "lone⟦U+000D⟧return"),
        ("\ud800", "⟦U+D800⟧"),
    ],
)
def test_what_hides_or_commands_becomes_visible(text: str, shown: str) -> None:
    assert inert(text) == shown


def test_drawings_and_numbers_are_left_alone() -> None:
    drawing = Drawing("<svg></svg>")
    assert inert(drawing) is drawing
    assert inert(5) == 5
    assert inert(None) is None


@given(st.text())
def test_what_is_shown_can_be_encoded_and_is_stable(text: str) -> None:
    shown = inert(text)
    shown.encode()
    assert inert(shown) == shown
