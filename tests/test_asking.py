"""A broker that goes with a question which it took holds nobody up: another one is asked."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException

from imagebus.broker import EmbeddedBroker
from imagebus.broker.ports import free_ports
from imagebus.transports import connect
from imagebus.transports.kafka.config import read_settings
from imagebus.transports.kafka.connecting import Connection
from imagebus.transports.kafka.topics import partitions_of
from imagebus.wire.message import Message

from .cut_connection import Cable

METADATA = (3).to_bytes(
    2
)  # https://kafka.apache.org/protocol#protocol_api_keys; after the request's length, in 4 bytes
WAYS = ("ONE", "OTHER")
LONG = 60.0  # seconds


@dataclass(frozen=True)
class Ways:
    """To one broker, as if it were two: for the client that has lost one way the other is another broker."""

    own: dict[str, str]
    ends: dict[str, str]


@pytest.fixture(scope="module")
def ways(kafka_jars_here: None) -> Iterator[Ways]:
    names = (*WAYS, "NODES", "CONTROLLER")
    ports = free_ports(len(names) + len(WAYS))
    own = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=False)}
    ends = {name: f"127.0.0.1:{port}" for name, port in zip(WAYS, ports[len(names) :], strict=True)}
    advertised = {**ends, "NODES": own["NODES"]}
    config = {
        "listeners": ",".join(f"{name}://{address}" for name, address in own.items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
        "inter.broker.listener.name": "NODES",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@{own['CONTROLLER']}",
    }
    with EmbeddedBroker(ports[0], config=config):
        yield Ways(own, ends)


@pytest.mark.parametrize("last", range(1, 9))
def test_whichever_question_a_broker_goes_with_the_start_goes_on(
    ways: Ways, tmp_path: Path, last: int
) -> None:
    asked = itertools.count(1)
    cables: dict[str, Cable] = {}

    def gone_with_the_last(way: str, piece: bytes) -> None:
        if piece[4:6] == METADATA and next(asked) == last:
            cables[way].close()

    config = tmp_path / "kafka.config"
    config.write_text(f"bootstrap.servers = {','.join(ways.ends.values())}\n")
    topic = f"requests-{uuid4().hex}"

    with ExitStack() as stack:
        for way in WAYS:
            port = int(ways.ends[way].rpartition(":")[2])
            cables[way] = stack.enter_context(Cable(ways.own[way], port))
            cables[way].watch = partial(gone_with_the_last, way)
        bus = stack.enter_context(connect("kafka", config, topics=[topic]))
        inbox = bus.inbox(topic)
        bus.publish(Message(topic, b"told"))

        received = inbox.receive(1, 20.0)

    assert [each.value for each in received] == [b"told"]
    assert next(asked) > last  # so one was lost


class Held:
    """A client whose first question is held for a broker that is gone, for all of the question's time.

    In librdkafka that takes a broker that is killed between the moments in which it is chosen and is sent the question.
    """

    def __init__(self) -> None:
        self.questions = 0
        self.ended = threading.Event()

    def list_topics(self, topic: str | None = None, timeout: float = -1.0) -> SimpleNamespace:
        self.questions += 1
        if self.questions == 1:
            self.ended.wait(timeout)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        found = SimpleNamespace(error=None, partitions={0: None, 1: None})
        return SimpleNamespace(topics={topic or "requests": found}, brokers={})

    def poll(self, timeout: float) -> None:
        pass


@pytest.fixture
def held() -> Iterator[Held]:
    client = Held()
    yield client
    client.ended.set()


def test_a_question_for_a_topic_goes_to_another_broker_long_before_its_time(held: Held) -> None:
    assert partitions_of(held, "requests", LONG) == [0, 1]  # type: ignore[arg-type]


def test_a_question_for_the_cluster_goes_to_another_broker_beside_the_first(
    held: Held, tmp_path: Path
) -> None:
    config = tmp_path / "kafka.config"
    config.write_text("bootstrap.servers = 127.0.0.1:1\n")

    assert Connection(read_settings(config)).connect(held) == {"requests"}  # type: ignore[arg-type]
    assert not held.ended.is_set()
