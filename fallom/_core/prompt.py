"""The prompt: a system text and a user text, or the messages of a chat; rendered, with a report.

``render`` tells which names had no value (or one whose ``str`` raises), and which variables no
placeholder took. Where both are none, which is known without a look at each name, it costs nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from fallom._core.template import CompiledTemplate, compile_template

__all__ = ["ROLES", "Chat", "CompiledPrompt", "Rendered", "compile_prompt"]

ROLES = ("system", "developer", "user", "assistant", "tool")

Chat: TypeAlias = "tuple[tuple[str, str], ...]"  # (role, text) of each message
# system, user, the messages of a chat prompt or None, missing names, unused names; a plain tuple,
# because a named one costs as much as the rendering
Rendered: TypeAlias = "tuple[str, str, Chat | None, tuple[str, ...], tuple[str, ...]]"


class CompiledPrompt(NamedTuple):
    """One version of a prompt, ready to be rendered."""

    key: str
    version: int
    system: CompiledTemplate
    user: CompiledTemplate
    chat: tuple[tuple[str, CompiledTemplate], ...]  # empty for a prompt of two texts
    names: tuple[str, ...]  # of all placeholders, each once

    def render(self, variables: Mapping[str, Any] | None, instead: str | None = None) -> Rendered:
        """Give the texts with the variables in them, and what was missing and unused.

        Args:
            variables: Values by name.
            instead: What stands for a missing value; None leaves the placeholder.
        """
        if variables is None:
            variables = {}
        if type(variables) is dict and not self.chat:
            try:
                system, user = self.system.form % variables, self.user.form % variables
                # Every name was there, so that as many variables as names leave none over.
                unused = () if len(variables) == len(self.names) else self._unused(variables)
                return system, user, None, (), unused
            except Exception:  # noqa: BLE001 - a name is missing, or ``__str__`` of the caller's failed
                return self._render_by_pieces(variables, instead)
        return self._render_by_pieces(variables, instead)

    def _render_by_pieces(self, variables: Mapping[str, Any], instead: str | None) -> Rendered:
        texts: list[str] = []
        missing: dict[str, None] = {}  # in the order of the text
        templates = (self.system, self.user, *(template for _, template in self.chat))
        for template in templates:
            text, names = template.render_by_pieces(variables, instead)
            texts.append(text)
            missing.update(dict.fromkeys(names))
        system, user, *contents = texts
        roles = (role for role, _ in self.chat)
        chat = tuple(zip(roles, contents, strict=True)) if self.chat else None
        return system, user, chat, tuple(missing), self._unused(variables)

    def _unused(self, variables: Mapping[str, Any]) -> tuple[str, ...]:
        names = set(self.names)
        with contextlib.suppress(Exception):  # of a mapping of the caller's own
            return tuple(name for name in variables if name not in names)
        return ()


def compile_prompt(
    key: str, version: int, system: str, user: str, messages: Sequence[tuple[str, str]] = ()
) -> CompiledPrompt:
    """Compile a prompt.

    Args:
        key: Its key.
        version: Its version.
        system: The system text. Of a chat prompt it may be empty, and is then that of the messages of
            the system and the developer, with empty lines between them.
        user: The user text; of a chat prompt, where it is empty, that of the user's last message.
        messages: (role, text) of each message of a chat prompt.
    """
    given = [text for role, text in messages if role in ("system", "developer")]
    asked = [text for role, text in messages if role == "user"]
    chat = tuple((role, compile_template(text)) for role, text in messages)
    texts = (
        compile_template(system or "\n\n".join(given)),
        compile_template(user or (asked[-1] if asked else "")),
    )
    return CompiledPrompt(key, version, *texts, chat, _names(*texts, *(each for _, each in chat)))


def _names(*templates: CompiledTemplate) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for template in templates for name in template.names))
