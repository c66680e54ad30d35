"""A session: a conversation or request whose model, prompts and LLM calls belong together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from fallom import models
from fallom._arguments import check_text, metadata_of, tags_of, version_of
from fallom._context import enter_session, leave_session
from fallom._core.span import AttributeValue, SessionContext
from fallom._runtime import current
from fallom._session_attributes import assigned_attributes, session_attributes
from fallom._tracing import SessionTracing, known_assignment
from fallom._waiting import POLL_S, is_waiting_over

__all__ = ["FallomSession", "session"]

Client = TypeVar("Client")


class FallomSession:
    """Made by ``fallom.session``; isolated, so that any number of them may live side by side.

    As a context manager (``with`` or ``async with``) it also is the session of the context within the
    block, and what was before is restored behind it.
    """

    def __init__(
        self,
        config_key: str,
        session_id: str,
        customer_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Sequence[str] | None = None,
    ) -> None:
        """Take what ``fallom.session`` takes, which is the shorter way to say it."""
        check_text(config_key=config_key, session_id=session_id)
        self._context = SessionContext(
            config_key, session_id, customer_id, metadata_of(metadata), tags_of(tags)
        )
        self._tracing = SessionTracing(self._context, self.attributes)
        self._assigned: models.Explanation | None = None

    @property
    def config_key(self) -> str:
        """The config's key, under which traces are grouped."""
        return self._context.config_key

    @property
    def session_id(self) -> str:
        """The conversation's or request's id."""
        return self._context.session_id

    @property
    def customer_id(self) -> str | None:
        """The end user, if one was given."""
        return self._context.customer_id

    async def get_model(
        self,
        config_key: str | None = None,
        fallback: str | None = None,
        version: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> str:
        """Give the model of this session; the event loop runs on meanwhile.

        Args:
            config_key: The config's key; by default the session's.
            fallback: The model to use when the config is not known.
            version: Pin to a version of the config.
            context: For targeting; the session's customer is in it by itself.

        Raises:
            NotFoundError: The config, or that version of it, is not known, and there is no fallback.

        Blocks:
            Never the event loop. Waits as ``models.get`` does, with the loop running.
        """
        runtime = current()
        key, takes_old = config_key or self.config_key, bool(fallback) or version is not None
        while runtime.snapshot.config(key) is None and not is_waiting_over(runtime, takes_old):
            import asyncio  # only here: whoever awaits this has loaded it already

            runtime.look_if_due()
            await asyncio.sleep(POLL_S)
        if version is not None and version_of(version) is version:
            await self._wait_for_version(key, version)
        return self.get_model_sync(config_key, fallback, version, context)

    def get_model_sync(
        self,
        config_key: str | None = None,
        fallback: str | None = None,
        version: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> str:
        """Give the model of this session; ``get_model`` for code that is not async.

        Raises, and blocks, as ``models.get`` does.
        """
        key = config_key or self.config_key
        customer_id = self.customer_id
        model = models.get(key, self.session_id, version, fallback, customer_id, context)
        if key == self.config_key:
            # What decided is on the spans of this session, so that an experiment can be read from
            # them without a join.
            self._assigned = models.explain(
                key, self.session_id, version, fallback, customer_id, context
            )
        return model

    def wrap_openai(self, client: Client) -> Client:
        """Give a client whose calls are traced as this session's; ``client`` itself is not changed.

        Args:
            client: ``openai.OpenAI``, ``AsyncOpenAI``, or a subclass of either, such as those for
                Azure; with any ``base_url``. Anything else is returned as it is, with a warning.
        """
        from fallom.integrations.openai import wrap_openai  # paid for by those who use it

        return wrap_openai(client, self._tracing)

    def wrap_anthropic(self, client: Client) -> Client:
        """Give a client whose calls are traced as this session's; ``client`` itself is not changed.

        Args:
            client: ``anthropic.Anthropic``, ``AsyncAnthropic``, or a subclass of either. Anything else
                is returned as it is, with a warning.
        """
        from fallom.integrations.anthropic import wrap_anthropic  # paid for by those who use it

        return wrap_anthropic(client, self._tracing)

    def wrap_google_ai(self, model: Client) -> Client:
        """Give a model or client whose calls are traced as this session's; ``model`` is not changed.

        Args:
            model: Of google-generativeai a ``GenerativeModel`` or chat; of google-genai a ``Client``,
                its ``models`` or ``aio``, or a chat. Anything else is returned as it is, with a
                warning.
        """
        from fallom.integrations.google_ai import wrap_google_ai  # paid for by those who use it

        return wrap_google_ai(model, self._tracing)

    def langchain_callback(self) -> Any:
        """Give a callback handler that traces LangChain's and LangGraph's runs as this session's.

        For ``chain.invoke(..., config={"callbacks": [session.langchain_callback()]})``, synchronous and
        asynchronous. One handler may be used for any number of runs.

        Raises:
            ImportError: The package langchain-core is not installed (``pip install
                "fallom[langchain]"``).
        """
        from fallom.integrations._extras import without_extra

        try:
            from fallom.integrations.langchain import LangChainHandler  # of those who use it
        except ModuleNotFoundError as error:
            raise without_extra(error, "langchain") from None
        return LangChainHandler(self._tracing)

    def get_context(self) -> Any:
        """Give what the session was made of, as ``fallom.trace.types.SessionContext``."""
        from fallom.trace.types import SessionContext as Published  # of the releases before 0.3

        given = self._context
        metadata = dict(given.metadata) if given.metadata else None
        tags = list(given.tags) or None
        return Published(given.config_key, given.session_id, given.customer_id, metadata, tags)

    def __enter__(self) -> FallomSession:
        enter_session(self._context)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave_session(self._context, is_dropped=kind is GeneratorExit)

    async def __aenter__(self) -> FallomSession:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"FallomSession(config_key={self.config_key!r}, session_id={self.session_id!r})"

    def attributes(self) -> dict[str, AttributeValue]:
        """Give the span attributes of this session and of its model's assignment."""
        attributes = session_attributes(self._context)
        explained = self._assigned
        if explained is not None:
            attributes.update(
                assigned_attributes(explained.config_version, explained.index, explained.reason)
            )
            return attributes
        attributes.update(known_assignment(self.config_key, self.session_id))  # of models.get
        return attributes

    async def _wait_for_version(self, config_key: str, version: int) -> None:
        import asyncio  # only here: whoever awaits this has loaded it already

        runtime = current()
        if runtime.snapshot.is_empty() or runtime.snapshot.config(config_key, version) is not None:
            return
        until_s = runtime.wish(config_key, version)
        while until_s is not None and time.monotonic() < until_s:
            if runtime.snapshot.config(config_key, version) is not None:
                return
            await asyncio.sleep(0.01)


def session(
    config_key: str,
    session_id: str,
    customer_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    tags: Sequence[str] | None = None,
) -> FallomSession:
    """Make a session.

    Args:
        config_key: The config's key, under which traces are grouped.
        session_id: The conversation's or request's id: the same id gets the same model.
        customer_id: The end user; targeting sees it as ``customerId``.
        metadata: Anything worth knowing, by name; what is no mapping gets the name ``value``.
        tags: Words to find it by; one text is one tag.

    Raises:
        TypeError: A key or id is no text.
    """
    return FallomSession(config_key, session_id, customer_id, metadata, tags)
