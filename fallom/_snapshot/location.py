"""Where in a payload something stands, and the error that says so."""

from __future__ import annotations

from typing import Any, NamedTuple

from fallom._core.errors import PayloadError

__all__ = ["Location", "shown"]


class Location(NamedTuple):
    """A field of an item: ``Location("configs[3] 'summarizer'").field("variants").number(1)``."""

    item: str
    path: str = ""

    def field(self, name: str) -> Location:
        """Locate a field of the object that stands here."""
        return Location(self.item, f"{self.path}.{name}" if self.path else name)

    def number(self, position: int) -> Location:
        """Locate an element of the list that stands here."""
        return Location(self.item, f"{self.path}[{position}]")

    def note(self, finding: str) -> str:
        """Give a sentence about what stands here."""
        return f"{self.item}: {self.path} {finding}" if self.path else f"{self.item}: {finding}"

    def refusal(self, found: str, expected: str) -> PayloadError:
        """Give the error that refuses the item: what was found, what was expected, how to mend it."""
        return PayloadError(
            f"{self.note(f'is {found}; expected {expected}')}. Correct it where it is edited; until "
            "then what was known of it before is served.",
            self.item,
        )


def shown(value: Any) -> str:
    """Describe a value for a message: numbers as they are, text cut short, the rest by its kind."""
    if value is None:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is str:
        return repr(value if len(value) <= 60 else f"{value[:57]}...") if value else "an empty text"
    if type(value) is float:
        return repr(value)
    if type(value) is int:  # a payload may spell a number of thousands of digits
        return str(value) if abs(value) < 1 << 64 else "a number beyond 64 bits"
    return "a list" if type(value) is list else "an object"
