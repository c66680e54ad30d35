"""What is counted on the control page: why records were given up, and what the flusher did."""

from __future__ import annotations

import enum

__all__ = ["Drop", "Tally"]


class Drop(enum.IntEnum):
    """Why a record was given up. The number is its place in the page."""

    DISK = 0  # the write was refused: full, read-only, or an I/O error
    QUOTA = 1  # the spool is at its limit
    TOO_LARGE = 2  # above 1 MiB even after its content was cut
    NOT_ENCODABLE = 3
    NO_DIRECTORY = 4  # no state directory could be made safe
    NO_DESCRIPTOR = 5  # out of file descriptors
    INTERNAL = 6  # a fault of ours; the log has it
    OLDEST = 7  # deleted by the flusher to get below the quota
    DAMAGED = 8  # a frame on disk that could not be read; it is set aside
    REFUSED = 9  # the server refused it for good; it is in dead/
    REJECTED = 10  # the server took the batch and rejected these (partial success)
    DEAD_EVICTED = 11  # fell out of dead/ by age or size
    EXPOSURES_OFF = 12  # the server has no /sessions
    LOCK = 13  # a lock of ours was held for too long
    AGED = 14  # unsent for longer than spool_age_max, and deleted by the flusher
    SAMPLED = 15  # of a session that sampling leaves out; as asked for, so people see no drop
    ERASED = 16  # unsent, and removed by ``fallom spool erase``


class Tally(enum.IntEnum):
    """What the flusher counted since the page was made. The number is its place in the page."""

    SPANS_ACCEPTED = 0
    METRICS_ACCEPTED = 1
    EXPOSURES_ACCEPTED = 2
    BATCHES_SENT = 3
    BATCHES_RETRIED = 4
    CONFIG_FETCHES = 5
    PUBLISHES = 6
    FLUSHER_STARTS = 7
    EXPOSURES_REPEATED = 8  # known to the flusher, not sent again
    DELIVERY_MS = 9  # how long the exchanges took, all together
