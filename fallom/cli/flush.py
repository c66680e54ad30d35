"""``fallom flush``: wait until what is recorded now is delivered."""

from __future__ import annotations

import time
from typing import Any

import click

from fallom.cli.exits import EXIT_WRONG
from fallom.cli.screen import echo_json, say

__all__ = ["flush"]


def flush(timeout_s: float, as_json: bool) -> int:
    """Wait, with a bar where a person looks; start a flusher if none lives. Give the exit code."""
    import fallom
    from fallom._flush import POLL_S, flush_steps  # only here: they load the runtime
    from fallom._flusher.targets import target_hashes
    from fallom._runtime import current
    from fallom.cli.progress import Progress

    fallom.init()
    runtime = current()
    left: Any = None
    place = runtime.whereabouts.place
    if place is None:
        raise click.ClickException("No state directory can be used; `fallom doctor` says why.")
    targets = target_hashes(runtime.settings)
    with Progress(place.directory.spool, targets, "Delivering") as progress:
        looked_s = 0.0
        for left in flush_steps(runtime, timeout_s):
            if left is None:
                time.sleep(POLL_S)
            if time.monotonic() - looked_s > 0.1:
                looked_s = time.monotonic()
                progress.look()
        progress.look()
    status = fallom.status()
    why = status["last_error"] or "the server has not answered yet"
    if not status["flusher"]["is_alive"]:
        why = "no flusher lives; `fallom flusher --once` delivers now"
    if as_json:
        echo_json({"left": left, "error": why if left else None})
    elif left:
        say(f"! {left} record(s) are not delivered yet; they stay in the spool: {why}")
    else:
        click.echo("Everything that was recorded is delivered.")
    return EXIT_WRONG if left else 0
