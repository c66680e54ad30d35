"""Libraries of extras that are not installed: the error says which extra brings them."""

from __future__ import annotations

import sys

import pytest

import fallom


class Missing:
    """Finds nothing of one library, as if it were not installed."""

    def __init__(self, library: str) -> None:
        self.library = library

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == self.library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("fallom.opentelemetry", "fallom.integrations.opentelemetry")
    for name in list(sys.modules):
        if name.partition(".")[0] == library or name in (*ours, "fallom.integrations.langchain"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(library), *sys.meta_path])


def test_a_handler_without_langchain_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("langchain_core", monkeypatch)
    with pytest.raises(ImportError, match=r'pip install "fallom\[langchain\]"') as caught:
        fallom.session("agent", "s").langchain_callback()
    assert caught.value.name == "langchain_core"


def test_opentelemetry_without_its_sdk_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide("opentelemetry", monkeypatch)
    with pytest.raises(ImportError, match=r'pip install "fallom\[opentelemetry\]"') as caught:
        import fallom.opentelemetry  # noqa: F401
    assert caught.value.name == "opentelemetry"
