"""Damage to several files of a state directory at once, again and again."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from scripts.soaking.cloud import Report, local_cloud


def damage(folder: Path, given: Any) -> tuple[Report, list[str]]:
    """Damage several files of a state directory at once, again and again."""
    import fallom
    from fallom import _runtime, models, trace
    from tests.support.damage import DAMAGES
    from tests.support.flushers import end_flushers

    chance = random.Random(given.rounds)
    state, problems, damaged = folder / "state", [], 0
    with local_cloud(folder) as cloud:
        for turn in range(given.rounds):
            fallom.init()
            if not fallom.wait_until_ready(20) or models.get("app", "s", fallback="") != "one":
                problems.append(f"round {turn}: no config: {fallom.status()}")
            for number in range(100):
                trace.span({"n": number}, config_key="app", session_id=f"{turn}-{number}")
            left = fallom.flush(20)
            arrived = {row["attributes"]["fallom.session_id"] for row in cloud.spans()}
            lost = {f"{turn}-{number}" for number in range(100)} - arrived
            if left or lost:
                problems.append(f"round {turn}: {left} left, {len(lost)} lost")
            cloud.clear()
            _runtime.reset()
            end_flushers(state)
            for path in sorted(path for path in state.rglob("*") if path.is_file()):
                if chance.random() < 0.5:
                    chance.choice(list(DAMAGES.values()))(path, chance)
                    damaged += 1
    return [("files damaged", str(damaged)), ("rounds survived", str(given.rounds))], problems
