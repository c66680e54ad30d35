"""Wrapping by function, as the releases before 0.3 had it; ``fallom.session`` has methods for it."""

from __future__ import annotations

from typing import Any, TypeVar

from fallom.session import FallomSession, session
from fallom.trace.types import SessionContext

__all__: list[str] = [
    "FallomCallbackHandler",
    "callback_handler_from_session",
    "wrap_anthropic",
    "wrap_google_ai",
    "wrap_openai",
]

Client = TypeVar("Client")


def wrap_openai(client: Client, session_ctx: SessionContext) -> Client:
    """Give a traced client, as ``session.wrap_openai`` does; ``client`` itself is not changed."""
    return _session(session_ctx).wrap_openai(client)


def wrap_anthropic(client: Client, session_ctx: SessionContext) -> Client:
    """Give a traced client, as ``session.wrap_anthropic`` does; ``client`` itself is not changed."""
    return _session(session_ctx).wrap_anthropic(client)


def wrap_google_ai(model: Client, session_ctx: SessionContext) -> Client:
    """Give a traced model, as ``session.wrap_google_ai`` does; ``model`` itself is not changed."""
    return _session(session_ctx).wrap_google_ai(model)


class FallomCallbackHandler:
    """Calling it gives LangChain's callback handler for a session, as ``session.langchain_callback()``."""

    def __new__(
        cls,
        config_key: str,
        session_id: str,
        customer_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        tags: list[str] | None = None,
    ) -> Any:
        """Make the handler.

        Raises:
            ImportError: The package langchain-core is not installed.
        """
        return session(config_key, session_id, customer_id, metadata, tags).langchain_callback()


def callback_handler_from_session(session: FallomSession) -> Any:
    """Give LangChain's callback handler for a session, as ``session.langchain_callback()``."""
    return session.langchain_callback()


def _session(context: SessionContext) -> FallomSession:
    return session(
        context.config_key,
        context.session_id,
        context.customer_id,
        context.metadata,
        context.tags,
    )
