"""The log of a flusher, which lives for as long as anything records."""

from __future__ import annotations

import logging
from pathlib import Path

from fallom._flusher.main import CappedLog
from fallom._flusher.spawn import LOG_BYTES_MAX


def test_the_log_of_a_flusher_that_lives_long_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "flusher.log"
    line = "x" * 1000
    with path.open("a") as stream:
        handler = CappedLog(stream)
        for number in range(3 * LOG_BYTES_MAX // len(line)):
            record = logging.LogRecord("fallom", logging.WARNING, "", 0, line, None, None)
            handler.emit(record)
            if number % 100 == 0:
                assert path.stat().st_size <= LOG_BYTES_MAX + 2 * len(line)
        record = logging.LogRecord("fallom", logging.WARNING, "", 0, "the last", None, None)
        handler.emit(record)
    text = path.read_text()
    assert text.startswith("x")
    assert text.endswith("the last\n")


def test_a_log_that_is_no_file_is_written_to_all_the_same(tmp_path: Path) -> None:
    with Path("/dev/null").open("a") as stream:
        CappedLog(stream).emit(logging.LogRecord("fallom", 30, "", 0, "line", None, None))
