"""ddtrace with its native writer and an agent on loopback (format 0.4), instrumentation of libraries off.

Telemetry, runtime metrics, profiling and remote configuration are off: its fast configuration.
"""

from __future__ import annotations

import os
from typing import Any

from driver import TEN, Subject, serve

os.environ.update(
    DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
    DD_REMOTE_CONFIGURATION_ENABLED="false",
    DD_RUNTIME_METRICS_ENABLED="false",
    DD_TRACE_STARTUP_LOGS="false",
    DD_TRACE_STATS_COMPUTATION_ENABLED="false",
    DD_TRACE_API_VERSION="v0.4",
    DD_TRACE_REPORT_HOSTNAME="false",
    DD_CRASHTRACKING_ENABLED="false",
    DD_SERVICE="bench",
)


def span(options: dict[str, Any]) -> Subject:
    os.environ["DD_TRACE_AGENT_URL"] = options["url"]
    from ddtrace.trace import tracer

    trace = tracer.trace

    def call(_: int) -> None:
        with trace("metrics") as made:
            made.set_tags(TEN)

    return Subject(call, tracer.flush, tracer.shutdown)


PATHS = {"span": span}

if __name__ == "__main__":
    serve(PATHS)
