"""What is promised when something goes wrong, one case at a time, on real Kafka with real processes.

The same under load, with three brokers and a ledger, is in `tests/faults`.
"""

from __future__ import annotations

import itertools
import signal
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # it does export them

from imagebus import (
    Client,
    CommitFailed,
    Message,
    RequestFailed,
    TooLarge,
    TransportError,
    connect,
    load_images,
)
from imagebus.broker import EmbeddedBroker
from imagebus.transports.base import Member
from imagebus.transports.kafka import KafkaBus, transactions
from imagebus.transports.kafka.config import read_settings
from imagebus.transports.kafka.member import KafkaMember
from imagebus.transports.kafka.outgoing import OutgoingBatch
from imagebus.transports.kafka.partitions import FEW
from imagebus.transports.kafka.sender import OnRecord, enqueue
from imagebus.transports.kafka.transactions import ExactlyOnce
from imagebus.wire.message import Position
from imagebus.wire.pixels import encode_request

from .buses import Bus, read_topic, records
from .programs import Program, python, wait_until

SECONDS = 60.0


def package(number: int = 0, size: int = 5) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return load_images().package(number, size)[0]


def produce(broker: EmbeddedBroker, topic: str, *messages: Message, partition: int = 0) -> None:
    """Messages in a partition, in this order, each confirmed."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
    for message in messages:
        producer.produce(topic, message.value, message.key, partition, headers=list(message.headers))
    assert producer.flush(SECONDS) == 0


def enqueue_slowly(producer: Producer, message: Message, delivered: OnRecord) -> None:
    """The brokers' answer to one message comes before the next is sent, as on a busy machine."""
    enqueue(producer, message, delivered)
    time.sleep(0.2)


def receive_all(member: Member, count: int) -> list[Message]:
    """So many messages, which are there or will come."""
    received: list[Message] = []
    while len(received) < count:
        received += member.receive(count - len(received), 1.0)
    return received


def ids(found: Sequence[tuple[bytes | None, bytes | None]]) -> list[str]:
    return sorted((key or b"").decode() for key, _ in found)


# --- poison and killers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "max_wait",
    [pytest.param("0", marks=pytest.mark.full), "50", pytest.param("1000", marks=pytest.mark.full)],
)
def test_a_record_that_kills_the_replier_is_set_aside_after_three_tries_however_long_batches_wait(
    bus: Bus, broker: EmbeddedBroker, max_wait: str
) -> None:
    with connect("kafka", bus.config, topics=[bus.requests, bus.replies, f"{bus.requests}.dlt"]):
        pass
    good = [encode_request(package(number), bus.requests, id=f"good-{number}") for number in range(200)]
    killer = encode_request(np.full((1, 28, 28), 66, np.uint8), bus.requests, id="killer")
    produce(broker, bus.requests, *good[:80], killer, *good[80:])

    deaths = 0
    while True:
        options = (*bus.serving(), "--verbose", "--max-wait", max_wait)
        replier = python("tests.faults.fragile", "killer", "66", *options)
        try:
            replier.wait_for("dead letter: KILLER")
        except AssertionError:
            assert replier.wait() == -signal.SIGKILL, replier
            deaths += 1
            assert deaths < 5, replier
            continue
        break
    wait_until(lambda: len(set(ids(records(broker, bus.replies)))) >= len(good))
    assert replier.stop() == 0

    assert deaths == 3
    assert ids(records(broker, f"{bus.requests}.dlt")) == ["killer"]
    assert set(ids(records(broker, bus.replies))) == {f"good-{number}" for number in range(200)}


def test_a_poison_message_behind_the_marker_of_a_transaction_is_set_aside_too(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    with connect("kafka", bus.config, topics=[bus.requests, bus.replies, f"{bus.requests}.dlt"]):
        pass
    sender = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"sender-{bus.requests}"})
    sender.init_transactions(SECONDS)
    poison = encode_request(np.full((1, 28, 28), 66, np.uint8), bus.requests, id="poison")
    for message in (encode_request(package(), bus.requests, id="before"), poison):
        sender.begin_transaction()  # each leaves a marker behind it, which has an offset and is no record
        sender.produce(bus.requests, message.value, message.key, 0, headers=list(message.headers))
        sender.commit_transaction(SECONDS)

    deaths = 0
    while not (letters := ids(records(broker, f"{bus.requests}.dlt"))):
        replier = python("tests.faults.fragile", "killer", "66", *bus.serving(), "--verbose")
        try:
            replier.wait_for("dead letter: KILLER")
        except AssertionError:
            deaths += 1
            assert replier.wait() == -signal.SIGKILL, replier
            assert deaths < 5, replier
            continue
        assert replier.stop() == 0

    assert deaths == 3
    assert letters == ["poison"]
    assert ids(records(broker, bus.replies)) == ["before"]


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_replies_that_are_too_large_for_their_topic_have_their_error_once_and_the_rest_flows_on(
    bus: Bus, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, guarantee: str
) -> None:
    # A machine that needs 20 s for this would have requests sent again, which are answered once more.
    monkeypatch.setattr("imagebus.pending.RESEND", (120.0, 120.0))
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    small = NewTopic(bus.replies, num_partitions=6, config={"max.message.bytes": "1000"})
    for created in admin.create_topics([small]).values():
        created.result()
    replier = bus.replier("--guarantee", guarantee)

    with bus.client() as client:
        futures = [client.submit(package(number, 20 if number % 50 == 0 else 1)) for number in range(500)]
        outcomes = [future.exception() for future in futures]  # by their time-out
    assert replier.stop() == 0

    assert [str(outcome)[:9] for outcome in outcomes[::50]] == ["TOO_LARGE"] * 10
    assert sum(outcome is None for outcome in outcomes) == 490
    assert len(records(broker, bus.replies)) == 500
    assert "500 requests, 690 images, 10 errors" in replier.wait_for("stopped: ")  # each predicted once


def test_dead_letters_carry_origin_and_reason_as_spring_writes_them(bus: Bus, broker: EmbeddedBroker) -> None:
    replier = bus.replier("--verbose")

    produce(broker, bus.requests, Message(bus.requests, b"x"), Message(bus.requests, b"y"), partition=3)
    replier.wait_for("dead letter: NO_ID", times=2)
    assert replier.stop() == 0

    with connect("kafka", bus.config) as connection:
        member = connection.join(f"{bus.requests}.dlt", "look")
        letters: list[Message] = []
        while len(letters) < 2:
            letters += member.receive(10, 1.0)
    headers = [dict(letter.headers) for letter in sorted(letters, key=lambda letter: letter.value)]
    assert headers[1]["dead_letter_code"] == b"NO_ID"
    assert headers[1]["kafka_dlt-original-topic"] == bus.requests.encode()
    assert headers[1]["kafka_dlt-original-partition"] == struct.pack(">i", 3)
    assert headers[1]["kafka_dlt-original-offset"] == struct.pack(">q", 1)
    assert headers[1]["kafka_dlt-original-consumer-group"] == bus.group.encode()
    assert headers[1]["kafka_dlt-original-timestamp-type"] == b"CreateTime"
    assert len(headers[1]["kafka_dlt-original-timestamp"] or b"") == 8


def test_dead_letters_are_sent_back_once_and_at_most_so_many_rounds(bus: Bus, broker: EmbeddedBroker) -> None:
    replier = bus.replier("--verbose")
    produce(broker, bus.requests, Message(bus.requests, b"who sent this?"))
    replier.wait_for("dead letter: NO_ID")

    def replay(*options: str) -> Program:
        program = bus.start("replier.py", "--replay-dlt", *options)
        assert program.wait() == 0, program
        return program

    dry_run = python("imagebus.replay", "-f", bus.config, "-t1", bus.requests, "--dry-run")
    assert dry_run.wait() == 0, dry_run
    assert "would send 1 back" in dry_run.wait_for("would send")
    assert "would send 1 back" in replay("--dry-run").wait_for("would send")
    assert "sent 0 back" in replay("--code", "KILLER").wait_for("sent 0")
    for round_ in (1, 2):
        assert "sent 1 back" in replay("--max-rounds", "2").wait_for("sent 1")
        replier.wait_for("dead letter: NO_ID", times=1 + round_)

    last = replay("--max-rounds", "2")

    assert "kept: it was sent back 2 times" in last.wait_for("kept: ")
    assert "sent 0 back" in last.wait_for("sent 0")
    assert replier.stop() == 0


def test_suspects_are_tried_apart_and_hold_nobody_up(bus: Bus, broker: EmbeddedBroker) -> None:
    with KafkaBus(read_settings(bus.config), topics=[bus.requests], partitions=2):
        pass
    for partition in (0, 1):
        produce(broker, bus.requests, *(Message(bus.requests, b"x") for _ in range(200)), partition=partition)
    twice = TopicPartition(bus.requests, 0, 0, "attempt=2")  # two members died with its first record
    Consumer({"bootstrap.servers": broker.bootstrap, "group.id": bus.group}).commit(
        offsets=[twice], asynchronous=False
    )
    batches: list[list[Message]] = []
    with KafkaBus(read_settings(bus.config)) as connection:
        member = connection.join(bus.requests, bus.group)
        deadline = time.monotonic() + SECONDS
        while sum(map(len, batches)) < 400 and time.monotonic() < deadline:
            if batch := member.receive(128, 1.0):
                member.commit(batch).result()
                batches.append(batch)

    where = [[(message.position or Position(-1, -1, 0))[:2] for message in batch] for batch in batches]
    attempts = [{message.attempt for message in batch} for batch in batches]
    assert sorted(place for batch in where for place in batch) == [(n, o) for n in (0, 1) for o in range(200)]
    assert [batch for batch, tried in zip(where, attempts, strict=True) if max(tried) > 1] == [
        [(0, offset)] for offset in range(FEW)
    ]
    assert sum(any(number == 1 for number, _ in batch) for batch in where) < FEW / 2


# --- where replies go --------------------------------------------------------------------------


def partitions_of(broker: EmbeddedBroker, topic: str) -> dict[str, int]:
    """By request id, where its reply was written."""
    found = read_topic(broker.bootstrap, topic)
    return {(record.key() or b"").decode(): cast(int, record.partition()) for record in found}


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_a_requestor_reads_the_one_partition_that_it_asked_its_replies_to_go_to(
    bus: Bus, broker: EmbeddedBroker, guarantee: str
) -> None:
    bus.replier("--guarantee", guarantee)
    with bus.client() as others:
        mine_only = connect("kafka", bus.config, topics=[bus.requests, bus.replies], own_partition=True)
        with Client(mine_only, requests=bus.requests, replies=bus.replies, timeout=SECONDS) as client:
            futures = [others.submit(package(number)) for number in range(20)]
            mine = [reply.id for reply in client.map(package(number) for number in range(20))]
            theirs = [future.result().id for future in futures]
    where = partitions_of(broker, bus.replies)

    assert len({where[id] for id in mine}) == 1
    assert len({where[id] for id in theirs}) > 1
    assert client.ignored["unknown"] == sum(where[id] == where[mine[0]] for id in theirs)


def test_the_script_takes_a_partition_of_its_own(bus: Bus, broker: EmbeddedBroker) -> None:
    bus.replier()
    requestor = bus.start("requestor.py", "--own-partition", "--count", "10", "--interval", "0")

    assert requestor.wait() == 0, requestor
    where = partitions_of(broker, bus.replies)
    assert len(where) == 10
    assert len(set(where.values())) == 1


@pytest.mark.parametrize(
    "wanted", [(6).to_bytes(4, "big"), b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"3", b"", b"\x00" * 5]
)
def test_a_wish_for_a_partition_that_is_not_there_holds_nobody_up(
    bus: Bus, broker: EmbeddedBroker, wanted: bytes
) -> None:
    bus.replier()
    request = encode_request(package(), bus.requests, id="wish")
    headers = [*request.headers, ("kafka_replyPartition", wanted)]
    produce(broker, bus.requests, request._replace(headers=headers))

    with bus.client() as client:
        assert client.predict(package())

    with connect("kafka", bus.config, topics=[bus.replies]) as reader:
        read_until(reader.join(bus.replies, f"readers-{bus.group}"), b"wish")


def read_until(member: Member, key: bytes) -> None:
    """Read until a message with this key comes."""
    deadline = time.monotonic() + SECONDS
    while not any(message.key == key for message in member.receive(100, 1.0)):
        assert time.monotonic() < deadline, f"no message with the key {key!r} came"


@pytest.mark.parametrize("reader", ["inbox", "member"])
def test_a_topic_that_a_broker_does_not_know_yet_is_waited_for(
    bus: Bus, broker: EmbeddedBroker, reader: str
) -> None:
    with KafkaBus(read_settings(bus.config)) as connection, ThreadPoolExecutor(1) as pool:
        if reader == "inbox":
            opening: Future[Any] = pool.submit(connection.inbox, bus.replies)
        else:
            opening = pool.submit(connection.join, bus.replies, bus.group)
        with pytest.raises(TimeoutError):
            opening.result(1.0)
        KafkaBus(read_settings(bus.config), topics=[bus.replies]).close()

        assert opening.result(SECONDS) is not None


def test_a_topic_that_is_missing_is_an_error_at_the_start(bus: Bus) -> None:
    with KafkaBus(read_settings(bus.config)) as connection:
        with pytest.raises(TransportError, match=f"reading topic '{bus.replies}': .*Unknown topic"):
            connection.inbox(bus.replies)
        with pytest.raises(TransportError, match=f"reading topic '{bus.requests}': .*Unknown topic"):
            connection.join(bus.requests, bus.group)


# --- the caller's side -------------------------------------------------------------------------


def test_the_copy_of_an_earlier_process_that_expired_decides_nothing(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    with bus.client() as client:
        produce(broker, bus.requests, encode_request(package(), bus.requests, id="asked-twice", deadline=1))
        future = client.submit(package(), id="asked-twice")
        bus.replier()

        assert future.result().id == "asked-twice"
        assert client.ignored == {"expired": 1}
        assert client.resent == 0


@pytest.mark.parametrize("seconds", [40, 1000])
def test_a_replier_whose_clock_is_ahead_answers_in_time(bus: Bus, seconds: int) -> None:
    fast = python("tests.faults.fragile", "fast-clock", str(seconds), *bus.serving())
    try:
        fast.wait_for(" ready: ")
        with bus.client() as client:
            replies = list(client.map(package(number) for number in range(300)))
    finally:
        fast.kill()

    assert len(replies) == 300
    assert client.resent <= 100  # those that were on their way when the first came back


def test_a_killed_requestor_asks_again_for_what_was_open_and_shows_each_once(
    bus: Bus, tmp_path: Path
) -> None:
    state = ("--state", str(tmp_path / "state"), "--json", "--interval", "0.02", "--timeout", "120")
    first = bus.start("requestor.py", *state)
    first.wait_for("waiting for a replier")
    first.send(signal.SIGKILL)
    first.wait()
    left_open = {
        orjson.loads(path.read_bytes().partition(b"\n")[0])["id"]
        for path in (tmp_path / "state").glob("*.open")
    }
    assert len(left_open) > 10

    bus.replier()
    second = bus.start("requestor.py", *state, "--count", "5")

    assert second.wait() == 0, second
    shown = [orjson.loads(line) for line in second.out]
    assert len(shown) == len(left_open) + 5
    assert left_open <= {each["id"] for each in shown}
    assert sorted(each["package"] for each in shown) == list(range(1, len(left_open) + 6))
    assert not list((tmp_path / "state").glob("*.open"))


def test_two_requestors_do_not_share_a_state_folder(bus: Bus, tmp_path: Path) -> None:
    bus.start("requestor.py", "--state", str(tmp_path)).wait_for("waiting")

    other = bus.start("requestor.py", "--state", str(tmp_path))

    assert other.wait() == 2
    assert "another requestor is using it" in other.wait_for("requestor.py: ")


def test_the_same_bytes_under_other_ids_and_the_same_id_again_go_to_the_right_callers(bus: Bus) -> None:
    bus.replier()
    images = package()

    with bus.client() as one, bus.client() as other:
        callers = {"a": one, "b": other}
        futures = {
            f"{name}-{n}": callers[name].submit(images, id=f"{name}-{n}") for n in range(10) for name in "ab"
        }
        replies = {id: future.result(SECONDS) for id, future in futures.items()}
        again = one.submit(images, id="a-0").result(SECONDS)
        still_open = other.submit(images, id="b-0")
        with pytest.raises(ValueError, match="open already"):
            other.submit(images, id="b-0")
        still_open.result(SECONDS)

    assert all(reply.id == id for id, reply in replies.items())
    assert again.predictions == replies["a-0"].predictions


def test_expired_work_is_answered_without_the_model(bus: Bus, broker: EmbeddedBroker) -> None:
    with bus.client() as client:
        late = encode_request(package(), bus.requests, id="late", deadline=1)
        produce(broker, bus.requests, late)
        replier = bus.replier("--verbose")
        replier.wait_for("refused late: EXPIRED")
        client.predict(package())

    assert replier.stop() == 0
    assert "2 requests, 5 images, 1 errors" in replier.wait_for("stopped: ")


# --- sizes -------------------------------------------------------------------------------------


def test_a_request_over_the_clients_limit_names_size_and_setting(bus: Bus, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow.config"
    narrow.write_text(f"{bus.config.read_text()}\nmessage.max.bytes = 100000\n")
    bus.config = narrow
    with (
        bus.client() as client,
        pytest.raises(TooLarge, match=r"sending 784000 bytes .*message\.max\.bytes"),
    ):
        client.predict(np.zeros((1000, 28, 28), np.uint8))


@pytest.mark.parametrize("options", [(), ("--guarantee", "exactly-once", "--name", "one")])
def test_a_reply_over_the_topics_limit_is_an_error_and_never_a_loop(
    bus: Bus, broker: EmbeddedBroker, options: tuple[str, ...]
) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    small = NewTopic(bus.replies, num_partitions=1, config={"max.message.bytes": "2000"})
    admin.create_topics([small])[bus.replies].result()
    replier = bus.replier(*options)

    with bus.client() as client:
        with pytest.raises(RequestFailed, match="TOO_LARGE: the reply is larger"):
            client.predict(package(0, 100))
        predictions = client.predict(package(0, 2))

    assert len(predictions) == 2
    assert replier.stop() == 0


@pytest.mark.parametrize("options", [(), ("--guarantee", "exactly-once", "--name", "one")])
def test_requests_and_replies_that_fit_the_topic_alone_arrive_however_many_wait(
    bus: Bus, broker: EmbeddedBroker, options: tuple[str, ...]
) -> None:
    """A broker refuses a batch over its topic's limit as a whole, and librdkafka makes batches of up to 1 MB."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for topic, limit in ((bus.requests, "4000"), (bus.replies, "1150")):
        small = NewTopic(topic, num_partitions=1, config={"max.message.bytes": limit})
        admin.create_topics([small])[topic].result()

    with bus.client() as client:
        waiting = [client.submit(package(number, 3)) for number in range(40)]
        too_large = client.submit(package(40, 4), top=10)
        replier = bus.replier(*options)
        replies = [future.result(60) for future in waiting]
        with pytest.raises(RequestFailed, match="TOO_LARGE"):
            too_large.result(60)

    assert [len(reply.predictions) for reply in replies] == [3] * 40
    assert replier.stop() == 0


def test_a_dead_letter_over_its_topics_limit_tells_where_the_message_stands(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    letters = f"{bus.requests}.dlt"
    small = NewTopic(letters, num_partitions=1, config={"max.message.bytes": "1000"})
    admin.create_topics([small])[letters].result()
    replier = bus.replier("--verbose")

    produce(broker, bus.requests, Message(bus.requests, bytes(2000), key=b"its key"))
    replier.wait_for("dead letter: BAD_ID")

    assert replier.stop() == 0
    (letter,) = read_topic(broker.bootstrap, letters)
    assert not letter.value()
    assert letter.key() is None
    headers = dict(letter.headers() or [])
    assert headers["dead_letter_code"] == b"BAD_ID"
    assert headers["dead_letter_cut"] == b"2000"


# --- exactly once ------------------------------------------------------------------------------


@pytest.mark.full
def test_aborted_work_is_never_seen_and_nothing_is_repeated_after_twenty_kills(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    # Twenty members die without a word: the group misses each sooner than the default of six seconds.
    with bus.config.open("a") as config:
        config.write("session.timeout.ms = 1500\nheartbeat.interval.ms = 300\n")
    exactly_once = ("--guarantee", "exactly-once", "--name", "one")
    points = itertools.cycle(["before-produce", "after-produce", "after-commit"])

    with bus.client() as client:
        futures = []
        for kill in range(20):
            futures += [client.submit(package(number)) for number in range(5)]
            fragile = python("tests.faults.fragile", next(points), "1", *bus.serving(), *exactly_once)
            if kill % 5 == 4:  # let one of them live now and then, so that there is progress to disturb
                fragile.kill()
                continue
            assert fragile.wait() == -signal.SIGKILL, fragile
        survivor = bus.replier(*exactly_once)
        answers = [future.result(4 * SECONDS) for future in futures]
        asked_again = client.resent

    assert survivor.stop() == 0
    assert len({answer.id for answer in answers}) == 100
    replies = records(broker, bus.replies)
    assert len(replies) <= 100 + asked_again
    assert len(set(replies)) == 100
    assert hanging(broker, bus.replies) == 0


def hanging(broker: EmbeddedBroker, topic: str) -> int:
    """Records above the last stable offset: of transactions that nobody ended."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # it has no annotations
    wanted = {
        TopicPartition(topic, number): latest for number in admin.list_topics(topic).topics[topic].partitions
    }

    def total(level: IsolationLevel) -> int:
        answers = admin.list_offsets(wanted, isolation_level=level).values()
        return sum(answer.result().offset for answer in answers)

    return total(IsolationLevel.READ_UNCOMMITTED) - total(IsolationLevel.READ_COMMITTED)


def test_a_transaction_whose_offsets_are_never_added_is_aborted_and_its_batch_answered_once(
    bus: Bus, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck:
        """A producer as librdkafka's is when the group's coordinator went away (its issue 5456)."""

        def __init__(self, producer: Producer) -> None:
            self._producer = producer

        def __getattr__(self, name: str) -> object:
            return getattr(self._producer, name)

        def send_offsets_to_transaction(self, *_: object) -> None:
            threading.Event().wait()

    monkeypatch.setattr("imagebus.transports.kafka.transactions.ADDING_SECONDS", 1.0)
    settings = read_settings(bus.config)
    topics = [bus.requests, bus.replies]
    with KafkaBus(settings, topics=topics, partitions=1, transactional_id="stuck") as connection:
        delivery = connection._delivery
        assert isinstance(delivery, ExactlyOnce)
        delivery._producer = cast(Producer, Stuck(delivery._producer))
        member = connection.join(bus.requests, bus.group)
        connection.publish(Message(bus.requests, b"request"))
        received = receive_one(member)
        with pytest.raises(CommitFailed, match="were not added in time"):
            member.commit(received, [Message(bus.replies, b"reply")]).result()
        member.rewind()

        again = receive_one(member)
        member.commit(again, [Message(bus.replies, b"reply")]).result()

    assert [message.value for message in again] == [b"request"]
    assert [value for _, value in records(broker, bus.replies)] == [b"reply"]


def receive_one(member: KafkaMember) -> list[Message]:
    deadline = time.monotonic() + SECONDS
    while not (received := member.receive(1, 0.2)):
        assert time.monotonic() < deadline
    return received


def test_of_two_repliers_with_one_name_the_older_is_told_what_to_change(bus: Bus) -> None:
    exactly_once = ("--guarantee", "exactly-once", "--name", "twin")
    older = bus.replier(*exactly_once)
    newer = bus.start("replier.py", *exactly_once)
    newer.wait_for("ready: ")

    with bus.client() as client:
        list(client.map(package(number) for number in range(50)))

    assert older.wait() == 1
    assert "another replier has the same transactional id" in older.wait_for("replier.py: ")
    assert "--name" in older.wait_for("replier.py: ")
    assert newer.stop() == 0


# --- retention, stopping -----------------------------------------------------------------------


def end(broker: EmbeddedBroker, topic: str) -> int:
    """The offset after the last record of partition 0."""
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # it has no annotations
    partition = TopicPartition(topic, 0)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})  # kept while its future runs
    answers = admin.list_offsets({partition: latest})
    offset: int = answers[partition].result().offset
    return offset


def test_requests_that_retention_ate_are_counted(bus: Bus, broker: EmbeddedBroker) -> None:
    replier = bus.replier()
    with bus.client() as client:
        client.predict(package())
    assert replier.stop() == 0
    produce(
        broker, bus.requests, *(encode_request(package(), bus.requests, id=f"eaten-{n}") for n in range(10))
    )
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    before = TopicPartition(bus.requests, 0, end(broker, bus.requests) - 3)
    admin.delete_records([before])[before].result()

    successor = bus.replier()

    assert "7 requests of" in successor.wait_for("were deleted before they were answered")
    assert successor.stop() == 0
    assert "7 LOST TO RETENTION" in successor.wait_for("stopped: ")


def test_a_stop_signal_is_heeded_while_no_broker_answers(kafka_jars_here: None, tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        config = tmp_path / "kafka.config"
        config.write_text(f"bootstrap.servers = {broker.bootstrap}\n")
        bus = Bus(config)
        replier = bus.replier()
        requestor = bus.start("requestor.py", "--interval", "0.05", "--timeout", "300")
        requestor.wait_for("package 3 ")
        broker.kill(0)
        replier.wait_for("no broker answers")

        assert requestor.stop(signal.SIGTERM) == 0
        assert replier.stop(signal.SIGTERM) in (0, 1)

    assert "Traceback" not in str(replier) + str(requestor)


def test_a_closed_output_ends_the_requestor_without_a_traceback(bus: Bus) -> None:
    bus.replier()

    pipeline = Program("/bin/sh", "-c", '"$0" "$@" | head -1', sys.executable, "requestor.py", *bus.options())

    assert pipeline.wait() == 0
    assert len(pipeline.out) == 1
    assert "Traceback" not in str(pipeline)


@pytest.mark.parametrize("transactional_id", [None, "large"])
def test_a_reply_that_is_too_large_has_its_error_and_its_neighbours_their_replies(
    bus: Bus, broker: EmbeddedBroker, transactional_id: str | None
) -> None:
    settings = read_settings(bus.config)
    topics = [bus.requests, bus.replies]
    with KafkaBus(settings, topics=topics, partitions=1, transactional_id=transactional_id) as connection:
        member = connection.join(bus.requests, bus.group)
        for number in range(5):
            connection.publish(Message(bus.requests, b"%d" % number, key=b"1"))
        received: list[Message] = []
        while len(received) < 5:
            received += member.receive(5 - len(received), 1.0)
        sizes = [10, 2_000_000, 10, 3_000_000, 10]
        asked: list[int] = []

        def instead(place: int) -> Message:
            asked.append(place)
            return Message(bus.replies, b"too large", key=b"%d" % place)

        outgoing = [Message(bus.replies, bytes(size), key=b"%d" % place) for place, size in enumerate(sizes)]
        member.commit(received, outgoing, instead).result()

    assert sorted(asked) == [1, 3]
    found = dict(records(broker, bus.replies))
    assert len(records(broker, bus.replies)) == 5
    assert [found[b"%d" % place] == b"too large" for place in range(5)] == [False, True, False, True, False]


def test_many_replies_too_large_for_their_topic_cost_few_transactions(
    bus: Bus, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})  # kept while its future runs
    small = NewTopic(bus.replies, num_partitions=1, config={"max.message.bytes": "1000"})
    admin.create_topics([small])[bus.replies].result()
    with KafkaBus(
        read_settings(bus.config), topics=[bus.requests], partitions=1, transactional_id=bus.group
    ) as connection:
        member = connection.join(bus.requests, bus.group)
        for number in range(45):
            connection.publish(Message(bus.requests, b"%d" % number, key=b"1"))
        received = receive_all(member, 45)
        outgoing = [Message(bus.replies, bytes(990 if place % 2 else 800)) for place in range(45)]

        member.commit(received, outgoing, lambda _: Message(bus.replies, b"too large")).result()

    sizes = [len(value or b"") for _, value in records(broker, bus.replies)]
    assert Counter(sizes) == {800: 23, len(b"too large"): 22}
    assert (
        len([line for line in caplog.messages if "starting anew" in line]) == 2
    )  # together, and each by itself


def test_a_batch_keeps_nothing_of_what_is_confirmed() -> None:
    """One with a reply that is missing is kept for as long as its partition takes no writes."""
    batch, confirm = OutgoingBatch(), []

    batch.send(lambda _, delivered: confirm.append(delivered), [Message("replies", bytes(1000))] * 3)
    for delivered in confirm[:2]:
        delivered(None, cast(Any, None))

    assert len(batch) == 3
    assert list(batch.missing()) == [2]
    assert str(vars(batch)).count("Message(") == 1


def test_a_reply_that_is_refused_while_the_others_are_still_being_sent(
    bus: Bus, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "enqueue", enqueue_slowly)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})  # kept while its future runs
    small = NewTopic(bus.replies, num_partitions=1, config={"max.message.bytes": "1000"})
    admin.create_topics([small])[bus.replies].result()
    with KafkaBus(
        read_settings(bus.config), topics=[bus.requests], partitions=1, transactional_id=bus.group
    ) as connection:
        member = connection.join(bus.requests, bus.group)
        for number in range(6):
            connection.publish(Message(bus.requests, b"%d" % number, key=b"1"))
        received = receive_all(member, 6)
        outgoing = [Message(bus.replies, bytes(990 if place == 1 else 800)) for place in range(6)]

        member.commit(received, outgoing, lambda _: Message(bus.replies, b"too large")).result()

    sizes = [len(value or b"") for _, value in records(broker, bus.replies)]
    assert sizes == [800, len(b"too large"), 800, 800, 800, 800]


def test_a_transaction_that_fails_while_its_replies_are_still_being_sent_comes_again(
    bus: Bus, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "enqueue", enqueue_slowly)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})  # kept while its future runs
    compacted = NewTopic(bus.replies, num_partitions=1, config={"cleanup.policy": "compact"})
    admin.create_topics([compacted])[bus.replies].result()
    with KafkaBus(
        read_settings(bus.config), topics=[bus.requests], partitions=1, transactional_id=bus.group
    ) as connection:
        member = connection.join(bus.requests, bus.group)
        for number in range(6):
            connection.publish(Message(bus.requests, b"%d" % number, key=b"1"))
        received = receive_all(member, 6)
        keyless = [Message(bus.replies, b"1", key=None if place == 1 else b"1") for place in range(6)]

        with pytest.raises(CommitFailed):
            member.commit(received, keyless).result()
        member.rewind()
        again = receive_all(member, 6)
        member.commit(again, [Message(bus.replies, b"%d" % place, key=b"1") for place in range(6)]).result()

    assert [value for _, value in records(broker, bus.replies)] == [b"%d" % place for place in range(6)]


def test_what_comes_while_the_committed_offset_is_unknown_comes_again_once_it_is_known(
    bus: Bus,
) -> None:
    with KafkaBus(read_settings(bus.config), topics=[bus.requests], partitions=1) as connection:
        assigned: list[int] = []
        member = connection.join(bus.requests, bus.group, on_assigned=assigned.extend)
        while not assigned:
            member.receive(1, 0.1)
        (partition,) = member._ledger._partitions.by_number.values()
        partition.answered = partition.remembered = partition.asked = None  # as when no coordinator tells
        connection.publish(Message(bus.requests, b"1", key=b"1"))
        record = None
        while record is None:
            record = member._consumer.poll(0.1)

        member._keep(record)
        assert member._waiting == []
        assert member._ledger.unknown() == [0]
        member.rewind()
        received: list[Message] = []
        deadline = time.monotonic() + 30
        while not received and time.monotonic() < deadline:
            received = member.receive(1, 0.1)

    assert [message.value for message in received] == [b"1"]


def test_a_member_waits_for_the_offset_that_the_brokers_do_not_tell_yet(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unstable(Consumer):
        """As while the transaction of a member that died is open."""

        def committed(self, partitions: list[TopicPartition], timeout: float = -1) -> list[TopicPartition]:
            if next(questions) < 2:
                raise KafkaException(KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT))
            return super().committed(partitions, timeout=timeout)

    questions = itertools.count()
    settings = read_settings(bus.config)
    with KafkaBus(settings, topics=[bus.requests], partitions=1) as connection:
        member = connection.join(bus.requests, bus.group)
        for number in range(5):
            connection.publish(Message(bus.requests, b"%d" % number))
        received: list[Message] = []
        while len(received) < 5:
            received += member.receive(5 - len(received), 1.0)
        member.commit(received[:3]).result()

    monkeypatch.setattr("imagebus.transports.kafka.settings.Consumer", Unstable)
    with KafkaBus(settings) as connection:
        member = connection.join(bus.requests, bus.group)
        again: list[Message] = []
        deadline = time.monotonic() + SECONDS
        while len(again) < 2 and time.monotonic() < deadline:
            again += member.receive(5, 0.2)

    assert [message.value for message in again] == [b"3", b"4"]
    assert next(questions) > 2


def test_a_commit_of_what_was_rewound_skips_nothing(bus: Bus) -> None:
    with KafkaBus(read_settings(bus.config), topics=[bus.requests], partitions=1) as connection:
        member = connection.join(bus.requests, bus.group)
        for number in range(6):
            connection.publish(Message(bus.requests, b"%d" % number))
        received: list[Message] = []
        while len(received) < 6:
            received += member.receive(6 - len(received), 1.0)

        member.rewind()
        member.commit(received[3:]).result()
    again: list[Message] = []
    with KafkaBus(read_settings(bus.config)) as connection:
        member = connection.join(bus.requests, bus.group)
        deadline = time.monotonic() + SECONDS
        while len(again) < 6 and time.monotonic() < deadline:
            again += member.receive(6 - len(again), 1.0)

    assert [message.value for message in again] == [b"%d" % number for number in range(6)]


def test_a_transaction_whose_answer_was_lost_is_not_committed_over_when_the_member_leaves(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    class Deaf:
        """A producer whose brokers commit, and whose answer does not arrive."""

        def __init__(self, producer: Producer) -> None:
            self._producer = producer

        def __getattr__(self, name: str) -> Any:
            return getattr(self._producer, name)

        def commit_transaction(self, *seconds: float) -> None:
            self._producer.commit_transaction(*seconds)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    settings = read_settings(bus.config)
    with KafkaBus(
        settings, topics=[bus.requests, bus.replies], partitions=1, transactional_id=bus.group
    ) as connection:
        member = connection.join(bus.requests, bus.group)
        for number in range(5):
            connection.publish(Message(bus.requests, b"%d" % number))
        received: list[Message] = []
        while len(received) < 5:
            received += member.receive(5 - len(received), 1.0)
        delivery = cast(ExactlyOnce, connection._delivery)
        delivery._producer = cast(Producer, Deaf(delivery._producer))
        with pytest.raises(CommitFailed):
            member.commit(received, [Message(bus.replies, message.value) for message in received]).result()

    group = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": bus.group})
    (committed,) = group.committed([TopicPartition(bus.requests, 0)])
    group.close()
    assert committed.offset == 5
    assert len(records(broker, bus.replies)) == 5


def test_closing_a_transactional_bus_sends_what_was_published(bus: Bus, broker: EmbeddedBroker) -> None:
    reports: list[TransportError | Position | None] = []
    with KafkaBus(read_settings(bus.config), topics=[bus.requests], transactional_id=bus.group) as connection:
        for number in range(1000):
            connection.publish(Message(bus.requests, b"%d" % number), reports.append)

    assert [type(report) for report in reports] == [Position] * 1000
    assert len(records(broker, bus.requests)) == 1000


def test_two_refusals_at_once_make_one_second_producer(bus: Bus) -> None:
    with KafkaBus(read_settings(bus.config), topics=[bus.requests]) as connection:
        sender, made, second_came = connection._sender, [], threading.Event()
        produce_one_by_one = connection._connection.clients.producer

        def slowly(transactional_id: str | None = None, *, one_by_one: bool = False) -> Producer:
            made.append(one_by_one)
            second_came.wait(0.5)  # in vain where the other thread has to wait for this one
            return produce_one_by_one(transactional_id, one_by_one=one_by_one)

        connection._connection.clients.producer = slowly  # type: ignore[method-assign]
        delivered: list[object] = []
        threads = [
            threading.Thread(
                target=sender._judge,
                args=(
                    Message(bus.requests, b"x"),
                    lambda error, _: delivered.append(error),
                    KafkaError(KafkaError.MSG_SIZE_TOO_LARGE),
                    None,
                ),
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert made == [True]


def test_what_waits_is_forgotten_with_its_partition(bus: Bus, broker: EmbeddedBroker) -> None:
    """Else it would be answered, and its offset committed, before those in front of it that come again."""
    with KafkaBus(read_settings(bus.config), topics=[bus.requests], partitions=2) as connection:
        for partition in (0, 1):
            produce(broker, bus.requests, Message(bus.requests, b"%d" % partition), partition=partition)
        member = connection.join(bus.requests, bus.group)
        deadline = time.monotonic() + SECONDS
        while len(member._waiting) < 2 and time.monotonic() < deadline:
            if (record := member._consumer.poll(0.1)) is not None:
                member._keep(record)

        member._forget_waiting([0])

        assert [record.value() for record in member._waiting] == [b"1"]
