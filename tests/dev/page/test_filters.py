from __future__ import annotations

import sqlite3
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallom.dev.page.filters import Filters, match_of


@pytest.mark.parametrize(
    "address",
    [
        "",
        "q=hello+world",
        "tag=beta&meta=plan%3Dpro&model=gpt-4o",
        "errors=1&slower=250.5&tokens=1000&sort=slowest",
        "meta=a%3Db%3Dc",
        "period=1h&from=2026-02-01T09%3A30&to=2026-02-01T10%3A30%3A05%2B02%3A00",
    ],
)
def test_an_address_is_read_and_written_back(address: str) -> None:
    filters = Filters.read(parse_qsl(address))
    assert Filters.read(filters.pairs()) == filters
    assert Filters.read(parse_qsl(filters.address()[1:])) == filters


def test_what_cannot_be_read_is_left_out() -> None:
    given_ = [("slower", "x"), ("tokens", "-1"), ("sort", "up"), ("meta", "plain"), ("tag", " ")]
    given_ += [("period", "2h"), ("from", "yesterday"), ("to", "0001-01-01T00:00+14:00")]
    assert Filters.read(given_) == Filters()
    assert Filters().window(0) is None


def test_each_filter_that_is_set_can_be_taken_away() -> None:
    filters = Filters.read(
        parse_qsl(
            "q=a&tag=b&meta=c%3Dd&errors=1&slower=5&tokens=7&period=1h&from=2026-01-01&to=2026-01-02"
        )
    )
    left = {address for _, _, address in filters.chosen()}
    assert len(left) == 9
    for address in left:
        assert len(Filters.read(parse_qsl(address[1:])).chosen()) == 8


@given(st.text(max_size=60))
def test_any_search_is_a_query_that_the_index_takes(search: str) -> None:
    index = sqlite3.connect(":memory:")
    index.execute("CREATE VIRTUAL TABLE text USING fts5(content)")
    match = match_of(search)
    if match:
        index.execute("SELECT * FROM text WHERE text MATCH ?", (match,)).fetchall()
    index.close()


@pytest.mark.parametrize(
    ("search", "match"),
    [
        ("hello wor", '"hello"* "wor"*'),
        ('"a phrase" more', '"a phrase" "more"*'),
        ("a OR NOT b*", '"a"* "OR"* "NOT"* "b*"*'),
        ("紅茶", '" 紅  茶 "'),
        ("- * !", ""),
    ],
)
def test_words_are_beginnings_and_quotes_make_phrases(search: str, match: str) -> None:
    found = match_of(search)
    if search == "紅茶":
        assert found == '"紅"* "茶"*'
    else:
        assert found == match
