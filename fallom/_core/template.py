"""Templates: ``{{ name }}`` is replaced once, in one pass.

A name is one word in the sense of Unicode; white space may stand around it. A name that is not given
leaves its placeholder as it stands, spaces included. An inserted value is never looked at again, so a
value cannot smuggle in a placeholder.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["CompiledTemplate", "compile_template"]

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class CompiledTemplate(NamedTuple):
    """A template that was split once.

    Attributes:
        text: The template as it was written.
        pieces: Literal, placeholder, literal, ... ; joined they are ``text``.
        names: The variable of each placeholder, in order.
        form: The same for Python's ``%``, which fills it in one step, where nothing is missing: 0.1 us,
            where a loop over the pieces takes 0.5.
    """

    text: str
    pieces: tuple[str, ...]
    names: tuple[str, ...]
    form: str

    def render_by_pieces(
        self, variables: Mapping[str, Any] | None, instead: str | None = None
    ) -> tuple[str, list[str]]:
        """Give the text with the variables in it, and the names that had no value.

        Values by ``str``, None as "None"; a value whose ``str`` raises counts as not given.

        Args:
            variables: Values by name.
            instead: What stands for a missing value; None leaves the placeholder.
        """
        pieces = list(self.pieces)
        missing = []
        for number, name in enumerate(self.names):
            with contextlib.suppress(Exception):  # of ``__str__`` of the caller's own object
                if variables and name in variables:
                    pieces[2 * number + 1] = str(variables[name])
                    continue
            missing.append(name)
            if instead is not None:
                pieces[2 * number + 1] = instead
        return "".join(pieces), missing


def compile_template(text: str) -> CompiledTemplate:
    """Split a template into literals and placeholders."""
    pieces: list[str] = []
    names: list[str] = []
    form: list[str] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        pieces += [text[end : found.start()], found.group()]
        names.append(found.group(1))
        form += [pieces[-2].replace("%", "%%"), f"%({names[-1]})s"]
        end = found.end()
    pieces.append(text[end:])
    form.append(text[end:].replace("%", "%%"))
    return CompiledTemplate(text, tuple(pieces), tuple(names), "".join(form))
