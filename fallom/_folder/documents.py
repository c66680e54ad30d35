"""``load_documents``: the text of a YAML or JSON file to plain data that knows its lines.

YAML is read with the safe constructor only: a tag that would build an object is an error. The tree
of nodes is kept beside the data, so that a mistake found later can be told with line and column. It needs
PyYAML, of the extra ``files``; without it JSON is read all the same, and its mistakes are told without
lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import yaml

__all__ = ["Document", "FileError", "Path", "load_document"]

Path: TypeAlias = "tuple[str | int, ...]"  # keys and list positions from the document's root


class FileError(ValueError):
    """Something in a file that cannot be served.

    Attributes:
        line: Counted from 1; 0 when it is the whole file.
        column: Counted from 1; 0 when it is the whole file.
    """

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Document:
    """The data of a file, and where each part of it stands."""

    data: Any
    root: yaml.Node | None

    def error(self, message: str, path: Path, *, at_key: bool = False) -> FileError:
        """Give the error for the value at ``path``, or for the nearest thing around it.

        Args:
            message: What is wrong.
            path: Where.
            at_key: Whether the key itself is wrong, not its value.
        """
        node = self.root
        mark = node.start_mark if node else None
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            node, key_mark = found
            # a value on lines of its own is better found by its key
            starts_below = node.start_mark.line > key_mark.line
            mark = key_mark if starts_below or (at_key and step == path[-1]) else node.start_mark
        return FileError(message, mark.line + 1, mark.column + 1) if mark else FileError(message)


def load_document(text: str, is_json: bool) -> Document:
    """Parse a file.

    Raises:
        FileError: The text is not YAML or JSON, or a key stands twice in one mapping.
    """
    try:
        return _load_json(text) if is_json else _load_yaml(text)
    except RecursionError:
        raise FileError("the file is nested too deeply; expected a handful of levels") from None


def _load_yaml(text: str) -> Document:
    try:
        import yaml  # an extra: whoever has JSON files only does not need it
    except ModuleNotFoundError:
        raise FileError(
            'is YAML, which needs PyYAML: pip install "fallom[files]", or write it as JSON'
        ) from None
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        for key in _repeated_keys(root):
            raise FileError(
                f"the key {key.value!r} stands twice in the same mapping; remove one of them",
                key.start_mark.line + 1,
                key.start_mark.column + 1,
            )
        data = None if root is None else loader.construct_document(root)
    except FileError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(filter(None, (error.problem, error.context and f"({error.context})")))
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise FileError(f"not YAML: {message}{_hint(message, text, line)}", line, column) from None
    except yaml.YAMLError as error:  # a character that YAML does not allow has no mark
        raise FileError(f"not YAML: {error}") from None
    except ValueError as error:  # the constructor of dates, for example 2024-13-45
        raise FileError(f"not YAML: {error}; quote text that looks like a date") from None
    except (LookupError, AttributeError, OverflowError):  # those of tags: !!bool maybe, !!int ''
        raise FileError("not YAML: a tag (!!) that its text does not fit; remove it") from None
    finally:
        if loader is not None:
            loader.dispose()
    return Document(data, root)


def _load_json(text: str) -> Document:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise FileError(f"not JSON: {error.msg}", error.lineno, error.colno) from None
    except ValueError:  # Python's bound for the digits of a number
        raise FileError("has a number of thousands of digits; expected at most 64 bits") from None
    return Document(data, _nodes(text))


def _nodes(text: str) -> yaml.Node | None:
    """Give the nodes of a JSON text, for the lines only: where they cannot be had, lines are left out."""
    try:
        import yaml  # an extra
    except ModuleNotFoundError:
        return None
    try:  # nearly all JSON is YAML
        root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    return root


def _hint(message: str, text: str, line: int) -> str:
    lines = text.splitlines()
    if "\\t" in message or (0 < line <= len(lines) and lines[line - 1][:1] == "\t"):
        return "; indent by spaces, YAML does not allow tabs"
    if "mapping values are not allowed" in message:
        return "; quote a text that holds ': ', and check the indentation"
    return ""


def _repeated_keys(root: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    import yaml  # loaded: there are nodes

    seen: set[int] = set()  # an alias gives the same node again, even within itself
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if key.value in names:
                        yield key
                    names.add(key.value)
                waiting.append(value)


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, yaml.Mark] | None:
    """Give the node one step below, and where its key stands."""
    if node is None:
        return None
    import yaml  # loaded: there are nodes

    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        child = node.value[step]
        return child, child.start_mark
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return value, key.start_mark
    return None
