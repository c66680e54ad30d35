"""Sample traffic: worker processes that use fallom as an application would, without any provider.

``fallom dev --sample-traffic`` starts them, so that a new user sees the page alive. They are real
workers: their spans go through a spool and a flusher into the cloud, their models come from the configs
that it serves, so a weight that is changed on the page shows in them. They have a state directory of
their own, and end with the cloud.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random
from typing import Final

import fallom
from fallom._core.span import SessionContext, Span
from fallom._runtime import current
from fallom._session_attributes import session_attributes
from fallom._tracing import known_assignment
from fallom.dev.scenes import customer_of, session_ids, summary_turn, turn_of
from fallom.dev.server import python_path

__all__ = ["SampleTraffic", "run_worker"]

_WORKERS: Final = 3
_PAST_TURNS: Final = 60  # of each worker, at once: experiments need sessions
_PAST_S: Final = 1800.0  # over which these are spread
_PAUSE_S: Final = 1.5  # between two turns of a worker, on average
_END_S: Final = 5.0
_SUMMARY_SHARE: Final = 0.25
_NS: Final = 1_000_000_000


class SampleTraffic:
    """The workers, as a context: they run within it."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="fallom-sample-")
        self.state_dir = str(Path(self._directory.name) / "state")
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, url: str) -> None:
        """Start the workers; they talk to the cloud at ``url``."""
        urls = {f"FALLOM_{name}_URL": url for name in ("TRACES", "CONFIGS", "PROMPTS")}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FALLOM_", "OTEL_"))}
        own = {
            "FALLOM_STATE_DIR": self.state_dir,
            "FALLOM_SYNC_INTERVAL": "1",
            "FALLOM_LINGER": "2",
        }
        for number in range(_WORKERS):
            self._processes.append(
                subprocess.Popen(  # noqa: S603  our own command, no shell
                    [sys.executable, "-m", "fallom.dev.traffic", str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    env={**kept, **urls, **own, "PYTHONPATH": python_path(kept)},
                    start_new_session=True,  # Ctrl-C is the cloud's to handle
                )
            )

    def __enter__(self) -> SampleTraffic:
        """Give itself; ``start`` starts the workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers and remove their files."""
        for process in self._processes:
            if process.stdin:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._directory.cleanup()


def run_worker(number: int) -> None:
    """Record turns until standard input closes; the past first, then one after another."""
    fallom.init(api_key="sample-traffic", service_name="sample-shop", auto_instrument=False)
    fallom.wait_until_ready()
    ended = threading.Event()
    threading.Thread(target=_watch_input, args=(ended,), daemon=True).start()
    rng = Random(time.time_ns() + number)  # noqa: S311  for show
    ids = session_ids(rng)
    now_ns = time.time_ns()
    step_ns = int(_PAST_S * _NS / _PAST_TURNS)
    for turn in range(_PAST_TURNS):
        past_ns = (_PAST_TURNS - turn) * step_ns + rng.randrange(step_ns) + 15 * _NS
        _record(rng, next(ids), now_ns - past_ns)
    while not ended.wait(rng.expovariate(1 / _PAUSE_S)):
        _record(rng, next(ids), None)


def _record(rng: Random, session_id: str, start_ns: int | None) -> None:
    """Record one turn that began at ``start_ns``, or that ends now."""
    is_summary = rng.random() < _SUMMARY_SHARE
    key = "summarizer-config" if is_summary else "my-app"
    session_id = f"sum-{session_id[5:]}" if is_summary else session_id
    customer = customer_of(session_id)
    model = fallom.models.get(
        key,
        session_id,
        fallback="gpt-4o-mini",
        customer_id=customer.customer_id,
        context={"plan": customer.plan, "region": customer.region},
    )
    metadata = {"plan": customer.plan, "region": customer.region}
    session = SessionContext(
        key, session_id, customer.customer_id, metadata=metadata, tags=customer.tags
    )
    attributes = {**session_attributes(session), **known_assignment(key, session_id)}
    if not is_summary:
        try:
            prompt = fallom.prompts.get_ab("onboarding-test", session_id, {"user_name": "Ada"})
        except fallom.NotFoundError:  # a folder of the user's own has other tests
            pass
        else:
            attributes["fallom.prompt_key"] = prompt.key
            attributes["fallom.prompt_version"] = prompt.version
            if prompt.ab_test_key is not None and prompt.variant_index is not None:
                attributes["fallom.prompt_ab_test"] = prompt.ab_test_key
                attributes["fallom.prompt_variant"] = prompt.variant_index
    scene = summary_turn if is_summary else turn_of
    turn = scene(rng, model, attributes, start_ns or time.time_ns())
    if start_ns is None:  # it took the scene no time: let it end now
        shift = time.time_ns() - max(span.end_unix_ns for span in turn.spans)
        turn = turn._replace(spans=[_shifted(span, shift) for span in turn.spans])
    for span in turn.spans:
        current().record_span(span)
    if turn.metrics:
        fallom.trace.span(turn.metrics, config_key=key, session_id=session_id)


def _shifted(span: Span, shift_ns: int) -> Span:
    return span._replace(
        start_unix_ns=span.start_unix_ns + shift_ns,
        end_unix_ns=span.end_unix_ns + shift_ns,
        events=[event._replace(unix_ns=event.unix_ns + shift_ns) for event in span.events],
    )


def _watch_input(ended: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ended.set()


if __name__ == "__main__":
    run_worker(int(sys.argv[1]))
