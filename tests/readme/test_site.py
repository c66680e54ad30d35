"""The documentation as a site: it builds strictly, and a browser asks no other host for anything."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scripts import ROOT

WITH_ADDRESS = r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?(https?:[^\" >]+)"


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("material", "mkdocstrings")),
    reason="no MkDocs: the dependency group `docs` is not installed",
)
def test_the_site_builds_strictly_and_its_pages_load_nothing_from_another_host(
    tmp_path: Path,
) -> None:
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 50
    found = {
        address
        for page in pages
        for address in re.findall(WITH_ADDRESS, page.read_text(encoding="utf-8"))
    }
    assert found == set()
