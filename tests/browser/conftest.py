"""A real browser, where there is one: Chromium, driven by playwright.

FALLOM_CHROMIUM names the program where it is not on the PATH; the Python packages are the group `browser`.
What is missing is a reason to skip. `scripts/browser` installs the group and runs these tests.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dev.page.conftest import LookedAtCloud

CHROMIUM = os.environ.get("FALLOM_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH, and FALLOM_CHROMIUM names none")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-dev-shm-usage"],  # in a container, as root
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    package = pytest.importorskip(
        "axe_playwright_python", reason="axe-playwright-python, which carries axe, is not installed"
    )
    return (Path(package.__path__[0]) / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def shared_cloud(
    chromium: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LookedAtCloud]:
    with pytest.MonkeyPatch.context() as patch:
        # It starts before a test's own settings, and shows the host: the developer's is not looked at.
        patch.setenv("FALLOM_STATE_DIR", str(tmp_path_factory.mktemp("host")))
        with LookedAtCloud() as cloud:
            yield cloud


@pytest.fixture
def cloud(shared_cloud: LookedAtCloud) -> LookedAtCloud:
    shared_cloud.clear()
    shared_cloud.page_with("/", "No traces yet")
    return shared_cloud


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Give a function that opens a page; what the browser complains of meanwhile fails the test."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_(url: str, **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                # a cloud that a test has ended can no longer be reached
                if message.type in ("error", "warning") and "net::ERR_" not in message.text
                else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append("a dialog"), dialog.dismiss()))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
