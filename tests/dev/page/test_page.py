"""The page over HTTP: what every view says, and what no view does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

VIEWS = ("/", "/ui/sessions", "/ui/experiments", "/ui/served", "/ui/host")
FORM = "application/x-www-form-urlencoded"
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>"
    "{{ 7*7 }} javascript:alert(4) \x1b[31m \u202eevil </textarea></title>"
)


def change(page: Any, weights: list[str], **headers: str) -> Any:
    pairs = [("kind", "config"), ("key", "greeter"), *(("weight", weight) for weight in weights)]
    return page.ask("POST", "/ui/weights", urlencode(pairs).encode(), content_type=FORM, **headers)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_answers_while_nothing_has_come(page: Any, view: str) -> None:
    assert "<main" in page.page(view)


@pytest.mark.parametrize("view", [*VIEWS, "/ui/trace/none", "/ui/session/none"])
def test_every_view_forbids_what_it_does_not_need(page: Any, view: str) -> None:
    first, second = page.ask("GET", view), page.ask("GET", view)
    policy = first.headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["base-uri"] == "'none'"
    assert rules["form-action"] == "'self'"
    assert rules["script-src"].startswith("'nonce-")
    assert rules["style-src"].startswith("'nonce-")
    assert "unsafe" not in policy
    assert policy != second.headers["content-security-policy"]  # a nonce is used once
    assert first.headers["x-content-type-options"] == "nosniff"
    assert first.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_has_a_script_or_style_within_its_markup(page: Any, view: str) -> None:
    body = page.page(view)
    assert body.count("<script") == 1
    assert " style=" not in body
    assert "<style" not in body
    assert " onclick=" not in body
    assert "http://" not in body.replace("http://127.0.0.1", "")
    assert "https://" not in body


def test_what_came_is_escaped_wherever_it_stands(page: Any) -> None:
    said = json.dumps([{"role": HOSTILE, "parts": [{"type": "text", "content": HOSTILE}]}])
    call = json.dumps(
        [{"role": "assistant", "parts": [{"type": "tool_call", "name": HOSTILE, "id": HOSTILE}]}]
    )
    trace = page.post_span(
        name=HOSTILE,
        message=HOSTILE,
        attributes={
            "fallom.session_id": HOSTILE,
            "fallom.config_key": HOSTILE,
            "fallom.customer_id": HOSTILE,
            "fallom.kind": "llm",
            "gen_ai.request.model": HOSTILE,
            "gen_ai.input.messages": said,
            "gen_ai.output.messages": call,
            "gen_ai.system_instructions": HOSTILE,
            "gen_ai.tool.definitions": json.dumps([{"name": HOSTILE}]),
            "fallom.metadata." + HOSTILE: HOSTILE,
            "error.type": HOSTILE,
            "fallom.prompt_key": HOSTILE,
            HOSTILE: HOSTILE,
        },
    )
    page.post_json(
        "/spans", {"config_key": HOSTILE, "session_id": HOSTILE, "data": {HOSTILE: HOSTILE}}
    )
    page.post_json(
        "/sessions",
        {
            "config_key": HOSTILE,
            "config_version": 1,
            "session_id": HOSTILE,
            "assigned_model": HOSTILE,
        },
    )
    page.page_with("/", trace)
    views = (
        *VIEWS,
        f"/ui/trace/{trace}",
        f"/ui/session/{quote(HOSTILE, safe='')}",
        f"/?q={quote(HOSTILE, safe='')}&tag={quote(HOSTILE, safe='')}",
        f"/ui/experiment/config/{quote(HOSTILE, safe='')}",
    )
    for view in views:
        body = page.page(view)
        assert body.count("<script") == 1, view
        assert "<img" not in body, view
        assert "<svg onload" not in body, view
        assert "</textarea>" not in body, view
        assert 'href="javascript' not in body.lower(), view
        assert "\u202e" not in body, view
        assert "\x1b" not in body, view
    assert "&lt;script&gt;" in page.page(f"/ui/trace/{trace}")
    assert "{{ 7*7 }}" in page.page(f"/ui/trace/{trace}")


def test_files_with_hostile_names_are_told_inertly(new_page: Any, folder: Path) -> None:
    (folder / "configs/<img src=x onerror=alert(1)>.yaml").write_text(
        "<script>alert(2)</script>: 1"
    )
    with new_page(folder) as page:
        body = page.page("/")
    assert "&lt;img src=x" in body
    assert "<img" not in body
    assert body.count("<script") == 1


def test_a_trace_is_told_with_its_figures_and_messages(page: Any) -> None:
    said = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Where is it?"}]}])
    trace = page.post_span(
        name="chat gpt-4o",
        attributes={
            "fallom.kind": "llm",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.input.messages": said,
            "fallom.session_id": "talk 5/6",
        },
    )
    page.page_with("/", "Where is it?")
    body = page.page(f"/ui/trace/{trace}")
    assert "Where is it?" in body
    assert "gpt-4o" in body
    assert "/ui/session/talk%205%2F6" in body
    assert "Where is it?" in page.page("/ui/session/talk%205%2F6")


def test_looking_for_words_and_labels_over_http(page: Any) -> None:
    for number, word in enumerate(("apple", "banana"), 1):
        said = json.dumps([{"role": "user", "parts": [{"type": "text", "content": word}]}])
        page.post_span(
            number=number, name=f"call {word}", attributes={"gen_ai.input.messages": said}
        )
    page.page_with("/", "call banana")
    body = page.page("/?q=appl")
    assert "call apple" in body
    assert "call banana" not in body
    assert "Nothing matches" in page.page("/?q=cherry")


def test_nothing_is_changed_by_looking(page: Any, folder: Path) -> None:
    for view in ("/ui/weights", "/ui/weights?key=my-app&weight=1"):
        assert page.ask("GET", view).status == 405


def test_weights_are_changed_by_a_form_of_this_page_and_served(new_page: Any, folder: Path) -> None:
    with new_page(folder) as page:
        origin = f"http://127.0.0.1:{page.port}"
        assert change(page, ["10", "90"], origin=origin).status == 303
        (config,) = page.ask("GET", "/configs").json()["configs"]
        assert [variant["weight"] for variant in config["variants"]] == [10, 90]
        assert config["version"] == 2
        assert page.ask("GET", "/configs/greeter/version/1").status == 200
        assert "changed here" in page.page("/ui/served")
        answer = change(page, ["10", "95"])
        assert answer.status == 422
        assert "add up to 105" in answer.body.decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:1"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"host": "evil.example"},
    ],
)
def test_weights_are_not_changed_from_elsewhere(
    new_page: Any, folder: Path, headers: dict[str, str]
) -> None:
    with new_page(folder) as page:
        assert change(page, ["10", "90"], **headers).status == 403
        (config,) = page.ask("GET", "/configs").json()["configs"]
        assert config["version"] == 1


@pytest.mark.parametrize("view", [*VIEWS, "/ui/events", "/ui/static/page.js"])
def test_no_view_answers_to_another_host(page: Any, view: str) -> None:
    assert page.ask("GET", view, host="evil.example").status == 403
    assert page.ask("GET", view, origin="http://evil.example").status == 403


def test_odd_addresses_are_answered_not_stumbled_over(page: Any) -> None:
    for view in (
        "/?after=x&after=-1",
        "/?after=99999999999999999999999",
        "/?sort=slowest&after=10000",
        "/?meta=nothing&slower=1e9&tokens=x",
        "/?" + "&".join(f"tag=t{n}" for n in range(50)),
        "/?q=" + "a+" * 400,
        "/?q=%00%22%27",
        "/ui/experiment/config/my-app?version=77",
        "/ui/session/s?after=5",
    ):
        assert page.ask("GET", view).status in (200, 404), view
    assert page.ask("GET", "/ui/experiment/nonsense/x").status == 404
    assert page.ask("GET", "/ui/static/../page.js").status == 404


def test_a_page_hears_of_a_span_without_asking(page: Any) -> None:
    import http.client

    page.page("/")
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.request("GET", "/ui/events")
    response = connection.getresponse()
    assert response.headers["content-type"].startswith("text/event-stream")

    def next_event() -> str:
        while True:
            line = response.readline().decode()
            if line.startswith("event:"):
                return line.split()[1]

    assert next_event() == "data"  # whoever joins looks once
    page.post_span()
    while next_event() != "data":
        pass
    connection.close()


def test_a_cloud_with_open_pages_ends_in_order(new_page: Any) -> None:
    import http.client

    with new_page() as page:
        connections = []
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
            connection.request("GET", "/ui/events")
            connection.getresponse().readline()
            connections.append(connection)
        assert page.terminate() == 0
        assert page.log() == ""  # nothing had to be cut off
        for connection in connections:
            connection.close()


def test_a_restarted_cloud_goes_on_with_what_it_had(new_page: Any, tmp_path: Path) -> None:
    with new_page(db=tmp_path / "dev.db") as page:
        trace = page.post_span(name="before the restart")
        page.page_with("/", trace)
        page.restart()
        assert page.page_with("/", trace)
        other = page.post_span(number=2)
        page.page_with("/", other)
        (tmp_path / "dev.db.page").unlink()
        page.restart()
        page.page_with("/", trace)


def test_only_the_newest_spans_are_kept_where_that_is_asked_for(new_page: Any) -> None:
    # of two, the later option wins
    with new_page(arguments=("--keep", "3")) as page:
        for number in range(1, 9):
            page.post_span(number=number)  # and nobody looks at the page
        page.wait_for(lambda cloud: cloud.stats()["spans"]["received"] <= 3)
        assert page.spans()[-1]["name"] == "span 8"


def test_tests_that_share_sessions_and_buckets_are_told_with_the_way_out(
    new_page: Any, folder: Path
) -> None:
    variants = "variants:\n  - {model: a, weight: 50}\n  - {model: b, weight: 50}\n"
    (folder / "configs" / "other.yaml").write_text(variants)
    (folder / "configs" / "apart.yaml").write_text(f"salt: <b>spring\n{variants}")
    with new_page(folder) as page:
        for key, model in (("greeter", "gpt-4o"), ("other", "a"), ("apart", "b")):
            body = {
                "config_key": key,
                "config_version": 1,
                "session_id": "s",
                "assigned_model": model,
            }
            page.post_json("/sessions", body)
        told = page.page_with("/ui/experiment/config/greeter", "Independent, by another salt")
        assert "Neither has a salt" in told
        assert "salt: other-2" in told
        assert (
            "greeter" not in page.page("/ui/experiment/config/apart").split("Not independent")[1:]
        )
        assert "salt &lt;b&gt;spring" in page.page("/ui/served")
        assert "no longer kept" not in told  # nothing is given up here
