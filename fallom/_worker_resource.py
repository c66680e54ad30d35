"""The OTLP resource of a worker: what its spans say about the process that recorded them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from fallom._core.settings import Settings
from fallom._version import __version__

__all__ = ["worker_resource"]


def worker_resource(settings: Settings, environ: Mapping[str, str]) -> dict[str, str | int]:
    """Give the resource attributes (OpenTelemetry semantic conventions, resource).

    ``service.name`` is the argument, OTEL_SERVICE_NAME, or OTEL_RESOURCE_ATTRIBUTES; without any of
    them ``unknown_service:python``, as the specification has it.
    """
    attributes: dict[str, str | int] = dict(settings.resource_attributes)
    attributes["service.name"] = settings.service_name or "unknown_service:python"
    attributes["telemetry.sdk.name"] = "fallom"
    attributes["telemetry.sdk.language"] = "python"
    attributes["telemetry.sdk.version"] = __version__
    attributes.setdefault("host.name", environ.get("HOSTNAME") or os.uname().nodename)
    attributes["process.pid"] = os.getpid()
    attributes.setdefault("process.runtime.version", sys.version.split()[0])
    return attributes
