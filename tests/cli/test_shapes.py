"""What scripts read: the fields of each ``--json``, which may be added to and keep name and type."""

from __future__ import annotations

import json
from typing import Any

import pytest

import fallom
from fallom import trace
from fallom.dev.server import LocalCloud
from tests.support.commands import fallom_here
from tests.support.flushers import wait_for

NUMBER = (int, float)
STATUS = {
    "version": str,
    "pid": int,
    "namespace": str,
    "state_dir": str,
    "flusher.mode": str,
    "flusher.is_alive": bool,
    "flusher.pid": int,
    "flusher.version": str,
    "flusher.beat_age_s": NUMBER,
    "flusher.paused_s": type(None),
    "flusher.batch_mean_s": NUMBER,
    "snapshot.generation": int,
    "snapshot.age_s": NUMBER,
    "snapshot.checked_age_s": NUMBER,
    "spool.segments": int,
    "spool.allocated_bytes": int,
    "spool.unaccepted_bytes": int,
    "spool.waiting_records": int,
    "spool.oldest_age_s": type(None),
    "spool.limit_bytes": int,
    "dead.files": int,
    "dead.bytes": int,
    "recorded": int,
    "sent.spans_accepted": int,
    "sent.metrics_accepted": int,
    "sent.exposures_accepted": int,
    "sent.batches_sent": int,
    "sent.batches_retried": int,
    "sent.delivery_ms": int,
    "sent.flusher_starts": int,
    "dropped": dict,
    "sampled_out": int,
    "last_error": str,
    "others": list,
    "troubles": list,
}
CONFIG = {
    "key": str,
    "version": int,
    "variants": list,
    "targeting": (dict, type(None)),
    "versions": list,
}
PROMPT = {"key": str, "version": int, "system_prompt": str, "user_template": str, "versions": list}
SEGMENT = {"segment": str, "state": str, "bytes": int, "error": type(None)}
NONE = type(None)
SHAPES: dict[tuple[str, ...], dict[str, Any]] = {
    ("status",): STATUS,
    ("doctor", "--offline"): {"0.subject": str, "0.level": str, "0.what": str, "0.mend": NONE},
    ("configs", "ls"): {
        **{f"0.{name}": kind for name, kind in CONFIG.items()},
        "0.removed_at": NONE,
        "0.variants.0.model": str,
        "0.variants.0.weight": NUMBER,
    },
    ("configs", "show", "my-app"): {**CONFIG, "published_at": str},
    ("configs", "explain", "my-app", "s"): {
        "config_key": str,
        "session_id": str,
        "model": str,
        "index": int,
        "bucket": int,
        "reason": str,
        "config_version": int,
        "generation": int,
        "published_at": str,
        "kept_since": str,
    },
    ("prompts", "ls"): {
        **{f"prompts.0.{name}": kind for name, kind in PROMPT.items()},
        "prompt_ab_tests.0.variants.0.prompt_key": str,
        "prompt_ab_tests.0.variants.0.weight": NUMBER,
    },
    ("prompts", "show", "onboarding"): {**PROMPT, "published_at": str},
    ("prompts", "render", "onboarding"): {
        "key": str,
        "version": int,
        "variant_index": NONE,
        "system": str,
        "user": str,
    },
    ("spool", "ls"): {
        **{f"0.{name}": kind for name, kind in SEGMENT.items()},
        "0.destination": str,
        "0.unaccepted_bytes": int,
        "0.unaccepted_records": int,
        "0.oldest_at": (str, NONE),
    },
    ("spool", "verify"): {
        **{f"0.{name}": kind for name, kind in SEGMENT.items()},
        "0.records": int,
        "0.damages": list,
    },
    ("dead", "ls"): {
        "0.id": str,
        "0.refused_at": str,
        "0.destination": str,
        "0.what": str,
        "0.reason": str,
        "0.status": int,
        "0.bytes": int,
    },
    ("tail", "--no-follow", "-n", "1"): {"type": str, "resource": dict},
    ("flush",): {"left": int, "error": NONE},
}


@pytest.fixture
def busy(cloud: LocalCloud) -> None:
    """A host on which something was delivered, and something refused."""
    cloud.fault("400,attribute=fallom.metric.poison,path=/v1/traces")
    fallom.init()
    assert fallom.wait_until_ready(20)
    for number in range(10):
        trace.span({"number": number}, config_key="app", session_id=f"good{number}")
    trace.span({"poison": 1}, config_key="app", session_id="bad")
    assert fallom.flush(60) == 0
    wait_for(lambda: fallom.status()["flusher"]["batch_mean_s"] is not None)


def at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[int(part) if part.isdigit() else part]
    return value


def test_scripts_find_the_fields_that_they_found_before(busy: None) -> None:
    for command, fields in SHAPES.items():
        ended = fallom_here(*command, "--json")
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
        told = json.loads(ended.stdout)
        for path, kind in fields.items():
            assert isinstance(at(told, path), kind), (command, path, at(told, path))
            assert kind is not int or not isinstance(at(told, path), bool), (command, path)


def test_lists_are_empty_where_there_is_nothing(published: None) -> None:
    for command in (("dead", "ls"), ("spool", "ls")):
        assert json.loads(fallom_here(*command, "--json").stdout) == [], command
    assert json.loads(fallom_here("dead", "purge", "--yes", "--json").stdout) == {"deleted": 0}
