"""The contract of a bus, tried on each of them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from imagebus.batching import fill
from imagebus.client import Client
from imagebus.errors import ConnectionFailed, TooLarge, TransportError
from imagebus.transports.base import Bus, Inbox, Member
from imagebus.transports.kafka import KafkaBus
from imagebus.transports.kafka.config import read_settings
from imagebus.transports.kafka.partitions import begun
from imagebus.transports.memory import MemoryBroker, MemoryBus
from imagebus.transports.pubsub import PubSubBus
from imagebus.transports.pubsub.account import read_service_account
from imagebus.wire.message import Message, Position
from imagebus.wire.results import Reply

from .fakes import package

TOO_LARGE_BYTES = 12_000_000  # for any of the buses
SECONDS = 60.0  # a rebalance on a busy machine; a test that needs all of it has failed


class Buses:
    """Connections to one bus, with one topic of its own; all are closed after the test."""

    def __init__(
        self, connect: Callable[[str], Bus], die: Callable[[Bus, str], None], fail: Callable[[Bus], None]
    ) -> None:
        self.topic = f"contract-{uuid.uuid4().hex[:8]}"
        self.fail_for_good = fail
        self._connect = connect
        self._die = die
        self._open: list[Bus] = []

    def connect(self) -> Bus:
        bus = self._connect(self.topic)
        self._open.append(bus)
        return bus

    def member(self, group: str = "group") -> Member:
        return self.connect().join(self.topic, group)

    def inbox(self) -> Inbox:
        return self.connect().inbox(self.topic)

    def send(self, *values: bytes) -> None:
        with self._connect(self.topic) as bus:
            for value in values:
                bus.publish(self.message(value))

    def message(self, value: bytes) -> Message:
        return Message(self.topic, value, key=b"key", headers=[("name", b"value"), ("none", None)])

    def let_a_member_die(self, in_hand: int) -> None:
        bus = self.connect()
        receive(bus.join(self.topic, "group"), in_hand)
        self._die(bus, self.topic)

    def close(self) -> None:
        for bus in self._open:
            bus.close()


def die_in_memory(bus: Bus, _: str) -> None:
    assert isinstance(bus, MemoryBus)
    bus.die()


def die_on_pubsub(bus: Bus, _: str) -> None:
    bus.close()  # Pub/Sub does not ask why a message came back


def die_on_kafka(bus: Bus, topic: str, bootstrap: str) -> None:
    """Leave what a member leaves that is killed: it has not said that it gave its partitions back."""
    bus.close()
    left = [TopicPartition(topic, number, 0, begun(1)) for number in (0, 1)]
    group = Consumer({"bootstrap.servers": bootstrap, "group.id": "group"})
    group.commit(offsets=left, asynchronous=False)
    group.close()


def fail_in_memory(bus: Bus) -> None:
    assert isinstance(bus, MemoryBus)
    bus.broker.fail_for_good(ConnectionFailed("the login is refused"))


def fail_on_kafka(bus: Bus) -> None:
    """Tell it as librdkafka does, which calls from inside whichever call is made next."""
    assert isinstance(bus, KafkaBus)
    bus._connection._on_error(KafkaError(KafkaError._AUTHENTICATION))


def fail_on_pubsub(bus: Bus) -> None:
    """Delete what its inbox reads."""
    assert isinstance(bus, PubSubBus)
    for inbox in bus._inboxes:
        bus._clients.subscriber.delete_subscription(subscription=inbox.subscription.name)


@pytest.fixture(params=["memory", "kafka", "pubsub", "pubsub-stream"])
def buses(request: pytest.FixtureRequest) -> Iterator[Buses]:
    if request.param == "memory":
        memory = MemoryBroker()
        memory.max_message_bytes.default_factory = lambda: TOO_LARGE_BYTES // 2
        buses = Buses(lambda _: MemoryBus(memory), die_in_memory, fail_in_memory)
    elif request.param.startswith("pubsub"):  # the emulator is asked, the service is read on a stream
        account = read_service_account(request.getfixturevalue("google_config"))
        stream = request.param == "pubsub-stream"
        buses = Buses(
            # It counts for those who have a topic for dead letters.
            lambda topic: PubSubBus(account, topics=[topic, f"{topic}.dlt"], stream=stream),
            die_on_pubsub,
            fail_on_pubsub,
        )
    else:
        config = request.getfixturevalue("config")
        settings = read_settings(config)
        buses = Buses(
            lambda topic: KafkaBus(settings, topics=[topic], partitions=2),
            partial(die_on_kafka, bootstrap=settings["bootstrap.servers"]),
            fail_on_kafka,
        )
    yield buses
    buses.close()


def receive(reader: Inbox | Member, count: int) -> list[Message]:
    """`count` messages, whatever number of calls they take."""
    messages: list[Message] = []
    deadline = time.monotonic() + SECONDS
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages came"
        messages += reader.receive(count - len(messages), 0.2)
    return messages


def values(messages: list[Message]) -> list[bytes]:
    return sorted(message.value for message in messages)


def test_a_message_arrives_whole(buses: Buses) -> None:
    inbox = buses.inbox()

    buses.send(b"\x00\xff")
    (message,) = receive(inbox, 1)

    assert (message.topic, message.value, message.key) == (buses.topic, b"\x00\xff", b"key")
    assert list(message.headers) == [("name", b"value"), ("none", None)]


def test_an_inbox_gets_everything_from_now_on_and_nothing_older(buses: Buses) -> None:
    buses.send(b"old")
    first, second = buses.inbox(), buses.inbox()

    buses.send(b"new")

    assert values(receive(first, 1)) == values(receive(second, 1)) == [b"new"]


def test_a_new_group_starts_at_the_oldest_message(buses: Buses) -> None:
    buses.send(b"1", b"2")

    member = buses.member()

    assert values(receive(member, 2)) == [b"1", b"2"]


def test_receive_returns_what_is_there_without_waiting_for_more(buses: Buses) -> None:
    member = buses.member()
    buses.send(b"only")

    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(member.receive, 100, 2 * SECONDS).result(timeout=SECONDS)

    assert values(received) == [b"only"]


def test_receive_gives_an_empty_list_when_nothing_comes(buses: Buses) -> None:
    member = buses.member()

    assert member.receive(1, 0.01) == []


def test_receive_keeps_to_its_limit(buses: Buses) -> None:
    member = buses.member()
    buses.send(*(b"%d" % number for number in range(10)))

    batches: list[list[Message]] = []
    while sum(map(len, batches)) < 10:
        batches.append(member.receive(3, 0.2))

    assert max(map(len, batches)) <= 3


def test_committed_messages_do_not_come_again_to_the_group(buses: Buses) -> None:
    buses.send(b"1", b"2")
    with buses.connect() as bus:
        member = bus.join(buses.topic, "group")
        member.commit(receive(member, 2)).result()

    buses.send(b"3")
    successor = buses.member()

    assert values(receive(successor, 1)) == [b"3"]
    assert successor.receive(1, 0.2) == []


def test_a_commit_of_some_messages_marks_no_others(buses: Buses) -> None:
    buses.send(*(b"%d" % number for number in range(8)))
    with buses.connect() as bus:
        member = bus.join(buses.topic, "group")
        received = receive(member, 8)
        member.commit(received[6:]).result()
        member.commit(received[:3]).result()
        member.commit(received[:2]).result()  # again

    successor, came = buses.member(), list[bytes]()
    deadline = time.monotonic() + SECONDS
    while not {message.value for message in received[3:6]} <= set(came) and time.monotonic() < deadline:
        came += values(successor.receive(8, 0.2))

    assert {message.value for message in received[3:6]} <= set(came)
    assert not {message.value for message in received[:3]} & set(came)


def test_a_bounded_member_ends_at_what_is_there_where_the_bus_can_tell(buses: Buses) -> None:
    buses.send(*(b"%d" % number for number in range(8)))
    member = buses.connect().join(buses.topic, "group", bounded=True)
    came: list[Message] = []

    deadline = time.monotonic() + SECONDS
    while not member.at_end and len(came) < 8 + (member.at_end is not None) and time.monotonic() < deadline:
        came += member.receive(8, 0.2)
    buses.send(b"behind")
    behind = member.receive(1, 2.0)

    assert values(came) == [b"%d" % number for number in range(8)]
    assert bool(member.at_end) == (behind == [])


def test_messages_that_were_not_committed_come_again(buses: Buses) -> None:
    buses.send(b"1", b"2")
    with buses.connect() as bus:
        receive(bus.join(buses.topic, "group"), 2)

    successor = buses.member()

    assert values(receive(successor, 2)) == [b"1", b"2"]


def test_each_group_gets_every_message(buses: Buses) -> None:
    buses.send(b"1")

    one, other = buses.member("one"), buses.member("other")

    assert values(receive(one, 1)) == values(receive(other, 1)) == [b"1"]


def test_two_members_of_a_group_share_its_messages(buses: Buses) -> None:
    members = [buses.member(), buses.member()]
    buses.send(*(b"%02d" % number for number in range(20)))
    seen: list[bytes] = []
    lock = threading.Lock()

    def serve(member: Member) -> None:
        deadline = time.monotonic() + SECONDS
        while len(seen) < 20 and time.monotonic() < deadline:
            batch = member.receive(4, 0.1)
            member.commit(batch).result()
            with lock:
                seen.extend(message.value for message in batch)

    threads = [threading.Thread(target=serve, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # A member that joins late may be handed what its neighbour had in its hands: at least once.
    assert sorted(set(seen)) == [b"%02d" % number for number in range(20)]


def test_commit_returns_when_the_outgoing_messages_exist(buses: Buses) -> None:
    buses.send(b"request")
    member, inbox = buses.member(), buses.inbox()
    received = receive(member, 1)

    member.commit(received, [buses.message(b"reply")]).result()

    assert values(receive(inbox, 1)) == [b"reply"]


def test_a_delivery_is_reported_once(buses: Buses) -> None:
    reports: list[TransportError | Position | None] = []

    with buses.connect() as bus:
        inbox = bus.inbox(buses.topic)
        bus.publish(buses.message(b"1"), reports.append)
        (received,) = receive(inbox, 1)

    (report,) = reports
    assert report in (received.position, None)  # Pub/Sub tells no position before a message is received


def test_close_can_be_called_twice_and_sends_what_is_queued(buses: Buses) -> None:
    inbox, sender = buses.inbox(), buses.connect()
    sender.publish(buses.message(b"last"))

    sender.close()
    sender.close()

    assert values(receive(inbox, 1)) == [b"last"]


def test_a_closed_bus_takes_and_gives_nothing_more(buses: Buses) -> None:
    buses.send(b"1")
    bus = buses.connect()
    member, inbox = bus.join(buses.topic, "group"), bus.inbox(buses.topic)
    received = receive(member, 1)
    bus.close()

    for call in (
        lambda: member.receive(1, 0),
        lambda: inbox.receive(1, 0),
        lambda: member.commit(received, [buses.message(b"late")]).result(),
        lambda: bus.publish(buses.message(b"late")),
    ):
        with pytest.raises(TransportError, match="closed"):
            call()


def test_on_assigned_is_told_the_partitions(buses: Buses) -> None:
    told: list[list[int]] = []

    member = buses.connect().join(buses.topic, "group", lambda partitions: told.append(list(partitions)))
    assert told == []  # not before the caller has what it needs to answer
    buses.send(b"1")
    receive(member, 1)

    assert list(member.partitions or ()) == told[-1]
    assert told[-1] in ([0], [0, 1])  # the memory bus has one partition, Kafka's topic two


def test_what_is_rewound_comes_again_in_order(buses: Buses) -> None:
    buses.send(*(b"%d" % number for number in range(5)))
    member = buses.member()
    first = receive(member, 5)

    member.rewind()

    assert values(receive(member, 5)) == values(first)


def test_an_outcome_that_is_too_large_is_replaced_until_it_fits(buses: Buses) -> None:
    buses.send(b"1", b"2")
    inbox, member = buses.inbox(), buses.member()
    received = receive(member, 2)
    outgoing = [buses.message(b"small"), buses.message(bytes(TOO_LARGE_BYTES))]
    smaller = [bytes(TOO_LARGE_BYTES), b"smaller"]
    asked: list[int] = []

    def instead(place: int) -> Message:
        asked.append(place)
        return buses.message(smaller.pop(0))

    member.commit(received, outgoing, instead).result()

    assert asked == [1, 1]
    assert values(receive(inbox, 2)) == [b"small", b"smaller"]


def test_without_anything_smaller_an_outcome_that_is_too_large_is_an_error(buses: Buses) -> None:
    buses.send(b"1")
    member = buses.member()
    received = receive(member, 1)

    commit = member.commit(received, [buses.message(bytes(TOO_LARGE_BYTES))])

    with pytest.raises(TooLarge):
        commit.result()


def test_what_knows_nothing_smaller_tells_the_caller(buses: Buses) -> None:
    buses.send(b"1")
    member = buses.member()
    received = receive(member, 1)

    def instead(_: int) -> Message:
        raise LookupError("nothing is small enough")

    commit = member.commit(received, [buses.message(bytes(TOO_LARGE_BYTES))], instead)

    with pytest.raises(LookupError, match="nothing is small enough"):
        commit.result()


def test_suspects_are_given_out_beside_nothing_else_however_long_a_batch_waits(buses: Buses) -> None:
    suspects = {b"%d" % number for number in range(20)}
    buses.send(*suspects)
    buses.let_a_member_die(in_hand=20)
    member = buses.member()

    batches: list[list[Message]] = []
    deadline = time.monotonic() + SECONDS
    while sum(map(len, batches)) < 21 and time.monotonic() < deadline:
        batch = fill(member.receive, 128, 0.1)
        if not batch:
            continue
        if not batches:
            buses.send(b"new")
        if batch[0].attempt > 1:
            assert member.receive(128, SECONDS) == []
        member.commit(batch).result()
        batches.append(batch)

    assert {message.value for batch in batches for message in batch} == {*suspects, b"new"}
    attempts = [{message.attempt for message in batch} for batch in batches]
    assert max(map(len, attempts)) == 1
    assert attempts[0] == {2}


def test_a_failure_for_good_is_one_and_every_caller_learns_of_it(buses: Buses) -> None:
    bus = buses.connect()
    futures: list[Future[Reply]] = []
    raised: list[str] = []
    over = threading.Event()

    def submit() -> None:
        while not over.wait(0.001):
            try:
                futures.append(client.submit(package(1)))
            except TransportError as error:
                raised.append(str(error))
                return

    with Client(bus, requests=buses.topic, replies=buses.topic) as client:
        callers = [threading.Thread(target=submit) for _ in range(4)]
        for caller in callers:
            caller.start()
        buses.fail_for_good(bus)
        for caller in callers:
            caller.join(SECONDS)
        over.set()
        client._reader.join(SECONDS)

        assert len(raised) == 4
        assert set(raised) == {str(client.failure)}
        assert {str(future.exception(SECONDS)) for future in futures} <= {str(client.failure)}
