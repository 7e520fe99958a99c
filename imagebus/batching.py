"""Dynamic batching: serve what is waiting, and wait for more only when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Item = TypeVar("Item")

IDLE_SECONDS = 0.2  # wait on an empty bus before the caller gets its turn


def fill(
    receive: Callable[[int, float], list[Item]],
    max_batch_size: int,
    max_wait: float,
    *,
    idle: float = IDLE_SECONDS,
    stopping: Callable[[], bool] = lambda: False,
) -> list[Item]:
    """One batch of 1 to `max_batch_size` items, or an empty list when nothing came within `idle` s.

    Waits for the first item; what is there by then comes along at once. With `max_wait` above 0 (seconds,
    counted from the first item) a batch that is not full waits for more: larger batches, later answers. Two
    things end that wait: `stopping`, within `idle` s, and an empty list that `receive` returns at once, which
    means that nothing can come before this batch is done.
    """
    batch = receive(max_batch_size, idle)
    if not batch or max_wait <= 0:
        return batch
    deadline = time.monotonic() + max_wait
    while len(batch) < max_batch_size and not stopping() and (left := deadline - time.monotonic()) > 0:
        turn = min(left, idle)
        began = time.monotonic()
        more = receive(max_batch_size - len(batch), turn)
        if not more and time.monotonic() - began < turn / 2:
            break
        batch += more
    return batch
