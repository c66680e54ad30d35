from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fallom.dev.page import index_schema
from fallom.dev.page.filters import Filters
from fallom.dev.page.index import Index
from fallom.dev.page.index_schema import open_index
from fallom.dev.page.lists import choices, list_sessions, list_traces, overview
from fallom.dev.page.traces import read_trace

LLM = {
    "fallom.kind": "llm",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 5,
}


def ids_of(read: Any, address: list[tuple[str, str]]) -> list[str]:
    return [row["trace_id"] for row in list_traces(read, Filters.read(address), 0).rows]


def test_a_span_that_came_twice_counts_once_and_says_so(index: Any, read: Any, row: Any) -> None:
    first = row(attributes=LLM)
    again = {**first, "id": first["id"] + 1000}
    index.add([first], [], [])
    index.add([again], [], [])
    trace = read_trace(read, first["trace_id"], "")
    assert (trace.trace["spans"], trace.trace["tokens"]) == (1, 15)
    assert trace.spans[0]["times"] == 2


def test_the_order_in_which_spans_come_changes_nothing(tmp_path: Path, row: Any) -> None:
    root = row(name="agent", end_unix_ns=10**18 + 9 * 10**9)
    rows = [root]
    for number in range(6):
        kind = {**LLM, "error.type": "timeout"} if number == 2 else LLM
        start = 10**18 + number * 10**9
        rows.append(
            row(
                trace_id=root["trace_id"],
                parent_span_id=root["span_id"],
                attributes=kind,
                start_unix_ns=start,
                end_unix_ns=start + 10**8,
            )
        )
    seen = set()
    for number in range(6):
        shuffled = [dict(one) for one in rows]
        Random(number).shuffle(shuffled)
        for place, one in enumerate(shuffled, 1):
            one["id"] = place
        index = Index(tmp_path / f"page{number}")
        for one in shuffled:
            index.add([one], [], [])
        reader = open_index(tmp_path / f"page{number}", is_writer=False)
        trace = dict(read_trace(reader, root["trace_id"], "").trace)  # type: ignore[union-attr]
        seen.add(json.dumps({k: v for k, v in trace.items() if k not in ("id", "session")}))
        reader.close()
        index.close()
    assert len(seen) == 1
    (one,) = seen
    assert json.loads(one)["name"] == "agent"
    assert json.loads(one)["errors"] == 1


def test_filters_find_what_has_all_of_them(index: Any, read: Any, row: Any) -> None:
    def add(**attributes: Any) -> str:
        one = row(attributes={**LLM, **attributes})
        index.add([one], [], [])
        return str(one["trace_id"])

    both = add(**{"fallom.tags": ["beta", "eu"], "fallom.metadata.plan": "pro"})
    tagged = add(**{"fallom.tags": ["beta"], "error.type": "timeout"})
    other = add(**{"gen_ai.request.model": "mini", "gen_ai.usage.input_tokens": 5000})
    assert ids_of(read, [("tag", "beta")]) == [tagged, both]
    assert ids_of(read, [("tag", "beta"), ("tag", "eu")]) == [both]
    assert ids_of(read, [("tag", "beta"), ("meta", "plan=pro")]) == [both]
    assert ids_of(read, [("errors", "1")]) == [tagged]
    assert ids_of(read, [("error", "timeout")]) == [tagged]
    assert ids_of(read, [("model", "mini")]) == [other]
    assert ids_of(read, [("tokens", "1000")]) == [other]
    assert ids_of(read, [("tokens", "1000"), ("tag", "beta")]) == []
    assert ids_of(read, [("slower", "999")]) == [other, tagged, both]
    assert ids_of(read, [("slower", "1000")]) == []
    assert ids_of(read, [("sort", "tokens")])[0] == other
    assert ("beta", 2) in choices(read)["tag"]
    assert ("plan=pro", 1) in choices(read)["meta"]


def test_search_finds_words_phrases_ids_and_languages(index: Any, read: Any, row: Any) -> None:
    def add(text: str) -> str:
        asked = json.dumps([{"role": "user", "parts": [{"type": "text", "content": text}]}])
        one = row(attributes={**LLM, "gen_ai.input.messages": asked})
        index.add([one], [], [])
        return str(one["trace_id"])

    english, japanese, arabic = add("Where is the parcel"), add("この紅茶は"), add("تغيير العنوان")
    assert ids_of(read, [("q", "parcel")]) == [english]
    assert ids_of(read, [("q", "PARC")]) == [english]
    assert ids_of(read, [("q", '"the parcel"')]) == [english]
    assert ids_of(read, [("q", '"parcel the"')]) == []
    assert ids_of(read, [("q", "紅茶")]) == [japanese]
    assert ids_of(read, [("q", "العنوان")]) == [arabic]
    assert ids_of(read, [("q", english)]) == [english]
    assert ids_of(read, [("q", "nothing"), ("tag", "x")]) == []


def test_a_long_list_is_read_page_by_page_without_a_gap(index: Any, read: Any, row: Any) -> None:
    rows = [row(session_id=f"s{n}", attributes=LLM) for n in range(130)]
    index.add(rows, [], [])
    for list_, key in ((list_traces, "trace_id"), (list_sessions, "session_id")):
        found: list[str] = []
        after: int | None = 0
        while after is not None:
            listing = list_(read, Filters(), after)
            found += [row[key] for row in listing.rows]
            after = listing.more
        assert found == [one[key] for one in reversed(rows)]


def test_custom_metrics_are_no_traces_and_the_latest_value_holds(
    index: Any, read: Any, row: Any
) -> None:
    late = row(name="fallom.metrics", attributes={"fallom.metric.score": 2}, start_unix_ns=20)
    early = row(name="fallom.metrics", attributes={"fallom.metric.score": 1}, start_unix_ns=10)
    index.add([late, early], [], [])
    assert overview(read).traces == 0
    assert [tuple(r) for r in read.execute("SELECT field, value FROM metric")] == [("score", 2.0)]


def test_emptied_in_place_a_reader_sees_nothing_at_once(index: Any, read: Any, row: Any) -> None:
    index.add([row(attributes=LLM)], [], [])
    assert overview(read).traces == 1
    index.reset()
    assert overview(read) == (0, 0, 0, 0)
    assert index.position() == (0, "", 0, 0)


def test_what_the_store_gave_up_leaves_the_index_too(index: Any, read: Any, row: Any) -> None:
    rows = [row(session_id=f"s{n}", attributes={**LLM, "fallom.tags": ["t"]}) for n in range(4)]
    index.add(rows, [], [])
    assert index.forget_before(rows[2]["id"])
    assert overview(read)[:3] == (2, 2, 2)
    assert choices(read)["tag"] == [("t", 2)]
    assert ids_of(read, [("q", rows[0]["trace_id"])]) == []


def test_what_lost_spans_is_counted_again(index: Any, read: Any, row: Any) -> None:
    long = row(attributes=LLM)
    tool = row(trace_id=long["trace_id"], attributes={"fallom.kind": "tool", "error.type": "x"})
    last = row(trace_id=long["trace_id"], attributes=LLM, end_unix_ns=10**18 + 5 * 10**9)
    whole = row(attributes=LLM)
    index.add([long, tool, last, whole], [], [])
    (session,) = list_sessions(read, Filters(), 0).rows
    assert (session["calls"], session["errors"], session["input_tokens"]) == (3, 1, 30)
    index.forget_before(last["id"])
    (session,) = list_sessions(read, Filters(), 0).rows
    counted = "traces calls errors input_tokens output_tokens".split()
    assert [session[name] for name in counted] == [2, 2, 0, 20, 10]
    trace = read_trace(read, long["trace_id"], "").trace  # type: ignore[union-attr]
    counted = "spans calls tools errors tokens duration_ns".split()
    assert [trace[name] for name in counted] == [1, 1, 0, 0, 15, 5 * 10**9]
    index.forget_before(whole["id"])
    (session,) = list_sessions(read, Filters(), 0).rows
    assert (session["traces"], session["calls"]) == (1, 1)


@pytest.mark.parametrize("has_fts", [True, False])
def test_a_trace_is_found_on_one_page_only(
    tmp_path: Path, row: Any, monkeypatch: Any, has_fts: bool
) -> None:
    if not has_fts:
        monkeypatch.setattr(index_schema, "_WITH_FTS", "CREATE VIRTUAL TABLE text USING nothing()")
    index = Index(tmp_path / "paged")
    firsts = [row(name="parcel") for _ in range(130)]
    again = [row(trace_id=one["trace_id"], name="parcel again") for one in firsts[::2]]
    other = [row(trace_id=one["trace_id"], name="something else") for one in firsts[::3]]
    index.add([*firsts, *again, *other], [], [])
    reader = open_index(tmp_path / "paged", is_writer=False)
    filters, found, after = Filters(search="parcel"), list[str](), 0
    while True:
        listing = list_traces(reader, filters, after)
        found += [one["trace_id"] for one in listing.rows]
        if listing.more is None:
            break
        after = listing.more
    reader.close()
    index.close()
    assert len(found) == len(set(found))
    assert set(found) == {one["trace_id"] for one in firsts}


def test_traces_are_chosen_by_when_they_began(index: Any, read: Any, row: Any) -> None:
    now_s = int(time.time())

    def add(age_s: int) -> str:
        begin_ns = (now_s - age_s) * 10**9
        one = row(start_unix_ns=begin_ns, end_unix_ns=begin_ns + 10**9, session_id=f"s{age_s}")
        index.add([one], [], [])
        return str(one["trace_id"])

    def moment(age_s: int) -> str:
        return datetime.fromtimestamp(now_s - age_s).isoformat()

    old, of_today, recent, fresh = map(add, (200_000, 7_200, 1_200, 60))
    assert ids_of(read, [("period", "15m")]) == [fresh]
    assert ids_of(read, [("period", "1h")]) == [fresh, recent]
    assert ids_of(read, [("period", "1d"), ("sort", "slowest")]) == [fresh, recent, of_today]
    assert ids_of(read, [("from", moment(7_200)), ("to", moment(60))]) == [recent, of_today]
    assert ids_of(read, [("to", moment(7_200))]) == [old]
    assert ids_of(read, [("period", "1h"), ("q", "chat"), ("config", "app")]) == [fresh, recent]
    listed = list_sessions(read, Filters.read([("period", "1h")]), 0).rows
    assert [one["session_id"] for one in listed] == ["s60", "s1200"]


def test_a_file_that_is_damaged_or_of_another_layout_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "page"

    def of_another_layout() -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")

    for spoil in (
        lambda: path.write_bytes(b"no database at all" * 100),
        of_another_layout,
    ):
        Index(path).close()
        spoil()
        index = Index(path)
        assert index.position() == (0, "", 0, 0)
        index.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_full_text_search_the_newest_texts_are_scanned(
    tmp_path: Path, row: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(index_schema, "_WITH_FTS", "CREATE VIRTUAL TABLE text USING nothing()")
    index = Index(tmp_path / "plain")
    asked = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "100% of it"}]}])
    one = row(attributes={**LLM, "gen_ai.input.messages": asked})
    index.add([one], [], [])
    reader = open_index(tmp_path / "plain", is_writer=False)
    assert ids_of(reader, [("q", "100%")]) == [one["trace_id"]]
    assert ids_of(reader, [("q", "100_")]) == []
    reader.close()
    index.close()
