"""The bar of a delivery: how much of what was unsent at its start is with the server by now."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from fallom._host.files import File
from fallom._spool.segment import Destination
from fallom._spool.survey import Mark, left_of, marks_of
from fallom.cli.screen import terminal_width

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

__all__ = ["Progress"]


class Progress:
    """A bar on standard error; nothing at all where that is no terminal."""

    def __init__(
        self, spool: File, target_of: Mapping[Destination, bytes] | None, label: str
    ) -> None:
        """Show nothing yet."""
        self._spool = spool
        self._target_of = target_of
        self._label = label
        self._marks: list[Mark] = []
        self._bar: ProgressBar[Any] | None = None
        self._shown = 0

    def __enter__(self) -> Progress:
        """Begin with what is unsent now."""
        self._marks = marks_of(self._spool, self._target_of)
        self._total = sum(mark.end - mark.start for mark in self._marks)
        if terminal_width(err=True) is not None and self._total:
            self._bar = click.progressbar(length=self._total, label=self._label, file=sys.stderr)
            self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """End the line."""
        if self._bar is not None:
            self._bar.__exit__(*error)

    def look(self) -> None:
        """Look how much is left, and move on."""
        if self._bar is None:
            return
        try:
            left = left_of(self._spool, self._marks, self._target_of)
        except OSError:
            return
        done = self._total - sum(mark.end - mark.start for mark in left)
        if done > self._shown:
            self._bar.update(done - self._shown)
            self._shown = done
