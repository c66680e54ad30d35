"""The window: the batches of one lane that are on their way to its target, the oldest first.

A lone batch is posted by the lane's own thread. Where several wait for a server that takes its time, that
thread encodes them, and each has one of a small pool for its exchange, so that a backlog is not bound to
one batch for each round trip. Their answers are taken in the order in which they were read, so that what is
accepted of a segment is always a prefix of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from fallom._flusher.delivery import Result
from fallom._spool.reader import Item, Piece

__all__ = ["BATCHES_MAX", "BYTES_MAX", "Batch", "Window"]

BATCHES_MAX = 4  # what a flusher that is killed had sent in vain, at most
# An answer that takes less is not worth it: a batch takes twice as long to encode, and threads beside that
# cost a tenth of the CPU more.
SLOW_ANSWER_S = 0.02
BYTES_MAX = 8 << 20  # of all of them, as spooled: each is held decoded, encoded and compressed


@dataclass(slots=True, eq=False)
class Batch:
    """Consecutive records of some segments, and those of them that the target is to get."""

    pieces: list[Piece]
    items: list[Item]

    def add(self, other: Batch) -> None:
        """Take in the batch that was read after this one."""
        self.pieces += other.pieces
        self.items += other.items

    def segments(self) -> frozenset[bytes]:
        """Give the ids of its segments."""
        return frozenset(piece.tail.name.id for piece in self.pieces)

    def size(self) -> int:
        """Give its bytes, as spooled."""
        return sum(len(item.payload) for item in self.items)


class Window:
    """What is on its way; for the lane's thread."""

    def __init__(self, begin: Callable[[list[Item]], Callable[[], Result]], name: str) -> None:
        """Start no thread yet; see ``Delivery.begin``."""
        self._begin = begin
        self._name = name
        self._pool: ThreadPoolExecutor | None = None
        self._sent: deque[tuple[Batch, Future[Result] | None]] = deque()
        self._took_s = 0.0  # the last exchange

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def pays(self) -> bool:
        """Whether waiting for answers is what sets the pace, and not the computing of requests."""
        return self._took_s >= SLOW_ANSWER_S

    def size(self) -> int:
        """Give the bytes of all batches."""
        return sum(batch.size() for batch, _ in self._sent)

    def segments(self) -> frozenset[bytes]:
        """Give the ids of the segments of all batches."""
        return frozenset().union(*(batch.segments() for batch, _ in self._sent))

    def send(self, batches: list[Batch]) -> None:
        """Send batches; a lone one is posted when its answer is asked for."""
        if not self._sent and len(batches) == 1:
            self._sent.append((batches[0], None))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(BATCHES_MAX, f"fallom-{self._name}")
        for batch in batches:
            self._sent.append((batch, self._pool.submit(self._timed, self._begin(batch.items))))

    def answer(self) -> tuple[Batch, Result]:
        """Take out the oldest batch; give it, and what became of it, once that is known."""
        batch, exchange = self._sent.popleft()
        if exchange is None:
            return batch, self._timed(self._begin(batch.items))
        return batch, exchange.result()

    def _timed(self, exchange: Callable[[], Result]) -> Result:
        started_s = time.monotonic()
        result = exchange()
        self._took_s = time.monotonic() - started_s
        return result

    def clear(self) -> None:
        """Forget all batches, when the exchanges under way are over."""
        wait([exchange for _, exchange in self._sent if exchange is not None])
        self._sent.clear()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
