"""What fallom counts, as OTLP metrics: sent by the flusher once a minute, and when it leaves.

Off unless asked for. They go beside the traces, with the same credentials, and are not kept: a minute that
could not be sent is told by the next one, whose counters go on. A server without such a path is told once
in the log, and not asked again.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, NumberDataPoint

from fallom._core.settings import Settings
from fallom._flusher.http import NetworkError, Request, Response
from fallom._host.control import ControlPage
from fallom._spool.inspection import waiting_of
from fallom._spool.survey import marks_of
from fallom._version import __version__

__all__ = ["SelfMetrics", "look_at", "metrics_request"]

EVERY_S: Final = 60.0
DEADLINE_S: Final = 5.0


class _Sends(Protocol):
    def send(self, request: Request) -> Response: ...


class SelfMetrics:
    """Sends the metrics of one namespace; ``run`` is the body of its thread."""

    def __init__(
        self,
        settings: Settings,
        http: _Sends,
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
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        if settings.api_key is not None:
            headers["Authorization"] = f"Bearer {settings.api_key}"
        headers.update(settings.traces_headers)
        body = gzip.compress(request.SerializeToString(), 1)
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
) -> ExportMetricsServiceRequest:
    """Give the OTLP request for what ``look_at`` found."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    for name, value in (
        ("service.name", service_name or "unknown_service:python"),
        ("fallom.namespace", str(found["namespace"])),
    ):
        attribute = group.resource.attributes.add()
        attribute.key, attribute.value.string_value = name, value
    scope = group.scope_metrics.add()
    scope.scope.name, scope.scope.version = "fallom", __version__

    def point(points: Any, value: float, attributes: Mapping[str, str]) -> None:
        added: NumberDataPoint = points.add()
        added.time_unix_nano = unix_ns
        if isinstance(value, int):
            added.as_int = value
        else:
            added.as_double = value
        for key, text in attributes.items():
            attribute = added.attributes.add()
            attribute.key, attribute.value.string_value = key, text

    def counter(name: str, unit: str, values: Mapping[tuple[str, str], float]) -> None:
        metric = scope.metrics.add()
        metric.name, metric.unit = name, unit
        # Cumulative, as the control page counts; it goes on through restarts of the flusher.
        metric.sum.aggregation_temporality = (
            AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        )
        metric.sum.is_monotonic = True
        for (key, text), value in values.items():
            point(metric.sum.data_points, value, {key: text} if key else {})
            metric.sum.data_points[-1].start_time_unix_nano = started_unix_ns

    def gauge(name: str, unit: str, value: float | None) -> None:
        if value is not None:
            metric = scope.metrics.add()
            metric.name, metric.unit = name, unit
            point(metric.gauge.data_points, value, {})

    tallies, drops = found["tallies"], found["drops"]
    kinds = ("spans", "metrics", "exposures")
    delivered = {("destination", kind): tallies[f"{kind}_accepted"] for kind in kinds}
    counter("fallom.delivered", "{record}", delivered)
    counter("fallom.dropped", "{record}", {("reason", r): n for r, n in drops.items() if n})
    counter("fallom.batches", "{batch}", {("", ""): tallies["batches_sent"]})
    counter("fallom.batches.retried", "{batch}", {("", ""): tallies["batches_retried"]})
    counter("fallom.delivery.time", "s", {("", ""): tallies["delivery_ms"] / 1e3})
    gauge("fallom.waiting", "{record}", found["waiting_records"])
    gauge("fallom.waiting.size", "By", found["waiting_bytes"])
    gauge("fallom.lag", "s", found["lag_s"])
    gauge("fallom.spool.size", "By", found["spool_bytes"])
    gauge("fallom.snapshot.checked_age", "s", found["snapshot_checked_age_s"])
    return request
