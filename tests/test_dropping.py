"""A client that was dropped without `close`, as one made anew under the same name in a notebook."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from imagebus.client import Client
from imagebus.errors import TransportError
from imagebus.transports import connect
from imagebus.transports.memory import MemoryBroker, MemoryBus
from imagebus.wire.message import Message

from .fakes import package
from .programs import SECONDS, wait_until
from .test_client import Answerer

ONE = package(1)


def end_of(reader: threading.Thread) -> bool:
    """Whether the thread ends, once nobody has its client."""
    gc.collect()
    reader.join(SECONDS)
    return not reader.is_alive()


def test_a_dropped_client_warns_and_ends_its_thread_and_its_bus() -> None:
    bus = MemoryBus()
    client = Client(bus)
    reader = client._reader

    with pytest.warns(ResourceWarning, match="dropped without close"):
        del client

    assert end_of(reader)
    assert bus.closed


def test_a_closed_client_is_dropped_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    client = Client(MemoryBus())
    client.close()

    del client
    gc.collect()

    assert [each for each in recwarn if each.category is ResourceWarning] == []


def test_a_client_that_could_not_be_made_is_dropped_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    class Broken(MemoryBus):
        def inbox(self, topic: str) -> Any:
            raise TransportError(f"topic {topic!r} is not there")

    with pytest.raises(TransportError):
        Client(Broken())
    with pytest.raises(ValueError, match="timeout"):
        Client(MemoryBus(), timeout=0)

    gc.collect()
    assert [each for each in recwarn if each.category is ResourceWarning] == []


def test_a_client_whose_bus_failed_for_good_closes_it_too_when_it_is_dropped() -> None:
    """By then its reader has ended."""
    broker = MemoryBroker()
    bus = MemoryBus(broker)
    client = Client(bus)
    broker.fail_for_good(TransportError("the login was revoked"))
    assert end_of(client._reader)
    assert not bus.closed

    with pytest.warns(ResourceWarning, match="dropped without close"):
        del client

    wait_until(lambda: bus.closed)


def wait(future: Future[Any]) -> Future[Any]:
    return future


def by_callback(future: Future[Any]) -> Future[Any]:
    """Only the callback has the future; what it gets is in another one."""
    outcome: Future[Any] = Future()
    future.add_done_callback(lambda future: outcome.set_result(future.result()))
    return outcome


@pytest.mark.parametrize("got", [wait, by_callback])
def test_a_dropped_client_answers_what_is_open_before_it_ends(
    got: Callable[[Future[Any]], Future[Any]], recwarn: pytest.WarningsRecorder
) -> None:
    broker = MemoryBroker()
    bus = MemoryBus(broker)
    answerer = Answerer(broker)
    client = Client(bus, timeout=SECONDS)
    reader = client._reader

    outcome = got(client.submit(ONE))

    del client
    gc.collect()
    answerer.answer(answerer.request())

    assert outcome.result(SECONDS).predictions
    assert end_of(reader)
    assert bus.closed
    assert "dropped without close" in str(recwarn.pop(ResourceWarning).message)


def kafka_threads() -> int:
    """librdkafka's threads in this process."""
    count = 0
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            count += (task / "comm").read_text().startswith("rdk:")
    return count


def test_on_kafka_a_closed_client_that_is_kept_keeps_no_thread(config: Path) -> None:
    gc.collect()
    before = kafka_threads()
    client = Client(connect("kafka", config, topics=["requests", "replies"]))

    client.close()

    wait_until(lambda: kafka_threads() == before)  # a question to a second broker may still be open
    with pytest.raises(TransportError, match="closed"):
        client.submit(ONE)
    with pytest.raises(TransportError, match="closed"):
        client._bus.publish(Message("requests", b""))


def test_on_kafka_a_client_made_anew_under_its_name_leaves_no_thread_of_the_last_one(config: Path) -> None:
    gc.collect()
    before = kafka_threads()
    left = []
    for _ in range(3):
        client = Client(connect("kafka", config, topics=["requests", "replies"]))
        reader = client._reader
        assert kafka_threads() > before

        with pytest.warns(ResourceWarning, match="dropped without close"):
            del client

        assert end_of(reader)
        del reader
        left.append(kafka_threads() - before)
    assert left == [0, 0, 0]
