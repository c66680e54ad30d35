"""Which target each destination has: its hash is what an accepted offset stands beside."""

from __future__ import annotations

from fallom._core.settings import Settings
from fallom._spool.segment import Destination, target_hash

__all__ = ["target_hashes"]


def target_hashes(settings: Settings) -> dict[Destination, bytes]:
    """Give the hash of each destination's endpoint; workers that wait for delivery need it as well."""
    return {
        Destination.TRACES: target_hash(settings.traces_endpoint),
        Destination.METRICS: target_hash(settings.metrics_endpoint),
        Destination.EXPOSURES: target_hash(settings.exposures_endpoint),
        Destination.WISHES: target_hash("flusher"),
    }
