"""Standard output and error as programs get them: closed, full, or read by somebody who has seen enough."""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import suppress

log = logging.getLogger(__name__)


class Output:
    """Standard output. When it takes no more, one line says why, `failed` is set, and the work goes on.

    What is printed later may get through: a full disk can be emptied. A pipe without a reader is another matter:
    there `print` raises BrokenPipeError.
    """

    def __init__(self) -> None:
        self.failed = False

    def print(self, text: object) -> bool:
        """Print a line at once; returns whether it got through."""
        try:
            print(text, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self.failed:
                log.error("standard output: %s; going on without it", error.strerror)
            self.failed = True
            return False
        return True


def open_missing_streams() -> None:
    """Give a program the standard streams that it was started without (`>&-`): what goes there is not wanted.

    Python has None in their place, which has no methods. And the next file or connection would get the number of
    the missing one, with all that a library prints there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def escape_unknown_characters() -> None:
    """Let a label that the terminal does not know end nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Print a line to standard error, if that takes one: there is no other place to say that it does not."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def flush() -> OSError | None:
    """Flush both; what went wrong with standard output is returned, and not repeated by Python at its end."""
    failure = None
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except OSError as error:
            failure = error if stream is sys.stdout else failure
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return failure
