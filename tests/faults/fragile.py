"""A replier that does harm to itself at a chosen point of its work, and is otherwise the real one.

    python3 -m tests.faults.fragile POINT NUMBER -f kafka.config -t1 requests -t2 replies ...

At its NUMBERth batch it kills itself with SIGKILL at POINT. `slow-model` makes each of the first batches
take NUMBER seconds instead, `sluggish` all of them NUMBER milliseconds longer, and `killer` lets it die of an
image whose pixels all are NUMBER. `fast-clock` sets its clock ahead by NUMBER seconds.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import replier
from imagebus import cli
from imagebus.classifier import OnnxClassifier
from imagebus.transports.kafka.ledger import Ledger
from imagebus.transports.kafka.outgoing import OutgoingBatch

POINTS = ("before-produce", "after-produce", "after-confirmation", "after-commit")


def kill_at(owner: type, method: str, countdown: int, *, after: bool) -> None:
    """Let the `countdown`th call of a method be the last thing that happens."""
    original: Callable[..., Any] = getattr(owner, method)
    left = countdown

    def fatal(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **options)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, fatal)


def slow_down(seconds: float, until: float = math.inf) -> None:
    """Let each prediction take so much longer, `until` so many seconds from now."""
    original = OnnxClassifier.predict
    started = time.monotonic()

    def slow(self: OnnxClassifier, images: Any) -> Any:
        if time.monotonic() - started < until:
            time.sleep(seconds)
        return original(self, images)

    OnnxClassifier.predict = slow  # type: ignore[method-assign]


def die_of(grey: int) -> None:
    """Let the model kill the process when it sees an image that is all of one grey level, as a bug in C would."""
    original = OnnxClassifier.predict

    def fatal(self: OnnxClassifier, images: Any) -> Any:
        if (images == grey).all(axis=(1, 2)).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, images)

    OnnxClassifier.predict = fatal  # type: ignore[method-assign]


def set_clock_ahead(seconds: float) -> None:
    """Let this process live in the future."""
    original = time.time
    time.time = lambda: original() + seconds


def main() -> None:
    point, number = sys.argv[1], int(sys.argv[2])
    del sys.argv[1:3]
    if point == "before-produce":
        kill_at(OutgoingBatch, "send", number, after=False)
    elif point == "after-produce":
        kill_at(OutgoingBatch, "send", number, after=True)
    elif point == "after-confirmation":
        kill_at(OutgoingBatch, "check", number, after=True)
    elif point == "after-commit":
        kill_at(Ledger, "_end_commit", number, after=True)
    elif point == "slow-model":
        slow_down(number, until=4 * number)
    elif point == "sluggish":
        slow_down(number / 1000)
    elif point == "killer":
        die_of(number)
    elif point == "fast-clock":
        set_clock_ahead(number)
    else:
        sys.exit(f"unknown point {point}")
    cli.run(replier.main)


if __name__ == "__main__":
    main()
