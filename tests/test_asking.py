"""A broker that is lost with a question which it took holds nobody up: another one is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException

from imagebus.broker import EmbeddedBroker
from imagebus.broker.ports import free_ports
from imagebus.errors import TransportError
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
# What happens to a broker, and the numbers of the question at which it does; a start takes some twenty.
FATES = [
    *(pytest.param("gone", last) for last in range(1, 25, 2)),
    *(pytest.param("frozen", last, marks=pytest.mark.full) for last in range(2, 25, 3)),
]


@dataclass(frozen=True)
class Ways:
    """To one broker, as if it were two: for the client that has lost one way the other is another broker."""

    own: dict[str, str]
    ends: dict[str, str]

    def config(self, folder: Path) -> Path:
        path = folder / "kafka.config"
        path.write_text(f"bootstrap.servers = {','.join(self.ends.values())}\n")
        return path


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


@contextmanager
def lost_at(ways: Ways, fate: str, last: int) -> Iterator[list[int]]:
    """The ways, one of which is lost at the question of that number; yields the kinds of the questions so far."""
    asked: list[int] = []
    cables: dict[str, Cable] = {}
    thawed = {way: threading.Event() for way in WAYS}
    for event in thawed.values():
        event.set()

    def watch(way: str, piece: bytes) -> None:
        thawed[way].wait()
        kind = int.from_bytes(piece[4:6])
        if kind:  # in an answer, the upper half of a small number
            asked.append(kind)
            if len(asked) == last and fate == "gone":
                cables[way].close()
            elif len(asked) == last:
                thawed[way].clear()
                thawed[way].wait()

    with ExitStack() as stack:
        for way, end in ways.ends.items():
            cables[way] = stack.enter_context(Cable(ways.own[way], int(end.rpartition(":")[2])))
            cables[way].watch = partial(watch, way)
            stack.callback(thawed[way].set)
        yield asked


@pytest.mark.parametrize(("fate", "last"), FATES)
def test_whichever_question_a_broker_is_lost_with_a_requestor_starts(
    ways: Ways, tmp_path: Path, fate: str, last: int
) -> None:
    topic = f"requests-{uuid4().hex}"

    with lost_at(ways, fate, last) as asked, connect("kafka", ways.config(tmp_path), topics=[topic]) as bus:
        inbox = bus.inbox(topic)
        bus.publish(Message(topic, b"told"))
        received = inbox.receive(1, LONG)

    assert [each.value for each in received] == [b"told"]
    assert len(asked) > last


@pytest.mark.parametrize("exactly_once", [False, True])
@pytest.mark.parametrize(("fate", "last"), FATES)
def test_whichever_question_a_broker_is_lost_with_a_replier_starts(
    ways: Ways, tmp_path: Path, fate: str, last: int, exactly_once: bool
) -> None:
    topic = f"requests-{uuid4().hex}"
    own = topic if exactly_once else None

    with (
        lost_at(ways, fate, last) as asked,
        connect("kafka", ways.config(tmp_path), topics=[topic], transactional_id=own) as bus,
    ):
        member = bus.join(topic, topic)
        bus.publish(Message(topic, b"asked"))
        received: list[Message] = []
        deadline = time.monotonic() + LONG
        while not received:
            assert time.monotonic() < deadline
            received = member.receive(1, 1.0)
        member.commit(received, [Message(topic, b"answered")]).result()

    assert [each.value for each in received] == [b"asked"]
    assert len(asked) > last


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


def test_brokers_that_go_right_after_they_created_the_topics_are_one_line(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagebus.transports.kafka.topics.TOPIC_SECONDS", 0.1)
    monkeypatch.setattr("imagebus.transports.kafka.topics._create", lambda *_: [])
    topic = f"requests-{uuid4().hex}"

    def gone(*_: object) -> None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr("imagebus.transports.kafka.topics._describe", gone)

    with pytest.raises(TransportError, match=f"creating topics {topic}: "):
        connect("kafka", config, topics=[topic])
