"""Listings and readers for tests of the snapshot."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from fallom._snapshot.entries import Kind
from fallom._snapshot.publish import Publisher
from fallom._snapshot.reader import SnapshotReader
from fallom._snapshot.schema import Listing, read_listing


def config(key: str, version: int = 1, model: str = "m") -> dict[str, Any]:
    return {"key": key, "version": version, "variants": [{"model": model, "weight": 100}]}


def prompt(key: str, version: int = 1, text: str = "hello {{name}}") -> dict[str, Any]:
    return {"key": key, "version": version, "system_prompt": text, "user_template": text}


def ab_test(key: str, *prompt_keys: str) -> dict[str, Any]:
    variants = [{"prompt_key": k, "prompt_version": None, "weight": 50} for k in prompt_keys]
    return {"key": key, "version": 1, "variants": variants}


def configs(*items: Any) -> Listing:
    return read_listing(Kind.CONFIG, {"configs": list(items)})


def prompts(*items: Any) -> Listing:
    return read_listing(Kind.PROMPT, {"prompts": list(items)})


def ab_tests(*items: Any) -> Listing:
    return read_listing(Kind.AB_TEST, {"prompt_ab_tests": list(items)})


def removed(publisher: Publisher) -> list[str]:
    """Give the keys that the server no longer lists."""
    sections = publisher.manifest().sections.values()
    return [key for section in sections for key, item in section.items() if item.removed_unix_ns]


class Page:
    """The control page's generation, and a monotonic clock that stands still."""

    def __init__(self) -> None:
        self.generation = 0
        self.now_s = 100.0

    def reader(self, directory: Path | None, **options: Any) -> SnapshotReader:
        return SnapshotReader(
            lambda: directory,
            lambda: self.generation,
            contextlib.nullcontext,
            monotonic=lambda: self.now_s,
            **options,
        )

    def publish(self, publisher: Publisher, *listings: Listing) -> int:
        self.generation = publisher.publish(listings)
        return self.generation
