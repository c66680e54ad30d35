"""A record as it goes into the spool: packed as it is, else cleaned, and cut if it is too long.

Every record is tried as it is first, because nearly every one will do.
"""

from __future__ import annotations

from typing import Any

from fallom._core.limits import clean_record, cut_record
from fallom._spool.frame import RECORD_BYTES_MAX, RecordError, pack

__all__ = ["packed"]


def packed(record: Any) -> bytes:
    """Pack a record of ``_core.span``, in at most ``RECORD_BYTES_MAX``.

    Raises:
        RecordError: It cannot be packed even so.
    """
    try:
        payload = pack(record)
    except Exception:  # noqa: BLE001 - packing runs methods of the application's objects
        try:
            record = clean_record(record)
        except Exception as error:  # noqa: BLE001 - so does cleaning: a mapping may lie about itself
            raise RecordError(f"{type(error).__name__} of an object in the record") from None
        payload = pack(record)
    if len(payload) > RECORD_BYTES_MAX:
        record = cut_record(record, lambda shorter: len(pack(shorter)), RECORD_BYTES_MAX)
        if record is None:
            raise RecordError("too long however it is cut")
        payload = pack(record)
    return payload
