"""Child processes: none outlives its parent, whatever happens to either."""

from __future__ import annotations

import signal
import subprocess
import sys

from imagebus.broker.processes import kill_child, start_child, stop_child

from .programs import SECONDS, wait_until_gone

PARENT = """
import signal, sys
from imagebus.broker.processes import start_child
child = start_child([sys.executable, "-c", "print('running', flush=True); import signal; signal.pause()"])
print(child.pid, flush=True)
signal.pause()
"""
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
)


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as printed:
        lines = sorted([printed.readline(), printed.readline()])
        pid = int(lines[0])

        parent.send_signal(signal.SIGKILL)
        parent.wait()

        wait_until_gone([pid])
    assert lines[1] == "running\n"


def test_stop_asks_first_and_returns_the_status() -> None:
    child = start_child([sys.executable, "-c", "import signal; signal.pause()"])

    assert stop_child(child) == -signal.SIGTERM


def test_stop_kills_what_does_not_listen() -> None:
    child = start_child([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout as printed:
        assert printed.readline() == b"up\n"

        assert stop_child(child, limit=0.1) == -signal.SIGKILL


def test_stop_reaches_a_frozen_child() -> None:
    child = start_child([sys.executable, "-c", "import signal; signal.pause()"])
    child.send_signal(signal.SIGSTOP)

    assert stop_child(child) == -signal.SIGTERM


def test_a_child_that_ended_by_itself_keeps_its_status() -> None:
    child = start_child([sys.executable, "-c", "raise SystemExit(7)"])

    assert child.wait(SECONDS) == 7
    assert kill_child(child) == 7
    assert kill_child(child) == 7


def test_a_command_that_is_not_there_ends_with_127() -> None:
    child = start_child(["no-such-command-anywhere"], stderr=subprocess.DEVNULL)

    assert child.wait(SECONDS) == 127
    assert kill_child(child) == 127
