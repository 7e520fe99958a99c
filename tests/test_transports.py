"""The contract of a transport, tried on each of them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from imagebus.config import read_settings
from imagebus.errors import TransportError
from imagebus.service_account import read_service_account
from imagebus.transports.base import Transport
from imagebus.transports.kafka import KafkaTransport
from imagebus.transports.memory import MemoryBus, MemoryTransport
from imagebus.transports.pubsub import PubSubTransport
from imagebus.wire.message import Message

SECONDS = 30.0  # a rebalance on a busy machine; a test that needs all of it has failed


class Bus:
    """One bus with one topic of its own: opens clients of it, and closes them after the test."""

    def __init__(self, connect: Callable[[str], Transport]) -> None:
        self.topic = f"contract-{uuid.uuid4().hex[:8]}"
        self._connect = connect
        self._clients: list[Transport] = []

    def client(self) -> Transport:
        client = self._connect(self.topic)
        self._clients.append(client)
        return client

    def member(self, group: str = "group") -> Transport:
        client = self.client()
        client.subscribe(self.topic, group)
        return client

    def inbox(self) -> Transport:
        client = self.client()
        client.subscribe(self.topic)
        return client

    def send(self, *values: bytes) -> None:
        with self._connect(self.topic) as client:
            for value in values:
                client.publish(self.message(value))

    def message(self, value: bytes) -> Message:
        return Message(self.topic, value, key=b"key", headers=[("name", b"value"), ("none", None)])

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(params=["memory", "kafka", "pubsub", "pubsub-stream"])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    if request.param == "memory":
        memory = MemoryBus()
        bus = Bus(lambda _: MemoryTransport(memory))
    elif request.param.startswith("pubsub"):  # the emulator is asked, the service is read on a stream
        account = read_service_account(request.getfixturevalue("google_config"))
        stream = request.param == "pubsub-stream"
        bus = Bus(lambda topic: PubSubTransport(account, topics=[topic], stream=stream))
    else:
        config = request.getfixturevalue("config")
        bus = Bus(lambda topic: KafkaTransport(read_settings(config), topics=[topic], partitions=2))
    yield bus
    bus.close()


def receive(transport: Transport, count: int) -> list[Message]:
    """`count` messages, whatever number of calls they take."""
    messages: list[Message] = []
    deadline = time.monotonic() + SECONDS
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages came"
        messages += transport.receive(count - len(messages), 0.2)
    return messages


def values(messages: list[Message]) -> list[bytes]:
    return sorted(message.value for message in messages)


def test_a_message_arrives_whole(bus: Bus) -> None:
    inbox = bus.inbox()

    bus.send(b"\x00\xff")
    (message,) = receive(inbox, 1)

    assert (message.topic, message.value, message.key) == (bus.topic, b"\x00\xff", b"key")
    assert list(message.headers) == [("name", b"value"), ("none", None)]


def test_an_inbox_gets_everything_from_now_on_and_nothing_older(bus: Bus) -> None:
    bus.send(b"old")
    first, second = bus.inbox(), bus.inbox()

    bus.send(b"new")

    assert values(receive(first, 1)) == values(receive(second, 1)) == [b"new"]


def test_a_new_group_starts_at_the_oldest_message(bus: Bus) -> None:
    bus.send(b"1", b"2")

    member = bus.member()

    assert values(receive(member, 2)) == [b"1", b"2"]


def test_receive_returns_what_is_there_without_waiting_for_more(bus: Bus) -> None:
    member = bus.member()
    bus.send(b"only")

    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(member.receive, 100, 2 * SECONDS).result(timeout=SECONDS)

    assert values(received) == [b"only"]


def test_receive_gives_an_empty_list_when_nothing_comes(bus: Bus) -> None:
    member = bus.member()

    assert member.receive(1, 0.01) == []


def test_receive_keeps_to_its_limit(bus: Bus) -> None:
    member = bus.member()
    bus.send(*(b"%d" % number for number in range(10)))

    batches: list[list[Message]] = []
    while sum(map(len, batches)) < 10:
        batches.append(member.receive(3, 0.2))

    assert max(map(len, batches)) <= 3


def test_committed_messages_do_not_come_again_to_the_group(bus: Bus) -> None:
    bus.send(b"1", b"2")
    member = bus.member()
    member.commit(receive(member, 2))
    member.close()

    bus.send(b"3")
    successor = bus.member()

    assert values(receive(successor, 1)) == [b"3"]
    assert successor.receive(1, 0.2) == []


def test_messages_that_were_not_committed_come_again(bus: Bus) -> None:
    bus.send(b"1", b"2")
    member = bus.member()
    receive(member, 2)
    member.close()

    successor = bus.member()

    assert values(receive(successor, 2)) == [b"1", b"2"]


def test_each_group_gets_every_message(bus: Bus) -> None:
    bus.send(b"1")

    one, other = bus.member("one"), bus.member("other")

    assert values(receive(one, 1)) == values(receive(other, 1)) == [b"1"]


def test_two_members_of_a_group_share_its_messages(bus: Bus) -> None:
    members = [bus.member(), bus.member()]
    bus.send(*(b"%02d" % number for number in range(20)))
    seen: list[bytes] = []
    lock = threading.Lock()

    def serve(member: Transport) -> None:
        deadline = time.monotonic() + SECONDS
        while len(seen) < 20 and time.monotonic() < deadline:
            batch = member.receive(4, 0.1)
            member.commit(batch)
            with lock:
                seen.extend(message.value for message in batch)

    threads = [threading.Thread(target=serve, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # A member that joins late may be handed what its neighbour had in its hands: at least once.
    assert sorted(set(seen)) == [b"%02d" % number for number in range(20)]


def test_commit_returns_when_the_outgoing_messages_exist(bus: Bus) -> None:
    bus.send(b"request")
    member, inbox = bus.member(), bus.inbox()
    received = receive(member, 1)

    member.commit(received, [bus.message(b"reply")])

    assert values(receive(inbox, 1)) == [b"reply"]


def test_a_delivery_is_reported_once(bus: Bus) -> None:
    client = bus.inbox()
    reports: list[TransportError | None] = []

    client.publish(bus.message(b"1"), reports.append)
    receive(client, 1)
    client.close()

    assert reports == [None]


def test_close_can_be_called_twice_and_sends_what_is_queued(bus: Bus) -> None:
    inbox, sender = bus.inbox(), bus.client()
    sender.publish(bus.message(b"last"))

    sender.close()
    sender.close()

    assert values(receive(inbox, 1)) == [b"last"]


def test_receive_before_subscribe_is_an_error(bus: Bus) -> None:
    client = bus.client()

    with pytest.raises(TransportError, match="before subscribe"):
        client.receive(1, 0)


def test_on_assigned_is_told_the_partitions(bus: Bus) -> None:
    told: list[list[int]] = []
    client = bus.client()

    client.subscribe(bus.topic, "group", on_assigned=lambda partitions: told.append(list(partitions)))
    bus.send(b"1")
    receive(client, 1)

    assert told[-1] in ([0], [0, 1])  # the memory bus has one partition, Kafka's topic two
