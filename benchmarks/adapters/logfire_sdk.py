"""Logfire, sending to an OTLP endpoint on loopback by OpenTelemetry's BatchSpanProcessor, console off."""

from __future__ import annotations

from typing import Any

from driver import FLUSH_S, TEN, Subject, serve


def span(options: dict[str, Any]) -> Subject:
    import logfire
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(f"{options['url']}/v1/traces")
    configured = logfire.configure(
        send_to_logfire=False,
        console=False,
        service_name="bench",
        inspect_arguments=False,
        metrics=False,
        additional_span_processors=[BatchSpanProcessor(exporter)],
    )
    start = configured.span

    def call(_: int) -> None:
        with start("metrics", **TEN):
            pass

    return Subject(
        call,
        lambda: configured.force_flush(int(FLUSH_S * 1000)),
        lambda: configured.shutdown(1000),
    )


PATHS = {"span": span}

if __name__ == "__main__":
    serve(PATHS)
