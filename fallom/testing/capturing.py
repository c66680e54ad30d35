"""``capture``: a state directory for the time of a block, with a runtime that nothing ships from."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from fallom._context import CURRENT_PROMPT, CURRENT_SESSION
from fallom._core.settings import PARAMETERS, Settings
from fallom._diversion import diverted
from fallom._host.place import Place
from fallom._runtime import current
from fallom._spool.frame import Kind
from fallom._spool.reader import SpoolReader
from fallom._spool.segment import Destination, target_hash
from fallom.testing.records import (
    CapturedExposure,
    CapturedMetrics,
    CapturedSpan,
    captured_exposure,
    captured_metrics,
    captured_span,
)

__all__ = ["Capture", "capture"]

T = TypeVar("T")

_TARGET = target_hash("fallom.testing")
_ITEMS_MAX, _BYTES_MAX = 1000, 16 << 20  # of one read


class Capture:
    """What a block recorded, read anew at each look; of its forked children too."""

    def __init__(self, place: Place) -> None:
        """Use ``capture``."""
        self._place = place
        self._readers = {
            destination: SpoolReader(
                place.directory.spool,
                destination,
                _TARGET,
                on_damage=_damaged,
                on_error=_unreadable,
            )
            for destination in (Destination.TRACES, Destination.METRICS, Destination.EXPOSURES)
        }
        self._spans: list[CapturedSpan] = []
        self._metrics: list[CapturedMetrics] = []
        self._exposures: list[CapturedExposure] = []

    @property
    def spans(self) -> list[CapturedSpan]:
        """The spans that ended so far, in the order in which they ended."""
        self._read(Destination.TRACES, Kind.SPAN, captured_span, self._spans)
        return list(self._spans)

    @property
    def metrics(self) -> list[CapturedMetrics]:
        """The calls of ``trace.span`` so far."""
        self._read(Destination.METRICS, Kind.METRICS, captured_metrics, self._metrics)
        return list(self._metrics)

    @property
    def exposures(self) -> list[CapturedExposure]:
        """The assignments so far: one a session and config."""
        self._read(Destination.EXPOSURES, Kind.EXPOSURE, captured_exposure, self._exposures)
        return list(self._exposures)

    def span(self, name: str | None = None) -> CapturedSpan:
        """Give the one span, or the one of that name.

        Args:
            name: Its name, or the beginning of it; None for the only span there is.

        Raises:
            AssertionError: There is none, or more than one; the message lists what there is.
        """
        spans = self.spans
        found = [span for span in spans if name is None or span.name.startswith(name)]
        if len(found) != 1:
            wanted = "one span" if name is None else f"one span whose name begins with {name!r}"
            there = ", ".join(repr(span.name) for span in spans) or "none"
            raise AssertionError(f"expected {wanted}, found {len(found)}; recorded were: {there}")
        return found[0]

    def clear(self) -> None:
        """Forget what was recorded so far."""
        for look in (lambda: self.spans, lambda: self.metrics, lambda: self.exposures):
            look()
        for kept in (self._spans, self._metrics, self._exposures):
            kept.clear()

    def publish(
        self,
        models: Mapping[str, Any] | None = None,
        prompts: Mapping[str, Any] | None = None,
        ab_tests: Mapping[str, Any] | None = None,
    ) -> None:
        """Change what is served, as a change in the dashboard would; the next calls see it.

        Args:
            models: As for ``capture``; what is not named stays as it is.
            prompts: Likewise.
            ab_tests: Likewise.

        Raises:
            ConfigurationError: Something cannot be served; the message says what and how to mend it.
        """
        # Here, because diskcache takes its time to import, and the plugin is loaded in every pytest.
        from pathlib import Path

        from fallom._snapshot.publish import Publisher
        from fallom.testing.payloads import listings_of

        listings = listings_of(models or {}, prompts or {}, ab_tests or {})
        publisher = Publisher(Path(self._place.directory.snapshot_path))
        self._place.page.set_generation(publisher.publish(listings))

    def _read(
        self, destination: Destination, kind: Kind, made: Callable[[Any], T], into: list[T]
    ) -> None:
        reader = self._readers.get(destination)
        if reader is None:
            return  # the block has ended, and all is read
        reader.refresh(time.monotonic_ns())
        while pieces := reader.next_batch(_ITEMS_MAX, _BYTES_MAX):
            into += [
                made(item.record) for piece in pieces for item in piece.items if item.kind == kind
            ]

    def _end(self) -> None:
        """Read what is left; the directory is about to go."""
        _ = self.spans, self.metrics, self.exposures
        for reader in self._readers.values():
            reader.close()
        self._readers = {}
        # By hand, because the collector may come by only after hundreds of tests.
        self._place.directory.close()
        self._place.page.close()


@contextlib.contextmanager
def capture(
    models: Mapping[str, Any] | None = None,
    prompts: Mapping[str, Any] | None = None,
    ab_tests: Mapping[str, Any] | None = None,
    *,
    capture_content: bool | None = None,
    sample_rate: float | None = None,
) -> Iterator[Capture]:
    """Capture what the block records, and serve it fixed models and prompts.

    Within the block, settings of ``fallom.init`` hold as far as they say what is recorded (privacy mode,
    mask, sampling, service name); where it goes and where configs come from is the capture's. Calls of
    ``init`` within the block do not end it. What is not fixed is not known: ``models.get`` gives the
    fallback, at once. ``fallom.flush()`` returns 0. Blocks may be nested; they are the whole
    process's, so that of two threads only one can have one.

    Args:
        models: Config keys to what they give: a model's name for every session, a mapping of names to
            weights, or a config as the server lists it (with ``variants`` and ``targeting``).
        prompts: Prompt keys to the user's text, to a list of messages with ``role`` and ``content``, or
            to a mapping with ``system``, ``user``, ``messages`` and ``version``.
        ab_tests: Keys of prompt A/B tests to a mapping of prompt keys to weights, or a test as the server
            lists it.
        capture_content: False for privacy mode; None for what ``init`` says.
        sample_rate: The share of sessions to keep; None for what ``init`` says.

    Yields:
        What was recorded so far; after the block too.

    Raises:
        ConfigurationError: A model or prompt cannot be served, or a setting not used; the message says
            how to mend it.

    Blocks:
        For the time to make a directory and a small database, some 10 ms.
    """
    said = {"capture_content": capture_content, "sample_rate": sample_rate}
    changes = {n: PARAMETERS[n][2](n, v) for n, v in said.items() if v is not None}
    pid = os.getpid()
    directory = tempfile.mkdtemp(prefix="fallom-capture-")
    session, prompt = CURRENT_SESSION.get(), CURRENT_PROMPT.get()
    captured = None
    try:
        with diverted(lambda settings: _settings(settings, directory, changes)):
            CURRENT_SESSION.set(None)
            CURRENT_PROMPT.set(None)
            captured = Capture(current().whereabouts.open())
            captured.publish(models or {}, prompts or {}, ab_tests or {})
            yield captured
    finally:
        CURRENT_SESSION.set(session)
        CURRENT_PROMPT.set(prompt)
        if os.getpid() == pid:  # a child that was forked in the block leaves its parent's directory
            if captured is not None:
                captured._end()
            shutil.rmtree(directory, ignore_errors=True)


def _settings(given: Settings, directory: str, changes: Mapping[str, Any]) -> Settings:
    """Give settings that say what is recorded as ``given`` does, and nothing of where it goes."""
    apart = Settings(
        api_key="capture",
        state_dir=directory,
        flusher="none",
        cold_start_timeout_s=0.0,
        auto_instrument=False,
    )
    kept = (
        "capture_content",
        "debug",
        "service_name",
        "resource_attributes",
        "sample_rate",
        "spool_bytes_max",
        "spool_policy",
    )
    said = {name: getattr(given, name) for name in kept}
    return apart.replaced(**{**said, **changes})


def _damaged(*_: Any) -> None:
    raise AssertionError("the captured spool is damaged")


def _unreadable(what: str) -> None:
    raise AssertionError(what)
