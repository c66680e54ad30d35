"""``Index``: rows of the store into the tables of the page's index. One thread writes it.

Everything is merged: a span may come twice, before its parent or after it, and a batch may end in the
middle of a trace. A span that came before changes nothing but the count of its arrivals.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fallom.dev.page.facts import METRICS_NAME, SpanFacts, facts_of, storable
from fallom.dev.page.forgetting import forget_spans
from fallom.dev.page.index_schema import INDEX_TABLES, open_index

__all__ = ["Index"]

_METRIC_PREFIX: Final = "fallom.metric."
_MODELS_CHARACTERS: Final = 200
_NUMBER_MAX: Final = 1e100  # of a metric; squares and sums of what is larger leave a float's range
Row = Mapping[str, Any]

_TRACE_FIELDS: Final = (
    "trace_id session config_key name root start_ns end_ns duration_ns spans calls tools errors "
    "retries input_tokens output_tokens tokens first_token_ns models question answer"
).split()
_SESSION_FIELDS: Final = (
    "session_id config_key customer_id first_ns last_ns updated traces calls errors "
    "input_tokens output_tokens question"
).split()


class Index:
    """The writer of an index. Methods block for one transaction; not safe for two threads."""

    def __init__(self, path: Path) -> None:
        """Open it, making or emptying it where needed."""
        self._connection = open_index(path, is_writer=True)

    def position(self) -> tuple[int, str, int, int]:
        """Give the last ids that are indexed: span with its mark, exposure, metric."""
        row = self._connection.execute("SELECT span, span_mark, exposure, metric FROM position")
        return tuple(row.fetchone())

    def reset(self) -> None:
        """Forget everything, for readers at once."""
        with self._transaction() as run:
            for table in INDEX_TABLES:
                run(f"DELETE FROM {table}")  # noqa: S608
            run("UPDATE position SET span = 0, span_mark = '', exposure = 0, metric = 0")

    def add(self, spans: Sequence[Row], exposures: Sequence[Row], metrics: Sequence[Row]) -> None:
        """Index rows of the store, in one transaction."""
        with self._transaction() as run:
            _Batch(self._connection).add(spans, exposures, metrics)
            if spans:
                mark = f"{spans[-1]['trace_id']}{spans[-1]['span_id']}"
                run("UPDATE position SET span = ?, span_mark = ?", (spans[-1]["id"], mark))
            if exposures:
                run("UPDATE position SET exposure = ?", (exposures[-1]["id"],))
            if metrics:
                run("UPDATE position SET metric = ?", (metrics[-1]["id"],))

    def note_served(self, kind: str, entries: Iterable[dict[str, Any]], now_ns: int) -> bool:
        """Remember what is served; give whether any of it is new."""
        is_new = False
        for entry in entries:
            content = json.dumps(entry, ensure_ascii=False)
            found = self._connection.execute(
                "INSERT INTO served VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "content = excluded.content, first_ns = excluded.first_ns "
                "WHERE content <> excluded.content",
                (kind, entry["key"], entry["version"], content, now_ns),
            )
            is_new = is_new or found.rowcount > 0
        return is_new

    def forget_before(self, span_id: int) -> bool:
        """Drop spans whose row in the store is gone, and traces and sessions that have none left.

        What lost some is counted again. Experiments keep all that they ever counted.
        """
        with self._transaction():
            return forget_spans(self._connection, span_id)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            yield run
        except BaseException:
            run("ROLLBACK")
            raise
        run("COMMIT")

    def close(self) -> None:
        """Close the connection; the file stays."""
        self._connection.close()


class _Batch:
    """One transaction's rows, merged in memory where several touch the same row."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._run = connection.execute
        self._many = connection.executemany
        self._traces: dict[str, dict[str, Any]] = {}
        self._sessions: dict[str, dict[str, Any]] = {}
        self._workers: dict[tuple[str, int], int] = {}
        self._texts: list[tuple[int, str]] = []
        self._labels: dict[tuple[str, str, int], None] = {}

    def add(self, spans: Iterable[Row], exposures: Iterable[Row], metrics: Iterable[Row]) -> None:
        for row in exposures:
            self._assign(
                ("config", row["config_key"], row["config_version"], row["session_id"]),
                row["assigned_model"],
                None,
                "",
                row["received_unix_ns"],
            )
        for row in metrics:
            data = json.loads(row["data"])
            self._metrics(row["session_id"], row["config_key"], data, row["received_unix_ns"])
        for row in spans:
            self._span(row)
        self._many("INSERT INTO text (rowid, content) VALUES (?, ?)", self._texts)
        for label in self._labels:
            if self._run("INSERT OR IGNORE INTO label VALUES (?, ?, ?)", label).rowcount:
                self._run(
                    "INSERT INTO label_count VALUES (?, ?, 1) "
                    "ON CONFLICT DO UPDATE SET traces = traces + 1",
                    label[:2],
                )
        self._write("trace", _TRACE_FIELDS, self._traces.values())
        self._write("session", _SESSION_FIELDS, self._sessions.values())

    def _write(self, table: str, fields: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
        sets = ", ".join(f"{name} = :{name}" for name in fields)
        self._many(f"UPDATE {table} SET {sets} WHERE id = :id", list(rows))  # noqa: S608

    def _span(self, row: Row) -> None:
        if row["name"] == METRICS_NAME:
            prefix = len(_METRIC_PREFIX)
            attributes = json.loads(row["attributes"])
            data = {k[prefix:]: v for k, v in attributes.items() if k.startswith(_METRIC_PREFIX)}
            session_id = row["session_id"] or ""
            self._metrics(session_id, row["config_key"] or "", data, row["start_unix_ns"])
            return
        trace = self._trace(row)
        known = self._run(
            "UPDATE span SET times = times + 1 WHERE trace = ? AND span_id = ?",
            (trace["id"], row["span_id"]),
        )
        if known.rowcount:
            return
        facts = facts_of(row)
        start, end = row["start_unix_ns"], max(row["start_unix_ns"], row["end_unix_ns"])
        self._run(
            "INSERT INTO span VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
            (
                *(row["id"], trace["id"], row["span_id"], row["parent_span_id"]),
                *(facts.kind, row["name"], start, end, int(facts.is_error), facts.model),
                *(facts.input_tokens, facts.output_tokens, facts.first_token_ns),
            ),
        )
        self._texts.append((row["id"], facts.text))
        for name, value in facts.labels:
            self._labels[name, value, trace["id"]] = None
        _merge_span(trace, row, facts, start, end)
        self._of_session(row, trace, facts, end)
        self._of_worker(row, facts, end)
        self._of_experiments(row, facts, start, end)

    def _trace(self, row: Row) -> dict[str, Any]:
        trace_id = row["trace_id"]
        known = self._traces.get(trace_id)
        if known is None:
            start = row["start_unix_ns"]
            values = [trace_id, None, "", "", 0, start, start, *[0] * 10, "", "", ""]
            known = self._row_of("trace", _TRACE_FIELDS, values)
            self._traces[trace_id] = known
        return known

    def _row_of(self, table: str, fields: Sequence[str], values: list[Any]) -> dict[str, Any]:
        """Give the row whose first field is as in ``values``, made of them if there is none."""
        query = f"SELECT * FROM {table} WHERE {fields[0]} = ?"  # noqa: S608
        found = self._run(query, values[:1]).fetchone()
        if found is not None:
            return dict(found)
        marks = ", ".join("?" * len(values))
        made = self._run(f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({marks})", values)  # noqa: S608
        return dict(zip(fields, values, strict=True), id=made.lastrowid)

    def _of_session(self, row: Row, trace: dict[str, Any], facts: SpanFacts, end: int) -> None:
        session_id = row["session_id"]
        if not session_id:
            return
        session = self._sessions.get(session_id)
        if session is None:
            values = [session_id, "", "", row["start_unix_ns"], end, row["id"], *[0] * 5, ""]
            session = self._row_of("session", _SESSION_FIELDS, values)
            self._sessions[session_id] = session
        if trace["session"] is None:
            trace["session"] = session["id"]
            session["traces"] += 1
        session["config_key"] = session["config_key"] or row["config_key"] or ""
        session["customer_id"] = session["customer_id"] or facts.customer_id
        session["first_ns"] = min(session["first_ns"], row["start_unix_ns"])
        session["last_ns"] = max(session["last_ns"], end)
        session["updated"] = row["id"]
        session["calls"] += facts.kind == "llm"
        session["errors"] += facts.is_error
        session["input_tokens"] += facts.input_tokens
        session["output_tokens"] += facts.output_tokens
        session["question"] = session["question"] or facts.question

    def _of_worker(self, row: Row, facts: SpanFacts, end: int) -> None:
        if not facts.pid:
            return
        place = (facts.host, facts.pid)
        self._run(
            "INSERT INTO worker (host, pid, service, first_ns, last_ns, spans) "
            "VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET spans = spans + 1, "
            "last_ns = max(last_ns, excluded.last_ns), service = excluded.service",
            (*place, facts.service, end, end),
        )
        if place not in self._workers:
            found = self._run("SELECT id FROM worker WHERE host = ? AND pid = ?", place)
            self._workers[place] = found.fetchone()[0]
        if facts.config_version is not None and row["config_key"]:
            self._run(
                "INSERT INTO worker_config VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "first_ns = min(first_ns, excluded.first_ns), "
                "last_ns = max(last_ns, excluded.last_ns)",
                (self._workers[place], row["config_key"], facts.config_version, end, end),
            )

    def _of_experiments(self, row: Row, facts: SpanFacts, start: int, end: int) -> None:
        session_id, key = row["session_id"], row["config_key"]
        if not session_id:
            return
        if key:
            version = -1 if facts.config_version is None else facts.config_version
            if facts.config_version is not None:
                place = ("config", key, version, session_id)
                self._assign(place, None, facts.variant, facts.reason, start)
            self._use(("config", key, version, session_id), facts, end - start)
        if facts.prompt_test and facts.prompt_variant is not None:
            # Spans do not say which version of the test; the time of the first one decides.
            place = ("prompt_ab_test", facts.prompt_test, 0, session_id)
            self._assign(place, None, facts.prompt_variant, "weight", start)
            self._use(place, facts, end - start)

    def _assign(
        self,
        place: tuple[str, str, int, str],
        model: str | None,
        variant: int | None,
        reason: str,
        at_ns: int,
    ) -> None:
        self._run(
            "INSERT INTO assignment VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "model = coalesce(excluded.model, model), "
            "variant = coalesce(excluded.variant, variant), "
            "reason = CASE excluded.reason WHEN '' THEN reason ELSE excluded.reason END, "
            "first_ns = min(first_ns, excluded.first_ns)",
            (*place, model, variant, reason, at_ns),
        )

    def _use(self, place: tuple[str, str, int, str], facts: SpanFacts, duration_ns: int) -> None:
        if facts.kind != "llm":
            return
        self._run(
            "INSERT INTO usage VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "calls = calls + 1, errors = errors + excluded.errors, "
            "duration_ns = duration_ns + excluded.duration_ns, "
            "first_token_ns = first_token_ns + excluded.first_token_ns, "
            "streams = streams + excluded.streams, "
            "input_tokens = input_tokens + excluded.input_tokens, "
            "output_tokens = output_tokens + excluded.output_tokens",
            (
                *place,
                int(facts.is_error),
                duration_ns,
                facts.first_token_ns,
                int(facts.first_token_ns > 0),
                facts.input_tokens,
                facts.output_tokens,
            ),
        )

    def _metrics(self, session_id: str, key: str, data: Mapping[str, Any], at_ns: int) -> None:
        for field, value in data.items():
            is_number = isinstance(value, bool | int | float) and abs(value) <= _NUMBER_MAX
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            self._run(
                "INSERT INTO metric VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "value = excluded.value, is_flag = excluded.is_flag, shown = excluded.shown, "
                "at_ns = excluded.at_ns WHERE excluded.at_ns >= at_ns",
                (
                    *(session_id, storable(field), key, float(value) if is_number else None),
                    *(int(isinstance(value, bool)), storable(shown[:1000]), at_ns),
                ),
            )


def _merge_span(trace: dict[str, Any], row: Row, facts: SpanFacts, start: int, end: int) -> None:
    is_root = not row["parent_span_id"]
    if is_root or not trace["name"]:
        trace["name"] = row["name"]
        trace["root"] = int(is_root)
    trace["config_key"] = trace["config_key"] or row["config_key"] or ""
    trace["start_ns"] = min(trace["start_ns"], start)
    trace["end_ns"] = max(trace["end_ns"], end)
    trace["duration_ns"] = trace["end_ns"] - trace["start_ns"]
    trace["spans"] += 1
    trace["calls"] += facts.kind == "llm"
    trace["tools"] += facts.kind == "tool"
    trace["errors"] += facts.is_error
    trace["retries"] += facts.retries
    trace["input_tokens"] += facts.input_tokens
    trace["output_tokens"] += facts.output_tokens
    trace["tokens"] = trace["input_tokens"] + trace["output_tokens"]
    if facts.first_token_ns and not trace["first_token_ns"]:
        trace["first_token_ns"] = facts.first_token_ns
    if facts.model and facts.model not in trace["models"].split(", "):
        joined = ", ".join(filter(None, (trace["models"], facts.model)))
        trace["models"] = joined[:_MODELS_CHARACTERS]
    trace["question"] = trace["question"] or facts.question
    if facts.answer and (facts.kind == "llm" or is_root):
        trace["answer"] = facts.answer
