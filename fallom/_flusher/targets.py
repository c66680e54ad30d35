"""Which target each destination has: its hash is what an accepted offset stands beside."""

from __future__ import annotations

from fallom._core.extra_targets import ExtraTarget
from fallom._core.settings import Settings
from fallom._spool.segment import Destination, extra_target_hash, target_hash

__all__ = ["EXTRA_DESTINATIONS", "extra_hash", "hashes_of", "target_hashes"]

EXTRA_DESTINATIONS = (Destination.TRACES, Destination.METRICS)  # what extra targets get as well


def target_hashes(settings: Settings) -> dict[Destination, bytes]:
    """Give the hash of each destination's endpoint; workers that wait for delivery need it as well."""
    return {
        Destination.TRACES: target_hash(settings.traces_endpoint),
        Destination.METRICS: target_hash(settings.metrics_endpoint),
        Destination.EXPOSURES: target_hash(settings.exposures_endpoint),
        Destination.WISHES: target_hash("flusher"),
    }


def extra_hash(target: ExtraTarget) -> bytes:
    """Give the hash of an extra target."""
    return extra_target_hash(target.name, target.endpoint)


def hashes_of(target: ExtraTarget) -> dict[Destination, bytes]:
    """Give the hash of an extra target by the destinations that it gets."""
    return dict.fromkeys(EXTRA_DESTINATIONS, extra_hash(target))
