"""OpenTelemetry's SDK with BatchSpanProcessor and the OTLP/HTTP exporter, as its documentation sets it up.

Defaults (queue of 2,048 spans, batches of 512), attributes given at ``start_span`` (the faster way), all
spans sampled, no compression on loopback. A span here is in memory when the call returns, not on disk.
"""

from __future__ import annotations

from typing import Any

from driver import FLUSH_S, TEN, Subject, llm_attributes, serve


def provider_for(url: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    exporter = OTLPSpanExporter(f"{url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def span(options: dict[str, Any]) -> Subject:
    provider = provider_for(options["url"])
    start = provider.get_tracer("bench").start_span
    return Subject(
        lambda _: start("metrics", attributes=TEN).end(),
        lambda: provider.force_flush(int(FLUSH_S * 1000)),
        provider.shutdown,
    )


def export(options: dict[str, Any]) -> Subject:
    """Encode, compress and post batches of 512 finished spans: what its exporter thread does."""
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    collected = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    provider.add_span_processor(SimpleSpanProcessor(collected))
    tracer = provider.get_tracer("bench")
    exporter = OTLPSpanExporter(f"{options['url']}/v1/traces", compression=Compression.Gzip)
    batch: list[Any] = []

    def prepare() -> None:
        collected.clear()
        for number in range(512):
            attributes = llm_attributes(number) if options["is_llm"] else {**TEN, "n": number}
            tracer.start_span("span", attributes=attributes).end()
        batch[:] = collected.get_finished_spans()

    def call(_: int) -> None:
        assert exporter.export(batch) is SpanExportResult.SUCCESS

    return Subject(call, prepare=prepare, extra={"spans": 512})


PATHS = {"span": span, "export": export}

if __name__ == "__main__":
    serve(PATHS)
