from __future__ import annotations

import json
import os
import re
from pathlib import Path
from random import Random
from typing import Any

import psutil

from fallom.dev.page.host import read_host
from fallom.dev.scenes import customer_of, session_ids, summary_turn, turn_of


def test_sample_traffic_fills_the_page_and_leaves_nothing_behind(
    new_cloud: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with new_cloud(arguments=("--sample-traffic",)) as cloud:
        cloud.wait_for(lambda c: c.stats()["spans"]["distinct"] > 100, 60)
        cloud.wait_for(lambda c: c.stats()["exposures"]["distinct"] > 10, 60)
        workers = psutil.Process(cloud.pid).children()
        assert len(workers) == 3

        def page(path: str) -> str:
            return str(cloud.ask("GET", path).body.decode())

        cloud.wait_for(lambda _: "shop-assistant" in page("/"))
        assert "3 of 3 workers" in cloud.wait_for(
            lambda _: body if "3 of 3 workers" in (body := page("/ui/served")) else ""
        )
        assert "Flusher is running" in page("/ui/host")
        (state,) = tmp_path.glob("fallom-sample-*/state")

        def sent(_: Any) -> Any:  # the flusher tells it with its next beat
            (found,) = read_host([str(state)], cloud.url)
            return found if found.sent.get("spans_accepted", 0) > 100 else None

        namespace = cloud.wait_for(sent)
        assert namespace.flusher["is_alive"]
        flusher = psutil.Process(namespace.flusher["pid"])
        cloud.terminate()
        assert not any(worker.is_running() for worker in workers)
        psutil.wait_procs([flusher], timeout=30)
    assert list(tmp_path.glob("fallom-sample-*")) == []


def test_a_turn_is_one_tree_on_one_clock() -> None:
    for seed in range(200):
        rng = Random(seed)
        for scene in (turn_of, summary_turn):
            turn = scene(rng, "gpt-4o", {"fallom.config_key": "app"}, 10**18)
            ids = {span.span_id for span in turn.spans}
            assert len({span.trace_id for span in turn.spans}) == 1
            assert sum(not span.parent_span_id for span in turn.spans) == 1
            for span in turn.spans:
                assert not span.parent_span_id or span.parent_span_id in ids
                assert 10**18 <= span.start_unix_ns <= span.end_unix_ns
                for event in span.events:
                    assert span.start_unix_ns <= event.unix_ns <= span.end_unix_ns
                for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
                    if name in span.attributes:
                        assert json.loads(str(span.attributes[name]))


def test_a_session_keeps_its_customer_and_sessions_go_on() -> None:
    assert customer_of("chat-1") == customer_of("chat-1")
    ids = session_ids(Random(1))
    some = [next(ids) for _ in range(300)]
    assert 60 < len(set(some)) < 250
    assert all(re.fullmatch("chat-[0-9a-f]{10}", one) for one in some)


def test_a_host_without_any_application_is_shown_as_such(tmp_path: Path) -> None:
    assert read_host([str(tmp_path), str(tmp_path / "nowhere")], "http://127.0.0.1:1") == []
    (tmp_path / "v1" / "0123456789abcdef").mkdir(parents=True)
    assert read_host([str(tmp_path)], "http://127.0.0.1:1") == []
    assert os.listdir(tmp_path / "v1" / "0123456789abcdef") == []
