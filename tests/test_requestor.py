"""The requestor's loop, in this process; as a program it is tested in test_scripts.py."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

import pytest

import imagebus
import requestor
from imagebus.errors import TransportError
from imagebus.transports.base import OnDelivery
from imagebus.transports.memory import MemoryBus, MemoryTransport
from imagebus.wire.message import Message


def test_a_bus_that_fails_after_the_last_send_ends_it_and_leaves_the_packages_open(tmp_path: Path) -> None:
    class Failing(MemoryTransport):
        def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
            super().publish(message, on_delivery)
            sent.release()

        def receive(self, limit: int, timeout: float) -> list[Message]:
            for _ in range(3):
                sent.acquire()
            raise TransportError("the bus is gone")

    sent = threading.Semaphore(0)
    state = imagebus.OpenPackages(tmp_path)
    args = argparse.Namespace(json=False, top=1, count=3, batch_size=5, interval=0.0, requests="requests")
    summary = requestor.Summary()
    with (
        imagebus.Client(Failing(MemoryBus())) as client,
        pytest.raises(TransportError, match="the bus is gone"),
    ):
        requestor.exchange(client, imagebus.load_images(), state, args, summary)

    assert (summary.sent, summary.failed, summary.open) == (3, 0, 3)
    assert [package.number for package in state.load()] == [1, 2, 3]
