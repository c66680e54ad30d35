"""The channels of the main target: where each destination's records are posted, how, and as whom."""

from __future__ import annotations

import time
from collections.abc import Callable

from fallom._core.settings import Settings, is_hosted
from fallom._flusher.credentials import key_headers, traces_headers
from fallom._flusher.delivery import (
    Delivery,
    MasksInForce,
    Result,
    deliver_json,
    deliver_otlp,
    exposure_body,
    metrics_body,
    withhold,
)
from fallom._flusher.exposures import ExposureFilter
from fallom._flusher.http import Http
from fallom._flusher.ledger import Ledger
from fallom._flusher.ship import Channel
from fallom._flusher.window import BATCHES_MAX
from fallom._host.counts import Tally
from fallom._spool.reader import Item
from fallom._spool.segment import Destination

__all__ = ["channels_of"]


def channels_of(
    settings: Settings, http: Http, masks: MasksInForce, ledger: Ledger
) -> list[Channel]:
    """Give a channel for each destination; the time of deliveries is counted in ``ledger``."""
    who = traces_headers(settings)
    is_json = settings.metrics_protocol == "json"
    traces = deliver_otlp(who, http, settings.traces_endpoint, masks)
    metrics = (
        deliver_json(who, http, settings.metrics_endpoint, metrics_body)
        if is_json
        else deliver_otlp(who, http, settings.metrics_endpoint, masks)
    )
    exposures = deliver_json(
        key_headers(settings), http, settings.exposures_endpoint, exposure_body
    )
    if not settings.tells_exposures:  # of an earlier version, or put back from dead/
        exposures = withhold("a folder takes no exposures", status=404)
    if not settings.api_key:  # the hosted service answers nobody without one, and is not asked
        kept = withhold("there is no API key (set FALLOM_API_KEY)")
        if is_hosted(settings.traces_url) and not settings.traces_headers:
            traces = metrics = kept
        if is_hosted(settings.configs_url):
            exposures = kept
    return [
        Channel(Destination.TRACES, _timed(traces, ledger), Tally.SPANS_ACCEPTED),
        Channel(
            Destination.METRICS,
            _timed(metrics, ledger),
            Tally.METRICS_ACCEPTED,
            # In JSON each record is a request, of which several are under way at once.
            batches_max=1 if is_json else BATCHES_MAX,
        ),
        Channel(
            Destination.EXPOSURES,
            _timed(exposures, ledger),
            Tally.EXPOSURES_ACCEPTED,
            repeats=ExposureFilter(),
            is_optional=True,
            batches_max=1,
        ),
    ]


def _timed(deliver: Delivery, ledger: Ledger) -> Delivery:
    """Give the same way to deliver, with the time of the exchanges counted."""

    def begin(items: list[Item], attempt: int, now_unix_s: float) -> Callable[[], Result]:
        exchange = deliver.begin(items, attempt, now_unix_s)

        def timed() -> Result:
            started_s = time.monotonic()
            result = exchange()
            if result.requests:
                ledger.tally(Tally.DELIVERY_MS, int((time.monotonic() - started_s) * 1e3))
            return result

        return timed

    return Delivery(begin)
