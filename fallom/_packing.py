"""A record as it goes into the spool: packed as it is, else cleaned, and cut if it is too long.

Every record is tried as it is first, because nearly every one will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fallom._core.limits import clean_record, cut_record
from fallom._spool.frame import RECORD_BYTES_MAX, RecordError, new_packer, pack

__all__ = ["Packing"]


class Packing:
    """Packs the records of one process; for any thread."""

    __slots__ = ("_spare",)

    def __init__(self) -> None:
        """Start with no packer."""
        # A packer has a buffer, which nobody else may use meanwhile: not another thread, not a signal
        # handler, not a method of an object that is being packed. So each takes one out. That costs
        # 30 ns; a packer for each record 110.
        self._spare: list[Any] = []

    def try_packed(self, value: Any) -> bytes | None:
        """Pack a value as it is; None if that cannot be done."""
        try:
            packer = self._spare.pop()
        except IndexError:
            packer = new_packer()
        try:
            payload: bytes = packer.pack(value)
        except Exception:  # noqa: BLE001 - packing runs methods of the application's objects
            return None
        self._spare.append(packer)
        return payload

    def packed(self, record: Any, kind: Callable[..., Any] | None = None) -> bytes:
        """Pack a record of ``_core.span``, in at most ``RECORD_BYTES_MAX``.

        Args:
            record: A named tuple of that room, or a plain one of the fields of ``kind``, which takes a
                tenth of the time to make.
            kind: The named tuple's class, if ``record`` is a plain one.

        Raises:
            RecordError: It cannot be packed even so.
        """
        try:
            packer = self._spare.pop()
        except IndexError:
            packer = new_packer()
        try:
            payload: bytes = packer.pack(record)
        except Exception:  # noqa: BLE001 - packing runs methods of the application's objects
            return _packed_otherwise(record if kind is None else kind(*record))
        self._spare.append(packer)
        if len(payload) > RECORD_BYTES_MAX:
            return _cut(record if kind is None else kind(*record))
        return payload


def _packed_otherwise(record: Any) -> bytes:
    """Pack what a plain packer did not take."""
    try:
        payload = pack(record)
    except Exception:  # noqa: BLE001 - packing runs methods of the application's objects
        try:
            record = clean_record(record)
        except Exception as error:  # noqa: BLE001 - so does cleaning: a mapping may lie about itself
            raise RecordError(f"{type(error).__name__} of an object in the record") from None
        payload = pack(record)
    return payload if len(payload) <= RECORD_BYTES_MAX else _cut(record)


def _cut(record: Any) -> bytes:
    shorter = cut_record(record, lambda tried: len(pack(tried)), RECORD_BYTES_MAX)
    if shorter is None:
        raise RecordError("too long however it is cut")
    return pack(shorter)
