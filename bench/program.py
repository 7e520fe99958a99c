"""A contender's process: started, read on standard error, measured, ended."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from bench import measure
from imagebus.broker.processes import kill_child, start_child, stop_child
from imagebus.errors import ImageBusError

ROOT = Path(__file__).resolve().parent.parent


class BenchFailed(ImageBusError):
    """A measured program misbehaved, so there is nothing to print."""


class Program:
    """`python ARGUMENTS` in the project's folder, while the `with` block runs.

    Times are `time.time()`, so that they compare with the broker's timestamps. `python` is the interpreter
    of another environment, for programs that cannot share this one.
    """

    def __init__(self, *arguments: str | Path, python: str | Path = sys.executable) -> None:
        self.started = time.time()
        self._name = " ".join(str(argument) for argument in arguments[:2] if argument != "-m")
        self._last_line = "it said nothing"
        self._child = start_child(
            [python, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._lines: queue.SimpleQueue[tuple[float, str] | None] = queue.SimpleQueue()  # None: no more
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stderr
        for line in self._child.stderr:
            self._lines.put((time.time(), line.decode(errors="replace").strip()))
        self._lines.put(None)

    def wait_for(self, word: str, limit: float) -> tuple[float, str]:
        """The time of the next line with `word`, and its text after the word; waits `limit` seconds at most."""
        deadline = time.monotonic() + limit
        while True:
            try:
                said = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise BenchFailed(
                    f"{self._name} did not say {word!r} in {limit:.0f} s: {self._last_line}"
                ) from None
            if said is None:
                raise BenchFailed(f"{self._name} ended before it said {word!r}: {self._last_line}")
            when, line = said
            self._last_line = line or self._last_line
            if word in line:
                return when, line.partition(word)[2].strip()

    def check(self) -> None:
        """Raise `BenchFailed` when the process has ended."""
        if self._child.poll() is not None:
            self.wait_for("\0", 1.0)  # which no line has: this raises with the last one

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        kill_child(self._child)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it while the `with` block runs."""
        self._child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._child.send_signal(signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """See `measure.cpu_seconds`."""
        return measure.cpu_seconds(self._child.pid)

    def resident_mb(self) -> tuple[float, float]:
        """See `measure.resident_mb`."""
        return measure.resident_mb(self._child.pid)

    def has_loaded(self, library: str) -> bool:
        """See `measure.has_loaded`."""
        return measure.has_loaded(self._child.pid, library)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stop_child(self._child)
        self._reader.join()
        assert self._child.stderr
        self._child.stderr.close()
