"""The requestor's loop, in this process; as a program it is tested in test_scripts.py."""

from __future__ import annotations

import argparse
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import imagebus
import requestor
from imagebus.errors import TransportError
from imagebus.transports.base import OnDelivery
from imagebus.transports.memory import MemoryBus, MemoryInbox
from imagebus.wire.message import Message


@pytest.fixture
def state(tmp_path: Path) -> Iterator[imagebus.OpenPackages]:
    state = imagebus.OpenPackages(tmp_path)
    yield state
    state.close()


def test_a_bus_that_fails_after_the_last_send_ends_it_and_leaves_the_packages_open(
    state: imagebus.OpenPackages, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(MemoryBus):
        def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
            super().publish(message, on_delivery)
            sent.release()

        def inbox(self, topic: str) -> MemoryInbox:
            return FailingInbox(self, topic)

    class FailingInbox(MemoryInbox):
        def receive(self, limit: int, timeout: float) -> list[Message]:
            for _ in range(3):
                sent.acquire()
            raise TransportError("the bus is gone")

    sent = threading.Semaphore(0)
    args = argparse.Namespace(json=False, top=1, interval=0.0, requests="requests")
    packages = requestor.packages_of(imagebus.load_images(), 5, range(1, 4))
    with (
        imagebus.Client(Failing()) as client,
        pytest.raises(TransportError, match="the bus is gone"),
    ):
        requestor.exchange(client, packages, state, args)

    assert capsys.readouterr().out == "sent 3, answered 0, failed 0, lost 0, open 3\n"
    assert [package.number for package in state.load()] == [1, 2, 3]


def test_packages_are_numbered_as_asked_and_start_over_at_the_end_of_the_images() -> None:
    images = imagebus.load_images()

    first, *_, last = itertools.islice(requestor.packages_of(images, 300, itertools.count(1)), 4)

    assert [first.number, last.number] == [1, 4]
    assert last.truths == images.truths[-100:] + images.truths[:200] if images.truths else False
    assert first.id != last.id
