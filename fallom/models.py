"""Model A/B testing: which model a session gets.

The assignment is a pure function of the session id and the config: the same in every process, on every
host, in every language. Configs are read from memory; there is no network here.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fallom._arguments import check_text, version_of
from fallom._assignments import Made
from fallom._core.assignment import CompiledConfig, bucket_of, choose
from fallom._core.assignment import explain as explain_assignment
from fallom._core.errors import NotFoundError
from fallom._core.frozen import Frozen
from fallom._core.span import Exposure
from fallom._past import Past, past_assignment, unix_ns_of
from fallom._runtime import HOLDER, Runtime, current
from fallom._spool.frame import Kind
from fallom._spool.segment import Destination
from fallom._waiting import is_in_event_loop, wait_for_publish

__all__ = ["Explanation", "explain", "get", "init"]

_EXPOSURES, _EXPOSURE = Destination.EXPOSURES, Kind.EXPOSURE  # a member of an enum costs 60 ns


class Explanation(Frozen):
    """Which model a session gets, and why.

    Attributes:
        config_key: The config that was asked for.
        session_id: The session that was asked about.
        model: The model; None where the config is not known and there is no fallback.
        index: The variant's index, from 0; None for a fallback.
        bucket: The session's bucket, 0 to 999,999, the same for every config that has no salt.
        reason: "individual_target", "rule:0" (the number of the targeting rule) or "weight"; for a
            fallback "fallback: no_snapshot", "fallback: config_not_found",
            "fallback: version_not_found" or, of the past, "fallback: not_kept".
        is_pinned: Whether a version was asked for.
        config_version: The version that decided; None for a fallback.
        generation: The snapshot's generation, in unix nanoseconds; 0 if nothing was ever published.
        snapshot_age_s: Seconds since it was published; None if nothing was.
    """

    config_key: str
    session_id: str
    model: str | None
    index: int | None
    bucket: int
    reason: str
    is_pinned: bool
    config_version: int | None
    generation: int
    snapshot_age_s: float | None


def get(
    config_key: str,
    session_id: str,
    version: int | None = None,
    fallback: str | None = None,
    customer_id: str | None = None,
    context: Mapping[str, Any] | None = None,
    debug: bool = False,
) -> str:
    """Give the model that a session is assigned to.

    Args:
        config_key: The config's key.
        session_id: The session's id; the same id gets the same model.
        version: Pin to a version of the config; None for the current one.
        fallback: The model to use when the config is not known.
        customer_id: For targeting, as the context's ``customerId``.
        context: For targeting: field names to values.
        debug: Without effect; earlier releases had it. ``fallom.init(debug=True)`` logs more.

    Returns:
        The model's name.

    Raises:
        NotFoundError: The config, or that version of it, is not known, and no fallback was given.
        TypeError: ``config_key`` or ``session_id`` is no text, and no fallback was given.

    Blocks:
        Never for the network. Where no snapshot was ever published on this host, and without a fallback
        for a key that is not in one from before the last ``sync_interval``, up to
        ``cold_start_timeout`` (1 s), once per process; for a pinned version that the snapshot does not
        have, as long, once per version and minute; under a running event loop, if there is a fallback,
        not at all.
    """
    runtime = HOLDER.runtime or current()
    try:
        if version is None:
            model = runtime.known_model(config_key, session_id)
            if model is not None:
                return model
        generation = runtime.snapshot.seen  # before the config: of it, or an earlier one
        config = runtime.snapshot.config(config_key, version)
        if config is None:
            config = _wait_for(runtime, config_key, version, bool(fallback))
        if config is not None:
            if config.targeting is None:  # then ``choose`` is this, and a call more
                index = bisect_right(config.thresholds, bucket_of(session_id, config.salt))
                holds = generation if version is None else -1
                made = runtime.assignments.by_weight(
                    config, session_id, index, holds, version is None
                )
            else:
                made = None
                index = choose(config, session_id, customer_id, context)
                if runtime.assignments.is_new(config, session_id, index):
                    why = explain_assignment(config, session_id, customer_id, context).reason
                    made = runtime.assignments.by_targeting(config, session_id, index, why)
            if made is not None and runtime.tells_exposures:
                _tell(runtime, made, session_id)
            else:
                runtime.look_if_due()  # else recording did
            return config.models[index]
    except Exception as error:  # noqa: BLE001 - the edge guard of this call
        if not fallback:
            check_text(config_key=config_key, session_id=session_id)
        runtime.gave_up("models.get", error)
    if fallback:
        return fallback
    raise _not_found(runtime, config_key, version)


def _tell(runtime: Runtime, made: Made, session_id: str) -> None:
    now_ns = time.time_ns()
    payload = made.exposure(session_id, now_ns)
    if payload is not None:
        runtime.record(_EXPOSURES, _EXPOSURE, payload)
    else:
        config = made.config
        exposure = Exposure(config.key, config.version, session_id, made.model, now_ns)
        runtime.record_values(_EXPOSURES, _EXPOSURE, exposure)


def explain(
    config_key: str,
    session_id: str,
    version: int | None = None,
    fallback: str | None = None,
    customer_id: str | None = None,
    context: Mapping[str, Any] | None = None,
    at: datetime | float | None = None,
) -> Explanation:
    """Tell which model ``get`` gives with these arguments, and why. Records nothing.

    Args:
        config_key: As for ``get``.
        session_id: As for ``get``.
        version: As for ``get``.
        fallback: As for ``get``.
        customer_id: As for ``get``.
        context: As for ``get``.
        at: What ``get`` gave on this host at a time in the past, a ``datetime`` (local without a zone) or
            unix seconds. The last 16 changes are kept; before them the reason is "fallback: not_kept".

    Raises:
        TypeError: ``config_key`` or ``session_id`` is no text, or ``at`` neither ``datetime`` nor number.
        ValueError: ``at`` is no time that can be counted to: NaN, say.

    Blocks:
        Without ``at`` never; with it for a read of the snapshot's database, milliseconds and at most 2 s.
    """
    check_text(config_key=config_key, session_id=session_id)
    version = version_of(version)
    runtime = current()
    if at is not None:
        at_ns = unix_ns_of(at)
        return _explain_past(
            runtime, config_key, session_id, version, fallback, customer_id, context, at_ns
        )
    config = runtime.snapshot.config(config_key, version)
    info = runtime.snapshot.info()
    if config is None:
        model, index, reason, found = fallback or None, None, _missing(runtime, config_key), None
        bucket = bucket_of(session_id)
    else:
        assigned = explain_assignment(config, session_id, customer_id, context)
        model, index, reason = assigned.model, assigned.index, assigned.reason
        bucket, found = assigned.bucket, config.version
    return Explanation(
        config_key=config_key,
        session_id=session_id,
        model=model,
        index=index,
        bucket=bucket,
        reason=reason,
        is_pinned=version is not None,
        config_version=found,
        generation=info.generation,
        snapshot_age_s=info.age_s(time.time_ns()),
    )


def _explain_past(
    runtime: Runtime,
    config_key: str,
    session_id: str,
    version: int | None,
    fallback: str | None,
    customer_id: str | None,
    context: Mapping[str, Any] | None,
    at_ns: int,
) -> Explanation:
    from fallom._snapshot.database import DatabaseError  # of those who look back

    runtime.look_if_due()
    past = Past(None, "fallback: no_snapshot", bucket_of(session_id), None, 0, 0, 0)
    try:
        with runtime.snapshot.history() as history:
            past = past_assignment(
                history, config_key, session_id, at_ns, version, customer_id, context
            )
    except DatabaseError as error:
        runtime.warn("the past cannot be explained", str(error))
    return Explanation(
        config_key=config_key,
        session_id=session_id,
        model=past.assigned.model if past.assigned else fallback or None,
        index=past.assigned.index if past.assigned else None,
        bucket=past.bucket,
        reason=past.reason,
        is_pinned=version is not None,
        config_version=past.version,
        generation=past.generation,
        snapshot_age_s=(at_ns - past.published_unix_ns) / 1e9 if past.generation else None,
    )


def _wait_for(
    runtime: Runtime, config_key: str, version: int | None, has_fallback: bool
) -> CompiledConfig | None:
    """Wait for a publish, and for a pinned version, as far as waiting is allowed."""
    may_wait = not (has_fallback and is_in_event_loop())
    runtime.look_if_due()
    if may_wait:
        takes_old = has_fallback or version is not None
        wait_for_publish(runtime, lambda: runtime.snapshot.config(config_key), takes_old)
    config = runtime.snapshot.config(config_key, version)
    if config is not None or version is None or runtime.snapshot.is_empty():
        return config
    until_s = runtime.wish(config_key, version)
    while may_wait and until_s is not None and time.monotonic() < until_s:
        config = runtime.snapshot.config(config_key, version)
        if config is not None:
            return config
        time.sleep(0.01)
    return None


def _missing(runtime: Runtime, config_key: str) -> str:
    if runtime.snapshot.is_empty():
        return "fallback: no_snapshot"
    if runtime.snapshot.config(config_key) is None:
        return "fallback: config_not_found"
    return "fallback: version_not_found"


def _not_found(runtime: Runtime, config_key: str, version: int | None) -> NotFoundError:
    check_text(config_key=config_key)
    what = f"config {config_key!r}" + (f" version {version}" if version is not None else "")
    why = _missing(runtime, config_key).removeprefix("fallback: ").replace("_", " ")
    return NotFoundError(
        f"{what} is not known ({why}). Check the key in the dashboard and fallom.status(), or give "
        "fallback= so that the application goes on without it.",
        config_key,
        version,
    )


def init(api_key: str | None = None, base_url: str | None = None) -> None:
    """Set where configs come from, and leave the other settings as they are, as earlier releases did.

    ``fallom.init`` sets all at once.

    Raises:
        ConfigurationError: As ``fallom.init``.
    """
    from fallom._changed_settings import change_settings  # paid for by those who use it

    change_settings(api_key=api_key, configs_url=base_url)


if not TYPE_CHECKING:  # or a type checker would take every name for one of this module

    def __getattr__(name: str) -> Any:
        """Say that a name of 0.2.7 is gone: by an ImportError, whose text ``import`` shows."""
        if name in ("IndividualTarget", "Targeting", "TargetingCondition", "TargetingRule"):
            raise ImportError(
                f"fallom.models.{name} was left out in fallom 0.3: targeting is set in the dashboard, and "
                "models.explain() says what it decided for a session.",
                name=__name__,
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
