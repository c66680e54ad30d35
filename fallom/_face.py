"""The calls of ``fallom`` itself: begin, wait, look, end."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from fallom._arguments import seconds_of
from fallom._auto_instrument import connect_celery, instrument_clients
from fallom._core.errors import ConfigurationError, StateDirectoryError
from fallom._core.settings import Settings, is_hosted, resolve_settings
from fallom._runtime import HOLDER, Runtime, current, start

if TYPE_CHECKING:
    from typing_extensions import Never  # of typing from Python 3.11 on

__all__ = ["aflush", "flush", "init", "shutdown", "status", "wait_until_ready"]

_logger = logging.getLogger("fallom")


def init(
    api_key: str | None = None,
    traces_url: str | None = None,
    configs_url: str | None = None,
    prompts_url: str | None = None,
    capture_content: bool | None = None,
    debug: bool | None = None,
    *,
    state_dir: str | os.PathLike[str] | None = None,
    flusher: Literal["process", "external"] | None = None,
    service_name: str | None = None,
    traces_headers: Mapping[str, str] | None = None,
    cold_start_timeout: float | None = None,
    sync_interval: float | None = None,
    linger: float | None = None,
    spool_bytes_max: int | None = None,
    spool_segments_max: int | None = None,
    spool_age_max: float | None = None,
    spool_policy: Literal["drop_oldest", "drop_newest"] | None = None,
    segment_bytes_max: int | None = None,
    dead_bytes_max: int | None = None,
    dead_age_max: float | None = None,
    fsync: Literal["none", "interval", "always"] | None = None,
    metrics_protocol: Literal["otlp", "json"] | None = None,
    sample_rate: float | None = None,
    auto_instrument: bool | None = None,
    bootstrap: str | os.PathLike[str] | None = None,
    ship_masks: str | Iterable[str] | None = None,
    self_metrics: Literal["none", "otlp"] | None = None,
    extra_targets: Iterable[Mapping[str, Any]] | None = None,
    mask: Callable[[str], str] | None = None,
    **unknown: Never,
) -> None:
    """Begin. Call it once, where the application starts; before a fork or after, both is fine.

    Calling it again with the same settings does nothing; with others, those hold from then on, unless it
    raises. An argument that is not given is read from the environment variable ``FALLOM_<NAME>``, and has
    its default where that is not set either.

    Args:
        api_key: The account's key. Without it, fallbacks and local URLs work.
        traces_url: Any OTLP/HTTP base URL; ``/v1/traces`` is added unless it ends so.
        configs_url: Where model configs are fetched, and exposures go.
        prompts_url: Where prompts are fetched.
        capture_content: False for privacy mode: no text of prompts or completions is recorded, nor of
            errors, which may repeat it. If the environment says no, no argument can say yes.
        debug: Log at level DEBUG, to the logger ``fallom``.
        state_dir: The directory for spool and snapshot, on a local disk; a relative one is below the
            directory that the process runs in. By default the user's state directory,
            ``/var/tmp/fallom-<uid>``, or the temp directory: the first that can be used.
        flusher: "process": a flusher process is started by itself. "external": somebody runs
            ``fallom flusher``.
        service_name: ``service.name`` of the spans' resource; then OTEL_SERVICE_NAME.
        traces_headers: Headers for ``traces_url``, for backends with other credentials than the key. With
            them the key goes there only if the host is fallom's or that of ``configs_url``.
        cold_start_timeout: Seconds that the first call may wait where no config was ever fetched on
            this host (1; 0 to 60).
        sync_interval: Seconds between two fetches of configs and prompts (30).
        linger: Seconds that the flusher stays when no process needs it (10).
        spool_bytes_max: Bytes that unsent records may take on disk (512 MiB; in /dev/shm never more than
            16 MiB). From 90 % of it on bodies of messages are left out; at the limit ``spool_policy``
            holds.
        spool_segments_max: How many files that may be (10,000).
        spool_age_max: Seconds after which unsent records of ended processes are given up (7 days).
        spool_policy: What goes at a limit: "drop_oldest", or "drop_newest" to keep what is there.
        segment_bytes_max: Bytes at which a spool file is closed and a new one begun (8 MiB).
        dead_bytes_max: Bytes that refused records may take on disk (64 MiB).
        dead_age_max: Seconds for which refused records are kept (14 days).
        fsync: "none": a span survives the process. "interval": while the flusher lives, all but the
            last second survives a power loss. "always": all does, and each record waits for the disk.
        metrics_protocol: "otlp": custom metrics are sent as spans. "json": as the published SDKs do,
            to ``/spans``.
        sample_rate: The share of sessions whose spans are recorded (1; 0 to 1): all of a session's or
            none. Metrics and exposures are recorded whatever it is.
        auto_instrument: False leaves OpenTelemetry instrumentations of LLM clients alone. By default those
            that are installed are used, so that calls are traced whose client is not wrapped. It also
            leaves Celery alone, whose tasks carry session and trace by default.
        bootstrap: A snapshot that the application ships with, made by ``fallom configs export``; it serves
            until configs, or prompts, were fetched for the first time on this host.
        ship_masks: Masks of ``fallom.masks`` by name, as "api_keys,email_addresses" or a list: what is
            spooled goes through them when it is sent, also what was recorded before. They stay in force for
            all processes with these URLs and this key until it says otherwise; "none" lifts them.
        self_metrics: "otlp" has the flusher send what it counts (delivered, dropped, lag) once a minute as
            OTLP metrics, to ``/v1/metrics`` beside ``traces_url``.
        extra_targets: Further OTLP backends that get the same spans and custom metrics: mappings with
            ``name`` and ``url``, and, if wanted, ``headers``, ``bytes_max`` (of spool files kept for it
            alone, 128 MiB) and ``age_max`` (seconds for which those are kept, a day). ``flush`` does not
            wait for them.
        mask: Takes each text of a prompt, a completion, a tool's arguments and results or a provider's
            error, and gives what is recorded in its place; see ``fallom.masks``. If it raises, the text
            is ``[mask failed]``. It stays in this process, and in force until another is given.
        **unknown: Nothing; a name that does not exist is an error that says what is near.

    Raises:
        ConfigurationError: A value that cannot be used; the message says which and how to mend it.
        StateDirectoryError: ``state_dir`` cannot be used: no directory, another user's, on a network
            file system, not writable.

    Blocks:
        For a few milliseconds: opening the state directory, starting the flusher. Never for the network.
    """
    arguments = {name: value for name, value in locals().items() if name not in ("unknown", "mask")}
    settings = resolve_settings({**arguments, **unknown}, os.environ)
    if mask is not None and not callable(mask):
        raise ConfigurationError(
            f"mask must be a callable that takes text and gives text, not {type(mask).__name__}; "
            "fallom.masks has some.",
            "mask",
        )
    shipped = None
    if settings.bootstrap is not None:
        from fallom._snapshot.bootstrap import read_bootstrap  # of those who ship one

        shipped = read_bootstrap(settings.bootstrap)
    if settings.debug:
        _logger.setLevel(logging.DEBUG)
    before = HOLDER.runtime
    runtime = start(settings, mask, shipped)
    if settings.state_dir is not None:
        try:
            runtime.whereabouts.try_open()  # an explicit choice that cannot be used is an error
        except StateDirectoryError:
            # That of a first init stays: it tries again in later calls, and counts what it drops.
            if before is not None:
                HOLDER.runtime = before
            raise
    _warn_without_key(settings, runtime)
    runtime.look()
    if settings.auto_instrument:
        instrument_clients(sys.path)
        connect_celery()


def flush(timeout: float = 10.0) -> int:
    """Wait until all that is recorded now, by any process of this host's namespace, is delivered.

    Args:
        timeout: Seconds to wait at most.

    Returns:
        How many records the server has not accepted by then; 0 when all is delivered. They are not
        lost: they stay in the spool.

    Raises:
        TypeError: ``timeout`` is no number.

    Blocks:
        For up to ``timeout``.
    """
    from fallom._flush import POLL_S, flush_steps  # paid for by those who use it

    for left in flush_steps(current(), seconds_of("timeout", timeout)):
        if left is not None:
            return left
        time.sleep(POLL_S)
    return 0


async def aflush(timeout: float = 10.0) -> int:
    """Wait as ``flush`` does, with the event loop running on."""
    import asyncio  # only here: whoever awaits this has loaded it already

    from fallom._flush import POLL_S, flush_steps

    for left in flush_steps(current(), seconds_of("timeout", timeout)):
        if left is not None:
            return left
        await asyncio.sleep(POLL_S)
    return 0


def shutdown() -> None:
    """Close this process's spool files. Nothing depends on it: what is recorded is safe anyway.

    Recording again afterwards works. Does not wait for delivery: ``flush`` does.
    """
    current().seal()


def status() -> dict[str, Any]:
    """Give the state of this host's fallom as plain values; never raises.

    Returns:
        ``version``, ``pid``, ``namespace``, ``state_dir``; ``flusher`` (``mode``, ``is_alive``, ``pid``,
        ``version``, ``beat_age_s``, ``paused_s``, ``batch_mean_s``); ``snapshot`` (``generation``,
        ``age_s`` since it changed, ``checked_age_s`` since it was last fetched); ``spool`` (``segments``,
        ``allocated_bytes``, ``unaccepted_bytes``, ``waiting_records``, ``oldest_age_s``,
        ``limit_bytes``); ``targets`` (of each extra target ``name``, ``url``, ``accepted``, ``dropped``,
        ``paused_s``, ``last_error``, and as of the spool what waits); ``dead`` (``files``, ``bytes``);
        ``recorded`` (what came into the spool), ``sent`` (counts since the state directory was made);
        ``dropped`` (counts by reason, without zeros); ``sampled_out`` (spans of sessions that sampling
        leaves out); ``last_error`` (a sentence, "" for none).
    """
    from fallom._status import read_status  # paid for by those who use it

    runtime = current()
    runtime.look()
    return read_status(runtime)


def wait_until_ready(timeout: float = 10.0) -> bool:
    """Wait until configs and prompts can be read: fetched now, or by an earlier run on this host.

    Args:
        timeout: Seconds to wait at most.

    Returns:
        Whether they can.

    Raises:
        TypeError: ``timeout`` is no number.

    Blocks:
        For up to ``timeout``; not at all where a snapshot is there.
    """
    give_up = time.monotonic() + seconds_of("timeout", timeout)
    runtime = current()
    runtime.look()
    while runtime.snapshot.is_empty():
        if time.monotonic() >= give_up:
            return False
        runtime.look_if_due()
        time.sleep(0.005)
    return True


def _warn_without_key(settings: Settings, runtime: Runtime) -> None:
    """Say once what will not work without a key; only where the hosted service is asked."""
    if settings.api_key is not None:
        return
    missing = []
    if is_hosted(settings.traces_url) and not settings.traces_headers:
        missing.append("traces are kept on disk and not sent")
    if is_hosted(settings.configs_url) or is_hosted(settings.prompts_url):
        missing.append("configs and prompts are not fetched")
    if missing:
        runtime.warn(
            f"no API key: {', '.join(missing)}",
            "set FALLOM_API_KEY or init(api_key=...); fallbacks and local URLs work without",
        )
