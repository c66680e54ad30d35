"""A benchmark whose answers or counts are wrong fails, and what else was run is kept."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main, tables
from benchmarks.bench import Bench, WrongResultError
from benchmarks.contestant import Contestant
from benchmarks.receiver import Receiver
from benchmarks.report import ROOT
from benchmarks.table import Table
from tests.support.flushers import end_flushers


class OursAlone(Bench):
    """Without the peers, and with little of everything."""

    def sized(self, full: int, quick: int) -> int:
        return max(1, min(quick, 400))

    def _is_installed(self, peer: str) -> bool:
        return peer == "fallom"


class Loses(Receiver):
    """Loses one span of each count, from the given count on."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.left = first

    def counts(self) -> dict[str, Any]:
        counts = super().counts()
        self.left -= 1
        if self.left < 0 and "otlp" in counts:
            counts["otlp"]["distinct"] -= 1
        return counts


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
    end_flushers(tmp_path)  # whose receiver is gone, and who would be patient with it


@pytest.mark.parametrize("name", ["models", "prompts", "span", "durability", "flood", "middleware"])
def test_a_benchmark_passes_when_all_is_right(
    name: str, receiver: Receiver, tmp_path: Path
) -> None:
    bench = OursAlone(tmp_path, receiver, is_quick=True, repeats=1)
    table = tables()[name](bench)
    assert any("**fallom**" in row["row"] for row in table.rows)


@pytest.mark.parametrize(("name", "first"), [("flood", 0), ("flood", 1), ("flusher", 0)])
def test_a_span_that_the_receiver_does_not_get_fails_the_benchmark(
    name: str, first: int, tmp_path: Path
) -> None:
    with Loses(first) as receiver:
        bench = OursAlone(tmp_path, receiver, is_quick=True, repeats=1)
        with pytest.raises(WrongResultError, match=r"999 of 1000|399 of 400|'distinct': 399"):
            tables()[name](bench)


def _one_session_gets_the_other_model(told: dict[str, Any]) -> None:
    told["models"][7] = {"one": "two", "two": "one"}[told["models"][7]]


def _a_record_is_missing(told: dict[str, Any]) -> None:
    told["written"] -= 1


def _a_variable_is_not_filled_in(told: dict[str, Any]) -> None:
    told["user"] = told["user"].replace("value of d", "{{d}}")


def _a_session_stays_behind(told: dict[str, Any]) -> None:
    told["session after"] = {"session_id": "/7"}


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("models", _one_session_gets_the_other_model),
        ("models", _a_record_is_missing),
        ("models_first", _a_record_is_missing),
        ("prompts", _a_variable_is_not_filled_in),
        ("span", _a_record_is_missing),
        ("durability", _a_record_is_missing),
        ("middleware", _a_session_stays_behind),
    ],
)
def test_a_wrong_answer_fails_the_benchmark(
    name: str,
    spoil: Callable[[dict[str, Any]], None],
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order = Contestant.order

    def spoilt(self: Contestant, do: str, **given: Any) -> Any:
        told = order(self, do, **given)
        if do == "answers" and "**fallom**" in self.name:
            spoil(told)
        return told

    monkeypatch.setattr(Contestant, "order", spoilt)
    with pytest.raises(WrongResultError):
        tables()[name](OursAlone(tmp_path, receiver, is_quick=True, repeats=1))


def _right(_: Bench) -> Table:
    return Table("right", "Right", ("figure",), [{"row": "one", "figure": 1}])


def _wrong(_: Bench) -> Table:
    raise WrongResultError("9 of 10 arrived")


def test_a_wrong_table_is_not_stored_and_the_run_goes_on_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.__main__.tables", lambda: {"wrong": _wrong, "right": _right})
    monkeypatch.setattr(sys, "argv", ["bench", "--output", str(tmp_path)])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main() == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["results.md", "right.json"]
    assert "WRONG: wrong: WrongResultError: 9 of 10 arrived" in capsys.readouterr().err


def test_a_run_that_is_cut_off_keeps_what_is_finished(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-u",
        "-m",
        "benchmarks",
        "fleet",
        "scale",
        "--output",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "[fleet:" not in process.stdout.readline():
        assert process.poll() is None
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "cut off" in said
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["fleet.json", "results.md"]
