"""Free ports: no two processes get the same, and a process's own are free again after it."""

from __future__ import annotations

import sys

import pytest

from imagebus.broker import ports

from .programs import Program

TAKES_TWO = """
import signal
from imagebus.broker.ports import free_ports
print(*free_ports(2), flush=True)
signal.pause()
"""


def test_what_one_process_was_given_no_other_is_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Program(sys.executable, "-c", TAKES_TWO)
    try:
        first, second = map(int, other.wait_for(" ").split())
        monkeypatch.setattr(ports, "FREE_PORTS", range(first - 20, second + 20))
        ours = [ports.free_ports(2) for _ in range(5)]
    finally:
        other.kill()

    monkeypatch.setattr(ports, "FREE_PORTS", [first, second])
    again = ports.free_ports(2)

    assert len({port for pair in ours for port in pair} - {first, second}) == 10
    assert again == [first, second]
