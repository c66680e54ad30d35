"""Masks at shipping: what is spooled goes out masked, whenever it was recorded and by whom.

In force is what the settings of this flusher and those of the namespace's processes say, together. A name
that is not known here, of a later version or damaged, lets no content pass.
"""

from __future__ import annotations

from collections.abc import Callable

from fallom._core.content import mask_span
from fallom._core.known_masks import BY_NAME, compose
from fallom._core.masking import guarded_mask
from fallom._core.span import Span
from fallom._host.files import File
from fallom._host.masks_in_force import read_masks

__all__ = ["ShipMasks"]

NONE = "none"


class ShipMasks:
    """The masks of one flusher; its lanes share it."""

    def __init__(self, root: File, own: str, failed: Callable[[str], None]) -> None:
        """Read nothing yet.

        Args:
            root: The namespace's directory.
            own: ``Settings.ship_masks``.
            failed: Told, in a sentence without the text, of each text that a mask could not do.
        """
        self._root = root
        self._own = own
        self._failed = failed

    def current(self) -> Callable[[Span], Span] | None:
        """Give what a span goes through now; None if nothing is in force.

        Raises:
            OSError: What is in force cannot be read: nothing must be sent.
        """
        said = f"{read_masks(self._root)},{self._own}".split(",")
        names = {name.strip() for name in said} - {"", NONE}
        if not names:
            return None
        mask = guarded_mask(_mask_of(names), self._tell)
        return lambda span: mask_span(mask, span)

    def _tell(self, error: BaseException) -> None:
        why = str(error) if isinstance(error, _UnknownMaskError) else type(error).__name__
        self._failed(f"ship_masks: {why}; the text was sent as [mask failed]")


class _UnknownMaskError(Exception):
    """A name that is not known here."""


def _mask_of(names: set[str]) -> Callable[[str], str]:
    unknown = sorted(names - set(BY_NAME))
    if unknown:

        def refuse(_: str) -> str:
            raise _UnknownMaskError(f"{unknown[0][:50]!r} is no mask that this version knows")

        return refuse
    return compose(*(mask for name, mask in BY_NAME.items() if name in names))
