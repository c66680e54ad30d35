"""What fallom counts, as OTLP metrics: sent by the flusher once a minute, and when it leaves.

Off unless asked for. They go beside the traces, with the same credentials, and are not kept: a minute that
could not be sent is told by the next one, whose counters go on. A server without such a path is told once
in the log, and not asked again. In OTLP's JSON form, which needs no library and is small.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from fallom._core.settings import Settings
from fallom._flusher.credentials import traces_headers
from fallom._flusher.http import NetworkError, Request, Sends
from fallom._host.control import ControlPage
from fallom._spool.inspection import waiting_of
from fallom._spool.survey import marks_of
from fallom._version import __version__

__all__ = ["SelfMetrics", "look_at", "metrics_request"]

EVERY_S: Final = 60.0
DEADLINE_S: Final = 5.0
CUMULATIVE: Final = 2  # OTLP AggregationTemporality


class SelfMetrics:
    """Sends the metrics of one namespace; ``run`` is the body of its thread."""

    def __init__(
        self,
        settings: Settings,
        http: Sends,
        look: Callable[[], Mapping[str, Any]],
        say: Callable[[str], None],
    ) -> None:
        """Send nothing yet; ``look`` gives what there is to tell, ``say`` is told what went wrong."""
        self._settings = settings
        self._http = http
        self._look = look
        self._say = say
        self._started_ns = time.time_ns()

    def run(self, stop: threading.Event) -> None:
        """Send once a minute until told to stop, and once more then."""
        while not stop.wait(EVERY_S):
            if not self.send_once():
                return
        self.send_once()

    def send_once(self) -> bool:
        """Send what there is now; False when this server wants none. Blocks for at most 5 s."""
        settings = self._settings
        url = settings.self_metrics_endpoint
        request = metrics_request(
            self._look(), settings.service_name, self._started_ns, time.time_ns()
        )
        headers = {
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
            **traces_headers(settings),
        }
        body = gzip.compress(json.dumps(request).encode(), 1)
        try:
            response = self._http.send(Request("POST", url, headers, body, deadline_s=DEADLINE_S))
        except NetworkError as error:
            self._say(f"fallom's own metrics: POST {url}: {error}; the next ones say the same")
            return True
        if response.status in (404, 405):
            self._say(
                f"fallom's own metrics: POST {url} answered {response.status}; no more are sent"
            )
            return False
        if response.status >= 300:
            self._say(f"fallom's own metrics: POST {url} answered {response.status}")
        return True


def look_at(page: ControlPage, spool: Any, targets: Any, namespace: str) -> dict[str, Any]:
    """Gather what there is to tell of a namespace."""
    try:
        waiting = waiting_of(spool, marks_of(spool, targets), targets)
    except OSError:  # the directory was removed
        waiting = None
    oldest_ns = waiting.oldest_unix_ns if waiting else 0
    now_s = time.time()
    return {
        "namespace": namespace,
        "tallies": page.tallies(),
        "drops": page.drops(),
        "waiting_records": waiting.records if waiting else 0,
        "waiting_bytes": waiting.bytes if waiting else 0,
        "lag_s": max(0.0, now_s - oldest_ns / 1e9) if oldest_ns else 0.0,
        "spool_bytes": page.spool_bytes(),
        "snapshot_checked_age_s": now_s - page.synced_s() if page.synced_s() else None,
    }


def metrics_request(
    found: Mapping[str, Any], service_name: str, started_unix_ns: int, unix_ns: int
) -> dict[str, Any]:
    """Give the OTLP request, in its JSON form, for what ``look_at`` found."""
    at = {"timeUnixNano": str(unix_ns)}

    def counter(name: str, unit: str, values: Mapping[tuple[str, str], float]) -> dict[str, Any]:
        points = [
            {
                **at,
                "startTimeUnixNano": str(started_unix_ns),
                "attributes": _attributes({key: text} if key else {}),
                **_value(value),
            }
            for (key, text), value in values.items()
        ]
        # Cumulative, as the control page counts: it goes on through restarts of the flusher.
        total = {"aggregationTemporality": CUMULATIVE, "isMonotonic": True, "dataPoints": points}
        return {"name": name, "unit": unit, "sum": total}

    def gauge(name: str, unit: str, value: float) -> dict[str, Any]:
        return {"name": name, "unit": unit, "gauge": {"dataPoints": [{**at, **_value(value)}]}}

    tallies, drops = found["tallies"], found["drops"]
    kinds = ("spans", "metrics", "exposures")
    delivered = {("destination", kind): tallies[f"{kind}_accepted"] for kind in kinds}
    metrics = [
        counter("fallom.delivered", "{record}", delivered),
        counter("fallom.dropped", "{record}", {("reason", r): n for r, n in drops.items() if n}),
        counter("fallom.batches", "{batch}", {("", ""): tallies["batches_sent"]}),
        counter("fallom.batches.retried", "{batch}", {("", ""): tallies["batches_retried"]}),
        counter("fallom.delivery.time", "s", {("", ""): tallies["delivery_ms"] / 1e3}),
        gauge("fallom.waiting", "{record}", found["waiting_records"]),
        gauge("fallom.waiting.size", "By", found["waiting_bytes"]),
        gauge("fallom.lag", "s", found["lag_s"]),
        gauge("fallom.spool.size", "By", found["spool_bytes"]),
    ]
    checked_s = found["snapshot_checked_age_s"]
    if checked_s is not None:
        metrics.append(gauge("fallom.snapshot.checked_age", "s", checked_s))
    resource = {
        "service.name": service_name or "unknown_service:python",
        "fallom.namespace": found["namespace"],
    }
    scope = {"scope": {"name": "fallom", "version": __version__}, "metrics": metrics}
    group = {"resource": {"attributes": _attributes(resource)}, "scopeMetrics": [scope]}
    return {"resourceMetrics": [group]}


def _attributes(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": text}} for key, text in values.items()]


def _value(value: float) -> dict[str, Any]:
    # ProtoJSON has 64-bit integers as text.
    return {"asInt": str(value)} if isinstance(value, int) else {"asDouble": value}
