"""Programs of this project as processes: started, listened to, signalled."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from imagebus.broker.processes import kill_child, start_child

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 60.0  # for whatever a test waits for; a test that needs all of it has failed


class Program:
    """A running program. `out` and `err` are the lines it printed so far."""

    def __init__(self, *command: str | Path, cwd: Path = ROOT) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self._printed = threading.Condition()
        self._open = 2  # streams
        self._child = start_child(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        pipes = ((self._child.stdout, self.out), (self._child.stderr, self.err))
        self._listeners = [threading.Thread(target=self._listen, args=pair, daemon=True) for pair in pipes]
        for listener in self._listeners:
            listener.start()

    def _listen(self, pipe: IO[bytes], lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                with self._printed:
                    lines.append(line.decode())
                    self._printed.notify_all()
        with self._printed:
            self._open -= 1
            self._printed.notify_all()

    def wait_for(self, text: str, times: int = 1) -> str:
        """The line, on either stream, that has `text`; the last of so many lines that do."""

        def lines() -> list[str]:
            return [line for line in (*self.err, *self.out) if text in line]

        with self._printed:
            self._printed.wait_for(lambda: len(lines()) >= times or not self._open, SECONDS)
        assert len(lines()) >= times, f"{text!r} did not come: {self}"
        return lines()[times - 1]

    def send(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def wait(self) -> int:
        """The exit status, with everything it printed in `out` and `err`."""
        try:
            status = self._child.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end: {self}") from None
        self.kill()
        return status

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.send(number)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL; also lets go of what a program that has ended leaves open."""
        kill_child(self._child)
        for listener in self._listeners:
            listener.join()

    @property
    def pid(self) -> int:
        return self._child.pid

    def __repr__(self) -> str:
        return "".join(("\n", *self.err, *self.out))


def python(script: str, *arguments: str | Path, cwd: Path = ROOT) -> Program:
    """A script of this project, or with -m a module of it."""
    name: list[str | Path] = ["-m", script] if not script.endswith(".py") else [ROOT / script]
    return Program(sys.executable, *name, *arguments, cwd=cwd)


def wait_until_gone(pids: list[int]) -> None:
    """Wait for the end of processes, whoever's children they are."""
    for pid in pids:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([process], [], [], SECONDS)
        os.close(process)
        assert ended, f"process {pid} is still running"


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)
