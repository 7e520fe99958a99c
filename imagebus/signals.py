"""How a signal ends a program: at once while nothing is in hand yet, in order afterwards."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_FINISH = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, `docker stop`, a terminal that is closed
_PYTHON_LEAVES = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # to the system; SIGINT is KeyboardInterrupt


def is_ignored(number: int) -> bool:
    """Whether whoever started the process wants no end by this signal, as `nohup` does."""
    return signal.getsignal(number) is signal.SIG_IGN


def end_at_once_on_signals() -> None:
    """Let process 1 end on a signal as others do: for the start, when nothing is in hand. Call it once, and early.

    In a container a program is process 1 as a rule, and the kernel drops every signal that this leaves to the
    default. Nothing is raised here: an import would swallow an exception at times, and print it.
    """
    if os.getpid() != 1:
        return
    for number in _PYTHON_LEAVES:
        if not is_ignored(number):
            _end_at_once_on(number)
    # The interpreter runs a handler only when a call into a library is over, and those take up to ten seconds.
    signalled, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    threading.Thread(target=_end_when, args=(signalled,), name="imagebus-signals", daemon=True).start()


def _end_when(signalled: int) -> None:
    """End the process by the first of its signals, whose numbers come through a pipe."""
    while True:
        for number in os.read(signalled, 1):
            if signal.getsignal(number) is _exit:
                _exit(number, None)


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call `stop` on the first SIGINT, SIGTERM or SIGHUP; the second one ends the process at once."""

    def first(number: int, _: FrameType | None) -> None:
        _end_at_once_on(number)
        stop()

    signal.set_wakeup_fd(-1)
    for number in _FINISH:
        if number != signal.SIGHUP or not is_ignored(number):
            signal.signal(number, first)


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt too, with their number as its argument."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    for number in _FINISH:
        if number != signal.SIGHUP or not is_ignored(number):
            signal.signal(number, interrupt)


def _end_at_once_on(number: int) -> None:
    signal.signal(number, _exit if os.getpid() == 1 else signal.SIG_DFL)


def _exit(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)
