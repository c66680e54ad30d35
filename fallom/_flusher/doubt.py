"""A doubt: a target refused records, and has taken nothing since. Is it the records, or the target?

What comes after them in the spool tells. If the target takes any of that, it is asked about each of them
once more, and what it refuses then is guilty. If it takes nothing, nothing is known, and all is kept.
"""

from __future__ import annotations

from collections.abc import Callable

from fallom._core.outcome import Outcome, Verdict
from fallom._flusher.delivery import Result
from fallom._spool.reader import Item

__all__ = ["AHEAD_READS", "is_doubt", "settle_doubt"]

AHEAD_READS = 4  # batches; two records of each are tried, so that doubt costs a few requests

Deliver = Callable[[list[Item]], Result]
Read = Callable[[], "list[Item] | None"]


def is_doubt(outcome: Outcome | None) -> bool:
    """Tell whether an outcome says that all was refused that was tried."""
    return outcome is not None and outcome.verdict is Verdict.DOUBT


def settle_doubt(
    result: Result,
    rest: list[Item],
    deliver: Deliver,
    read: Read,
    ahead_max: int,
    trusts_lone: bool,
) -> Result:
    """Find out what can be found out now.

    Args:
        result: Of a batch, with suspects or a doubt.
        rest: What is still to be sent after it; what is read is added, and what is taken leaves it.
        deliver: Posts records.
        read: Gives records that come after all of these; None when there are none now.
        ahead_max: How many records ``rest`` may hold before no more are read.
        trusts_lone: Whether a lone suspect with nothing after it is believed to be guilty.

    Returns:
        The result in its place.
    """
    suspects = [item for item, _ in result.suspects]
    doubted = [*suspects, *result.unsent]
    found = Result(guilty=result.guilty, unreadable=result.unreadable)
    if result.outcome is not None and not is_doubt(result.outcome):
        # It is in trouble, so its refusals tell nothing.
        found.outcome, found.unsent = result.outcome, doubted
    elif _is_other_taken(rest, deliver, read, ahead_max):
        found.add(_ask_each(doubted, deliver))
        found.accepted += 1
    else:
        first = result.suspects[0][1] if suspects else result.outcome
        assert first is not None
        if trusts_lone and len(doubted) == len(suspects) == 1 and not rest and first.status < 500:
            found.guilty = found.guilty + result.suspects
        else:
            reason = f"{first.reason}; nothing else was taken since" if suspects else first.reason
            found.outcome = Outcome(Verdict.DOUBT, reason, first.status)
            found.unsent = doubted
    return found


def _is_other_taken(rest: list[Item], deliver: Deliver, read: Read, ahead_max: int) -> bool:
    tried = rest
    for number in range(AHEAD_READS + 1):
        for item in {id(item): item for item in (*tried[:1], *tried[-1:])}.values():
            result = deliver([item])
            if result.taken:
                rest[:] = [other for other in rest if other is not item]
                return True
            if result.outcome is not None:
                return False
        ahead = read() if number < AHEAD_READS and len(rest) < ahead_max else None
        if ahead is None:
            return False
        rest += ahead
        tried = ahead
    return False


def _ask_each(items: list[Item], deliver: Deliver) -> Result:
    """Post records one by one: the target takes others, so that what it refuses now is guilty."""
    found = Result()
    for number, item in enumerate(items):
        if item.is_erased():
            continue
        result = deliver([item])
        if result.outcome is not None:
            found.outcome, found.unsent = result.outcome, items[number:]
            break
        found.guilty += result.suspects
        found.unreadable += result.unreadable
    return found
