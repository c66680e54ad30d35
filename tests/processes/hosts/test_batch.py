"""Scripts with fallom end as they would without it, whatever ends them, and lose nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from fallom.dev.server import LocalCloud
from tests.support.batch_host import BatchScript
from tests.support.delivered import acknowledged, check_delivered

ENDS = {
    "its last line": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "os._exit": ("os._exit(4)", 4),
    "an unhandled exception": ("{}['no such key']", 1),
    "an exception within a step": (
        """
        if IS_BARE:
            raise KeyError("within")
        with trace.step("failing"):
            raise KeyError("within")
        """,
        1,
    ),
    "sys.exit in a thread": (
        """
        thread = threading.Thread(target=lambda: (record("thread"), sys.exit(5)))
        thread.start()
        thread.join()
        """,
        0,
    ),
    "an exception in a thread that outlives the main one": (
        """
        def late():
            time.sleep(0.2)
            record("late")
            raise KeyError("late")
        threading.excepthook = lambda given: print(given.exc_type.__name__, file=sys.stderr)
        threading.Thread(target=late).start()
        """,
        0,
    ),
    "a daemon thread that records": (
        """
        def forever():
            while True:
                record("daemon", 1)
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.1)
        """,
        0,
    ),
    "asyncio.run": (
        """
        import asyncio
        async def work(number):
            record(f"task{number}", 5)
            await asyncio.sleep(0)
        async def main():
            await asyncio.gather(*(work(number) for number in range(4)))
        asyncio.run(main())
        """,
        0,
    ),
    "abort": ("os.abort()", -signal.SIGABRT),
    "exec of another program": ("os.execv('/bin/sh', ['sh', '-c', 'echo gone; exit 6'])", 6),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_script_ends_by_what_ends_it_and_loses_nothing(
    end: str, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    code, status = ENDS[end]
    lines = "\n".join(line.removeprefix(" " * 8) for line in code.splitlines())
    script = BatchScript(f"record('main')\n{lines}\n", tmp_path)
    if end == "an exception within a step":  # its traceback has the line that differs
        ended = script.run({})
        assert "KeyError: 'within'" in ended.err
        assert "fallom" not in ended.err.replace(str(tmp_path), "")
    else:
        ended = script.check_same()
    assert ended.status == status
    assert acknowledged(tmp_path).total() >= 20
    check_delivered(cloud, tmp_path, state_dir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_a_script_that_is_ended_by_a_signal_ends_by_it_and_loses_nothing(
    number: signal.Signals, cloud: LocalCloud, tmp_path: Path, state_dir: Path
) -> None:
    # One line, so that a traceback names the same one whenever the signal comes.
    code = "record('main')\nos.write(1, b'ready\\n') and time.sleep(600)\n"
    script = BatchScript(code, tmp_path)
    ended = script.check_same(number=number)
    assert ended.status == -number
    assert acknowledged(tmp_path).total() == 20
    check_delivered(cloud, tmp_path, state_dir)
