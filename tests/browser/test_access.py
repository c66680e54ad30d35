"""The local page by keyboard, by assistive technology, on small screens, in the dark, in any script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fallom.dev.server import LocalCloud
from tests.support.stored import fill

LONG = "Donaudampfschifffahrtsgesellschaftskapitaenswitwenrente" * 12


@pytest.fixture(scope="module")
def busy(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A cloud with everything: many sessions, long words, text from right to left."""
    database = tmp_path_factory.mktemp("busy") / "dev.db"
    fill(database, 1200)
    with LocalCloud(db=database) as cloud:
        views(cloud)  # waits until there is something to look at
        yield cloud


def views(cloud: Any) -> dict[str, str]:
    import urllib.request

    def first(path: str, prefix: str) -> str:
        def look(_: Any) -> str:
            with urllib.request.urlopen(cloud.url + path) as answer:
                found = answer.read().decode().split(f'href="{prefix}', 1)
            return prefix + found[1].split('"', 1)[0] if len(found) > 1 else ""

        return str(cloud.wait_for(look))

    return {
        "traces": "/",
        "nothing found": "/?q=zzzz",
        "all filters": "/?q=order&tag=beta&meta=plan%3Dpro&errors=1&slower=10",
        "trace": first("/?errors=1", "/ui/trace/"),
        "sessions": "/ui/sessions",
        "session": first("/ui/sessions", "/ui/session/"),
        "experiments": "/ui/experiments",
        "experiment": "/ui/experiment/config/my-app",
        "a moment": "/?from=2026-01-01T00%3A00%3A00&to=2026-01-01T01%3A00%3A00",
        "served": "/ui/served",
        "host": "/ui/host",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(busy: Any, chromium: Any, axe: str, scheme: str) -> None:
    # The policy forbids any script but ours; axe is put in from outside the page.
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    found = []
    for name, path in views(busy).items():
        page.goto(busy.url + path)
        page.wait_for_load_state("load")
        page.evaluate(axe)
        page.evaluate(
            "() => { for (const d of document.querySelectorAll('details')) d.open = true; }"
        )
        answer = page.evaluate("async () => (await axe.run()).violations")
        found += [
            f"{name}: {v['id']}: {v['nodes'][0]['html'][:160]} {v['nodes'][0]['failureSummary']}"
            for v in answer
        ]
    context.close()
    assert found == []


@pytest.mark.parametrize("width", [320, 390, 800, 1440])
def test_no_view_is_wider_than_the_screen(busy: Any, open_page: Any, width: int) -> None:
    page = open_page(busy.url, viewport={"width": width, "height": 800})
    for name, path in views(busy).items():
        page.goto(busy.url + path)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, (name, wide)


def test_a_time_beside_a_long_word_is_not_broken(cloud: Any, open_page: Any) -> None:
    trace = cloud.post_span(attributes={"fallom.session_id": "s"})
    cloud.post_json("/spans", {"config_key": "c", "session_id": "s", "data": {"x": "W" * 300}})
    cloud.page_with("/", trace)
    cloud.page_with("/ui/session/s", "W" * 300)
    page = open_page(f"{cloud.url}/ui/session/s", viewport={"width": 320, "height": 800})
    lines = """cell => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return range.getClientRects().length;
    }"""
    assert page.locator("#live td", has_text=":").evaluate(lines) == 1
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_long_words_break_and_text_from_the_right_stays_so(cloud: Any, open_page: Any) -> None:
    arabic = "هل يمكنني تغيير عنوان التسليم؟"
    messages = [
        {"role": "user", "parts": [{"type": "text", "content": arabic}]},
        {"role": "assistant", "parts": [{"type": "text", "content": LONG}]},
    ]
    trace = cloud.post_span(
        name=LONG,
        attributes={
            "fallom.kind": "llm",
            "fallom.session_id": LONG[:300],
            "fallom.config_key": LONG,
            "gen_ai.input.messages": json.dumps(messages),
            "fallom.tags": LONG,
        },
    )
    cloud.page_with("/", trace)
    page = open_page(cloud.url, viewport={"width": 390, "height": 800})
    for path in ("/", f"/ui/trace/{trace}", "/ui/sessions", f"/ui/session/{LONG[:300]}"):
        page.goto(cloud.url + path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    page.goto(f"{cloud.url}/ui/trace/{trace}")
    prose = page.locator(".prose", has_text=arabic)
    assert prose.evaluate("e => getComputedStyle(e).direction") == "rtl"


def test_everything_can_be_reached_and_done_by_keyboard(busy: Any, open_page: Any) -> None:
    page = open_page(busy.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'main'")
    page.locator("#q").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('row-link')"):
            break
    assert page.evaluate("document.activeElement.classList.contains('row-link')")
    outline = "getComputedStyle(document.activeElement.closest('tr')).outlineStyle"
    assert page.evaluate(outline) == "solid"  # seen where one is
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/trace/**")
    page.locator("#attributes summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#attributes").evaluate("e => e.open")


def test_landmarks_headings_and_names_tell_where_one_is(busy: Any, open_page: Any) -> None:
    page = open_page(busy.url)
    titles = set()
    for name, path in views(busy).items():
        page.goto(busy.url + path)
        for role in ("banner", "main"):
            assert page.get_by_role(role).count() == 1, (name, role)
        assert page.get_by_role("heading", level=1).count() == 1, name
        assert page.get_by_role("navigation", name="Views").count() == 1, name
        titles.add(page.title())
    assert len(titles) >= 8


def test_nothing_moves_for_whoever_asked_for_that(busy: Any, open_page: Any) -> None:
    page = open_page(busy.url, reduced_motion="reduce")
    page.locator("#traces tbody tr").first.evaluate("e => e.classList.add('fresh')")
    moving = page.locator("#traces tbody tr").first.evaluate("e => e.getAnimations().length")
    assert moving == 0


def test_the_page_is_readable_without_its_script(busy: Any, open_page: Any) -> None:
    page = open_page(busy.url, java_script_enabled=False)
    page.locator("#traces .row-link").first.click()
    page.wait_for_url("**/ui/trace/**")
    assert page.locator("#waterfall tbody tr").count() >= 1


def test_dark_is_dark_and_light_is_light(busy: Any, open_page: Any, tmp_path: Path) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page = open_page(busy.url, color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades[scheme] = sum(map(int, colour[4:-1].split(",")))
    assert shades["light"] > 600
    assert shades["dark"] < 120
