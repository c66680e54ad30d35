from __future__ import annotations

from fallom.cli.status import status_lines


def test_status_is_a_screen_of_plain_facts() -> None:
    status = {
        "version": "1",
        "flusher": {"is_alive": True, "pid": 7, "last_error": None},
        "drops": {},
        "spool": {"traces": {"bytes": 5, "oldest_age_s": 1.5}},
        "urls": ["a", "b"],
    }
    assert list(status_lines(status)) == [
        "version       1",
        "urls          a; b",
        "",
        "flusher",
        "  is alive      yes",
        "  pid           7",
        "  last error    -",
        "",
        "drops",
        "  none",
        "",
        "spool",
        "  traces",
        "    bytes         5",
        "    oldest age s  1.5",
    ]


def test_empty_status_gives_nothing() -> None:
    assert list(status_lines({})) == []
