"""What a person does with the local page, in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from fallom.dev.server import LocalCloud
from tests.support.stored import fill

HOSTILE = (
    "<script>window.owned=1</script><img src=x onerror=window.owned=1>"
    "<svg onload=window.owned=1></svg><a href='javascript:window.owned=1'>x</a>\"' onfocus=window.owned=1 "
    "autofocus \u202egnp.exe \x1b[2J"
)


def said(text: str, role: str = "user") -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


def call(cloud: Any, number: int, text: str, **attributes: str) -> str:
    return str(
        cloud.post_span(
            number=number,
            name=f"chat number {number}",
            attributes={
                "fallom.kind": "llm",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.input.messages": said(text),
                **attributes,
            },
        )
    )


def test_a_trace_arrives_without_a_reload_and_focus_stays(cloud: Any, open_page: Any) -> None:
    page = open_page(cloud.url)
    page.get_by_label("Search content and ids").fill("half typed")
    call(cloud, 1, "the first")
    page.get_by_text("chat number 1").wait_for()
    page.evaluate("window.marked = 1")
    call(cloud, 2, "the second")
    page.get_by_text("chat number 2").wait_for()
    assert page.evaluate("window.marked") == 1  # the very same document
    search = page.get_by_label("Search content and ids")
    assert search.input_value() == "half typed"
    assert search.evaluate("e => e === document.activeElement")
    assert "new traces" in page.locator("#announce").text_content()
    assert page.locator("#announce").get_attribute("role") == "status"


def test_live_can_be_paused(cloud: Any, open_page: Any) -> None:
    page = open_page(cloud.url)
    button = page.get_by_role("button", name="Live")
    button.click()
    page.get_by_role("button", name="Paused").wait_for()
    trace = call(cloud, 1, "unseen")
    cloud.page_with("/", trace)
    assert page.get_by_text("chat number 1").count() == 0
    page.get_by_role("button", name="Paused").click()
    page.get_by_text("chat number 1").wait_for()


def test_filters_and_search_choose_and_are_taken_away(cloud: Any, open_page: Any) -> None:
    call(cloud, 1, "about apples", **{"fallom.metadata.plan": "pro"})
    call(cloud, 2, "about pears", **{"gen_ai.request.model": "mini"})
    cloud.page_with("/", "about pears")
    page = open_page(cloud.url)
    page.get_by_label("Model", exact=True).select_option("mini")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**/?model=mini")  # nothing in the address that was left empty
    assert page.get_by_text("chat number 1").count() == 0
    page.get_by_role("link", name="remove this filter").click()
    page.get_by_text("chat number 1").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("appl")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=appl")
    assert page.locator("#traces tbody tr").count() == 1
    page.locator("summary", has_text="More").click()
    page.get_by_label("Metadata").fill("plan=pro")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**meta=plan%3Dpro**")
    assert page.locator("#traces tbody tr").count() == 1


def test_the_waterfall_shows_first_tokens_attempts_and_errors(
    tmp_path: Path, open_page: Any
) -> None:
    fill(tmp_path / "dev.db", 1500)
    with LocalCloud(db=tmp_path / "dev.db") as cloud:
        page = open_page(cloud.url)
        page.locator(".badge", has_text="retr").first.wait_for()
        page.locator("#traces tbody tr", has=page.locator(".badge.warn")).first.locator(
            "a"
        ).first.click()
        page.locator("#waterfall tbody tr").first.wait_for()
        page.locator("#waterfall .badge", has_text="attempts").first.wait_for()
        assert page.locator("#waterfall line.attempt").count() >= 1
        page.goto(f"{cloud.url}/?sort=slowest")
        page.locator("#traces .row-link").first.click()
        page.wait_for_url("**/ui/trace/**")
        assert page.locator("#waterfall tbody tr").count() >= 1
        bars = page.locator("#waterfall rect.bar")
        lane = page.locator("#waterfall svg.lane").first.bounding_box()
        for number in range(bars.count()):
            box = bars.nth(number).bounding_box()
            assert lane["x"] - 1 <= box["x"]
            assert box["x"] + box["width"] <= lane["x"] + lane["width"] + 1
        page.goto(f"{cloud.url}/?errors=1")
        page.locator("#traces .row-link").first.click()
        page.locator(".detail .note.bad").wait_for()


def test_hostile_content_stays_text(cloud: Any, open_page: Any) -> None:
    names = "session_id config_key customer_id prompt_key metadata.x".split()
    names = [f"fallom.{name}" for name in names]
    names += ["gen_ai.output.messages", "gen_ai.system_instructions", "error.type", HOSTILE]
    attributes = dict.fromkeys(names, HOSTILE)
    trace = call(cloud, 1, HOSTILE, **attributes)
    cloud.post_json(
        "/spans", {"config_key": "c", "session_id": HOSTILE, "data": {HOSTILE: HOSTILE}}
    )
    cloud.page_with("/", trace)
    page = open_page(cloud.url)
    for view in ("/", f"/ui/trace/{trace}", "/ui/sessions", "/ui/experiments", "/ui/host"):
        page.goto(cloud.url + view)
        for fold in page.locator("summary").all():
            if fold.is_visible():
                fold.click()
        assert page.evaluate("window.owned") is None, view
        assert page.locator("img, a[href^='javascript'], #live script").count() == 0
    page.goto(f"{cloud.url}/ui/sessions")
    page.locator("#sessions .row-link").first.click()
    page.get_by_role("heading", level=1).wait_for()
    assert page.evaluate("window.owned") is None


def test_the_policy_stops_what_escaping_might_miss(cloud: Any, chromium: Any) -> None:
    context = chromium.new_context()
    page = context.new_page()
    violated: list[str] = []
    page.on("console", lambda m: violated.append(m.text) if "Content Security" in m.text else None)
    page.goto(cloud.url)
    for markup in (
        "<img src=x onerror='window.owned=1'>",
        "<div style='color:red'>x</div>",
        "<iframe src='data:text/html,<script>parent.owned=1</script>'></iframe>",
    ):
        page.evaluate(
            "m => document.getElementById('live').insertAdjacentHTML('beforeend', m)", markup
        )
    page.evaluate(
        """() => { const s = document.createElement('script'); s.textContent = 'window.owned = 1';
        document.body.append(s); }"""
    )
    page.wait_for_function("true")
    assert page.evaluate("window.owned") is None
    assert len(violated) >= 3
    context.close()


WORKER = """
import sys, time
import fallom
fallom.init(api_key="k", service_name="shop", sync_interval=0.2, linger=0.5, auto_instrument=False)
fallom.wait_until_ready()
from fallom._core.span import Span, SpanKind, new_span_id, new_trace_id
from fallom._runtime import current
from fallom._tracing import known_assignment
number = 0
while True:
    number += 1
    fallom.models.get("greeter", f"s{number}", fallback="none")
    now = time.time_ns()
    attributes = {"fallom.config_key": "greeter", "fallom.session_id": f"s{number}",
                  **known_assignment("greeter", f"s{number}")}
    current().record_span(Span(new_trace_id(), new_span_id(), b"", "work", SpanKind.INTERNAL,
                               now, now, 0, "", attributes))
    time.sleep(0.1)
"""


def test_a_changed_weight_is_seen_to_reach_a_real_worker(
    tmp_path: Path, state_dir: Path, open_page: Any
) -> None:
    folder = tmp_path / "folder"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "greeter.yaml").write_text(
        "variants:\n  - {model: a, weight: 60}\n  - {model: b, weight: 40}\n"
    )
    with LocalCloud(folder) as cloud:
        worker = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER)],
            env={**os.environ, **cloud.environment(), "FALLOM_STATE_DIR": str(state_dir)},
        )
        try:
            page = open_page(f"{cloud.url}/ui/served")
            page.get_by_text("1 of 1 workers").wait_for()
            page.get_by_label("a", exact=True).fill("0")
            page.get_by_label("b", exact=True).fill("100")
            page.get_by_role("button", name="Serve these weights for greeter").click()
            page.get_by_text("changed here").wait_for()
            page.get_by_text("v2 since").wait_for()  # without a reload
            page.get_by_role("button", name="Back to the file").click()
            page.get_by_text("v1 since").wait_for()
            page.goto(f"{cloud.url}/ui/experiment/config/greeter?version=2")
            row = page.locator("table.plain tbody tr", has=page.get_by_text("b", exact=True)).first
            assert "100%" in row.inner_text()
        finally:
            worker.kill()
            worker.wait()
