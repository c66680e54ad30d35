"""The place of a process: its state directory and the control page in it, opened together.

A place is good as long as its names still lead to what is open: after ``rm -rf`` of the directory,
writes would go into nowhere for ever.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from fallom._host.control import ControlPage
from fallom._host.directory import StateDirectory, find_state_directory

__all__ = ["Place"]


class Place:
    """A state directory with its control page."""

    __slots__ = ("directory", "page")

    def __init__(self, directory: StateDirectory, page: ControlPage) -> None:
        """Take both over; use ``Place.find``."""
        self.directory = directory
        self.page = page

    @classmethod
    def find(cls, explicit: str | None, namespace: str, environ: Mapping[str, str]) -> Place:
        """Open the first state directory that can be made safe, and its page.

        Raises:
            StateDirectoryError: None can be.
            OSError: The page cannot be made: the disk is full, say.
        """
        directory = find_state_directory(explicit, namespace, environ)
        try:
            return cls(directory, ControlPage.open(directory.root))
        except BaseException:
            directory.close()
            raise

    def is_good(self) -> bool:
        """Tell whether this is still the place of this user, on disk as it was opened."""
        return (
            self.directory.euid == os.geteuid()
            and self.directory.is_intact()
            and self.page.is_current(self.directory.root)
        )
