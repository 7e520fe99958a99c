"""A replier in a consumer group that belongs to another program."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does export them

from imagebus.broker import EmbeddedBroker

from .buses import Bus
from .programs import SECONDS


@pytest.fixture(params=["range", "roundrobin"])
def foreign(bus: Bus, broker: EmbeddedBroker, request: pytest.FixtureRequest) -> Iterator[Consumer]:
    """A member of the group of this test that shares out partitions as kafka-python and older clients do."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(bus.requests, num_partitions=2)])[bus.requests].result()
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": bus.group,
            "partition.assignment.strategy": request.param,
        }
    )
    assigned = threading.Event()
    consumer.subscribe([bus.requests], on_assign=lambda *_: assigned.set())
    consumer.poll(SECONDS / 10)
    while not assigned.is_set():
        consumer.poll(0.1)
    yield consumer
    consumer.close()


def test_a_group_of_another_program_ends_the_replier_with_a_line_that_names_it(
    bus: Bus, foreign: Consumer
) -> None:
    replier = bus.start("replier.py")

    assert replier.wait() == 1
    (line,) = [line for line in replier.err if line.startswith("replier.py: ")]
    assert line.startswith(f"replier.py: --group {bus.group}: reading topic '{bus.requests}': ")
    assert "partition.assignment.strategy" in line
    assert "Traceback" not in str(replier)
    assert not [line for line in replier.err if "trying again" in line]
