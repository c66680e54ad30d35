"""Rows of the local cloud's store as a busy application leaves them: many spans, without sending any."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random

from fallom._core.span import SessionContext, Span
from fallom._session_attributes import assigned_attributes, session_attributes
from fallom.dev.scenes import customer_of, session_ids, summary_turn, turn_of
from fallom.dev.store import ExposureRow, MetricsRow, SpanRow, Store

MODELS = ("gpt-4o", "gpt-4o-mini")


def row_of(span: Span, pid: int) -> SpanRow:
    resource = {"service.name": "shop", "host.name": "host", "process.pid": pid}
    events = [
        {"unix_ns": event.unix_ns, "name": event.name, "attributes": dict(event.attributes)}
        for event in span.events
    ]
    return SpanRow(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        span.kind,
        span.start_unix_ns,
        span.end_unix_ns,
        span.status,
        span.status_message,
        str(span.attributes["fallom.session_id"]),
        str(span.attributes["fallom.config_key"]),
        json.dumps(resource),
        json.dumps(dict(span.attributes), ensure_ascii=False),
        json.dumps(events),
        time.time_ns(),
        "request",
    )


def fill(database: Path, spans: int, seed: int = 1) -> int:
    """Store at least so many spans, with exposures and metrics; give how many."""
    rng = Random(seed)
    store, stored = Store(database), 0
    now_ns = time.time_ns() - spans * 10_000_000
    batch: list[SpanRow | ExposureRow | MetricsRow] = []
    for session_id in session_ids(rng):
        is_summary = rng.random() < 0.2
        key = "summarizer-config" if is_summary else "my-app"
        version = 2 if is_summary else 1
        variant = int(Random(session_id).random() < 0.3)
        customer = customer_of(session_id)
        session = SessionContext(
            key,
            session_id,
            customer.customer_id,
            metadata={"plan": customer.plan, "region": customer.region},
            tags=customer.tags,
        )
        attributes = {
            **session_attributes(session),
            **assigned_attributes(version, variant, "weight"),
            "fallom.prompt_ab_test": "onboarding-test",
            "fallom.prompt_variant": int(Random(session_id).random() < 0.5),
        }
        scene = summary_turn if is_summary else turn_of
        turn = scene(rng, MODELS[variant], attributes, now_ns)
        rows = [row_of(span, 100 + variant) for span in turn.spans]
        now_ns += 30_000_000
        stored += len(rows)
        batch += rows
        batch.append(ExposureRow(key, version, session_id, MODELS[variant], now_ns, "request"))
        if turn.metrics:
            data = json.dumps(turn.metrics)
            batch.append(MetricsRow(key, session_id, data, now_ns, "request"))
        if len(batch) > 5000 or stored >= spans:
            store.add(batch)
            batch = []
        if stored >= spans:
            break
    store.close()
    return stored
