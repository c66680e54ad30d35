"""fallom as the exporter of any OpenTelemetry tracer: nothing that ended is lost, in any process.

    from opentelemetry.sdk.trace import TracerProvider
    from fallom.opentelemetry import FallomSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(FallomSpanProcessor())

A span is on disk when it has ended, without a thread or a queue: under prefork servers too, and when a
process is killed. It needs the package opentelemetry-sdk (``pip install "fallom[opentelemetry]"``).
"""

from __future__ import annotations

from fallom._active_span import DOUBLED, IN_CALL
from fallom._tracing import ContextTracing
from fallom.integrations._extras import without_extra

try:
    from fallom.integrations.opentelemetry import SpoolExporter, SpoolProcessor, is_llm_span
except ModuleNotFoundError as error:
    raise without_extra(error, "opentelemetry") from None

__all__ = ["FallomSpanExporter", "FallomSpanProcessor"]


class FallomSpanProcessor(SpoolProcessor):
    """Records each span as it ends, with the attributes of the session that it began in.

    The session is that of the context: ``with fallom.session(...)`` or ``trace.set_session(...)``.
    """

    def __init__(self, *, only_llm: bool = False) -> None:
        """Make a processor.

        Args:
            only_llm: Record only spans that have to do with language models: those of instrumentations
                of their clients, and those with attributes of OpenTelemetry's GenAI conventions.
        """
        super().__init__(ContextTracing(), DOUBLED, IN_CALL, is_llm_span if only_llm else None)


class FallomSpanExporter(SpoolExporter):
    """Records the spans that a span processor of OpenTelemetry's hands over.

    With a ``SimpleSpanProcessor`` it is as safe as ``FallomSpanProcessor``, but knows no session; a
    ``BatchSpanProcessor`` keeps spans in memory, and loses them with the process.
    """

    def __init__(self) -> None:
        """Make an exporter."""
        super().__init__(ContextTracing(), DOUBLED)
