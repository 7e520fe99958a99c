"""Apache Kafka behind the five verbs, on confluent-kafka (librdkafka).

The numbered steps are the delivery guarantee: replies are confirmed by the brokers before the offsets
of their requests are committed, and offsets are committed synchronously, by name, only for partitions
that are still ours.
"""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, cast

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka import Message as Record
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does export it

from imagebus.config import Settings
from imagebus.errors import (
    AccessDenied,
    CommitFailed,
    ConfigError,
    ConnectionFailed,
    PublishFailed,
    TransportError,
)
from imagebus.messages import Message
from imagebus.transports.base import OnAssigned, OnDelivery, Transport

log = logging.getLogger(__name__)
_driver_log = logging.getLogger(f"{__name__}.driver")
# One file has the settings of producers and consumers, and each ignores the other's with a warning.
_driver_log.addFilter(lambda record: not record.getMessage().startswith("CONFWARN"))

CONNECT_SECONDS = 10.0  # a cluster of Confluent Cloud answers within 2 s, so nobody is there after 10
TOPIC_SECONDS = 30.0  # a created topic was seen in the metadata within 1 s; a busy cluster may take longer
CONFIRM_SECONDS = 30.0  # a killed partition leader is replaced within 13 s
CLOSE_SECONDS = 10.0
DOWN_SECONDS = 30.0  # between two lines that say that no broker answers

_COMMON = {
    # Freeing the connection of an idle hour is no news.
    "log.connection.close": "false",
    # A frozen partition leader stalls a client for 71 s at librdkafka's default of 60 s, 7.7 s with 6 s.
    "socket.timeout.ms": "6000",
}
_PRODUCER = {
    "enable.idempotence": "true",
    # librdkafka waits 5 ms for more messages by default; under load batches form by themselves.
    "linger.ms": "0",
    "request.timeout.ms": "5000",
    "message.timeout.ms": "30000",
    "allow.auto.create.topics": "false",
}
_CONSUMER = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    # 20 ms where librdkafka has 1,000: with a full queue the consumer starves otherwise.
    "fetch.queue.backoff.ms": "20",
    # A killed member's partitions go to the others after 6 s, the least that brokers allow by default.
    # It also bounds what librdkafka's lost members cost: one that is closed while it joins sends no
    # LeaveGroup, and one that asks twice for a member id leaves the first behind (issue 5569); either
    # keeps the whole group waiting for a session.
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "2000",
    # 16 MB of prefetched requests, where librdkafka keeps 64 MB: the resident memory stays flat.
    "queued.max.messages.kbytes": "16384",
    "allow.auto.create.topics": "false",
}
_CLASSIC_GROUP = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")
_HOPELESS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE})
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional id",
}
# The group moved on without us: whoever has the partition now starts from the last commit.
_NOT_OURS = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError._NO_OFFSET,
        KafkaError._STATE,
    }
)


# A partition has no leader yet, or the broker that was asked is not it any more.
_MOVING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


class Receipt(NamedTuple):
    """Where a received message stood, and which assignment of its partition it came under."""

    partition: int
    offset: int
    assignment: int


class KafkaTransport(Transport):
    """One replier's or requestor's connection to a Kafka cluster.

    `topics` are created when missing, with `partitions` and the broker's default replication. Raises
    `ConfigError` for settings that librdkafka does not take, `ConnectionFailed` when no broker answers
    or the login is refused, `AccessDenied` when a topic is missing and may not be created.
    """

    def __init__(self, settings: Settings, *, topics: Sequence[str] = (), partitions: int = 6) -> None:
        self._settings = settings
        self._quiet_until = 0.0  # time.monotonic()
        self._producer: Producer = self._client(Producer, _PRODUCER)  # does not connect yet
        admin = self._client(AdminClient)
        existing = self._connect(admin)
        self._create(admin, [topic for topic in topics if topic not in existing], partitions)
        self._consumer: Consumer | None = None
        self._topic = ""
        self._failure: TransportError | None = None  # noticed in a callback, raised by the next call
        self._assignments = itertools.count(1)
        self._assigned: dict[int, int] = {}  # partition -> number of its current assignment
        self._answered: dict[int, int] = {}  # partition -> next offset without a confirmed outcome
        self._committed: dict[int, int] = {}  # partition -> next offset as the group remembers it

    # --- opening -------------------------------------------------------------------------------

    def _client(
        self,
        kind: Callable[[dict[str, Any]], Any],
        defaults: Mapping[str, str] = MappingProxyType({}),
        fixed: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """A client of librdkafka, which checks every setting of the file, whichever kind it is for."""
        theirs = self._settings
        both = {**_COMMON, **defaults, **theirs, **fixed, "error_cb": self._on_error, "logger": _driver_log}
        if theirs.get("group.protocol") == "consumer":  # there these are the broker's to say
            both = {key: value for key, value in both.items() if key not in _CLASSIC_GROUP or key in theirs}
        try:
            return kind(both)
        except KafkaException as error:
            raise self._refused(error.args[0].str()) from None

    def _refused(self, reason: str) -> ConfigError:
        """librdkafka's refusal as one line: which key on which line, and never a value."""
        kind, _, conflict = reason.partition(": ")
        if kind.startswith("Failed to create"):  # each setting is right by itself, but not with the others
            key = next((key for key in self._settings if key in conflict), "")
            return ConfigError(f"{self._settings.where(key)}: {conflict}")
        for key, value in self._settings.items():
            alone: dict[str, Any] = {key: value, "logger": _driver_log}
            try:
                AdminClient(alone)
            except KafkaException as error:
                reason = error.args[0].str().strip()
                if reason.startswith("No such"):
                    return ConfigError(f"{self._settings.where(key)}: unknown setting {key}")
                if not reason.startswith("Failed to create"):
                    # Its other reasons repeat the value, which may be a secret.
                    wrong = (
                        reason[reason.find("outside ") :] if "outside " in reason else "not one it may have"
                    )
                    return ConfigError(f"{self._settings.where(key)}: the value of {key} is {wrong}")
        return ConfigError(f"{self._settings.path}: {reason}")

    def _connect(self, admin: AdminClient) -> set[str]:
        """The topics there are, once a broker answers; the cause when none does.

        Each failure looks the same from `list_topics`; the cause comes through `error_cb` in `poll`.
        """
        deadline = time.monotonic() + CONNECT_SECONDS
        self._failure = None
        while True:
            try:
                return set(admin.list_topics(timeout=1.0).topics)
            except KafkaException as error:
                admin.poll(0)
                self._raise_failure()
                if time.monotonic() > deadline:
                    servers = self._settings["bootstrap.servers"]
                    raise ConnectionFailed(
                        f"no broker answers at {servers} ({self._settings.where('bootstrap.servers')}): "
                        f"{error.args[0].str()}; python3 -m imagebus.broker starts one on this machine"
                    ) from None

    def _create(self, admin: AdminClient, topics: Iterable[str], partitions: int) -> None:
        wanted = [NewTopic(topic, num_partitions=partitions, replication_factor=-1) for topic in topics]
        if not wanted:
            return
        for topic, created in admin.create_topics(wanted).items():
            try:
                created.result()
                log.info("created topic %s with %d partitions", topic, partitions)
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.TOPIC_ALREADY_EXISTS:  # the other script was faster
                    continue
                if code in _DENIED:
                    raise AccessDenied(
                        f"topic {topic!r} is missing and these credentials may not create it: "
                        f"create it, or grant Create on it"
                    ) from None
                raise TransportError(f"topic {topic!r} could not be created: {error.args[0].str()}") from None
        # The brokers confirm a topic before all of them list it; producing to it then would fail.
        deadline = time.monotonic() + TOPIC_SECONDS
        while not all(_has_leaders(admin, topic.topic) for topic in wanted):
            if time.monotonic() > deadline:
                raise TransportError(f"the created topics have no leaders after {TOPIC_SECONDS:.0f} s")
            admin.poll(0.02)

    # --- receiving -----------------------------------------------------------------------------

    def subscribe(self, topic: str, group: str | None = None, on_assigned: OnAssigned | None = None) -> None:
        self._topic = topic
        # Without a group nothing is committed; librdkafka wants a name all the same.
        name = group or f"requestor-{uuid.uuid4()}"
        consumer: Consumer = self._client(Consumer, _CONSUMER, {"group.id": name})
        self._consumer = consumer
        if group is None:
            self._assign_from_now_on(consumer)
            return

        def tell() -> None:
            if on_assigned is not None and self._consumer is not None:  # None: it is being closed
                on_assigned(sorted(self._assigned))

        def on_assign(_: Consumer, partitions: list[TopicPartition]) -> None:
            for each in partitions:
                self._assigned[each.partition] = next(self._assignments)
            tell()

        def on_revoke(_: Consumer, partitions: list[TopicPartition]) -> None:
            # Still ours until this returns: what is answered is committed, so that it is not repeated.
            self._commit_answered(each.partition for each in partitions)
            forget(partitions)

        def on_lost(_: Consumer, partitions: list[TopicPartition]) -> None:
            forget(partitions)

        def forget(partitions: list[TopicPartition]) -> None:
            for each in partitions:
                for known in (self._assigned, self._answered, self._committed):
                    known.pop(each.partition, None)
            tell()

        consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)

    def _assign_from_now_on(self, consumer: Consumer) -> None:
        """Assign every partition at its high watermark, read now: the first reply is not missed."""
        try:
            metadata = consumer.list_topics(self._topic, timeout=CONNECT_SECONDS).topics[self._topic]
            partitions = [TopicPartition(self._topic, partition) for partition in metadata.partitions]
            for each in partitions:
                each.offset = _high_watermark(consumer, each)
            consumer.assign(partitions)
        except KafkaException as error:
            self._raise_translated(error, f"reading topic {self._topic!r}")

    def receive(self, limit: int, timeout: float) -> list[Message]:
        if self._consumer is None:
            raise TransportError("receive before subscribe")
        self._producer.poll(0)
        self._raise_failure()
        # `consume(n, timeout)` would wait out its timeout unless n messages come.
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        records = [first]
        if limit > 1:
            records += self._consumer.consume(limit - 1, timeout=0)
        return [message for record in records if (message := self._received(record)) is not None]

    def _received(self, record: Record) -> Message | None:
        error = record.error()
        if error is not None:
            # Kept for the next call: raising here would lose the messages that came with it.
            self._failure = self._failure or _translate(error, f"reading topic {self._topic!r}")
            return None
        partition, offset = record.partition(), record.offset()
        assert partition is not None
        assert offset is not None
        self._answered.setdefault(partition, offset)
        self._committed.setdefault(partition, offset)
        return Message(
            self._topic,
            record.value() or b"",
            record.key(),
            _headers(record),
            Receipt(partition, offset, self._assigned.get(partition, 0)),
        )

    # --- sending -------------------------------------------------------------------------------

    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        self._raise_failure()

        def delivered(error: KafkaError | None, _: Record) -> None:
            failure = None if error is None else _translate(error, f"sending to topic {message.topic!r}")
            if on_delivery is not None:
                on_delivery(failure)
            elif failure is not None:
                self._failure = self._failure or failure

        self._produce(message, delivered)
        self._producer.poll(0)

    def _produce(self, message: Message, delivered: Callable[[KafkaError | None, Record], None]) -> None:
        while True:
            try:
                self._producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    headers=list(message.headers),
                    on_delivery=delivered,
                )
                return
            except BufferError:  # the queue is full: let some go, then offer the same message again
                self._producer.poll(0.1)
            except KafkaException as error:
                self._raise_translated(
                    error, f"sending {len(message.value)} bytes to topic {message.topic!r}"
                )

    def commit(self, received: Sequence[Message], outgoing: Sequence[Message] = ()) -> None:
        """See `Transport.commit`. Here the inputs are marked as done as follows.

        1. Produce every message and wait until the brokers confirmed each; else back to the last commit.
        2. Note the next offset of each partition that is still assigned as it was on receiving.
        3. Commit those offsets. Where the group moved on or the coordinator is away this waits for the
           next commit: the outcomes exist, so at worst they are repeated, never lost.
        """
        if outgoing:
            failures: list[KafkaError] = []

            def delivered(error: KafkaError | None, _: Record) -> None:
                if error is not None:
                    failures.append(error)

            for message in outgoing:
                self._produce(message, delivered)
            unconfirmed = self._producer.flush(CONFIRM_SECONDS)
            if failures or unconfirmed:
                self._producer.purge()
                self._rewind()
                reason = failures[0].str() if failures else f"nothing confirmed for {CONFIRM_SECONDS:.0f} s"
                raise CommitFailed(f"{unconfirmed + len(failures)} replies were not confirmed: {reason}")
        for message in received:
            partition, offset, assignment = message.receipt
            if self._assigned.get(partition) == assignment:
                self._answered[partition] = max(self._answered.get(partition, 0), offset + 1)
        self._commit_answered(list(self._answered))

    def _commit_answered(self, partitions: Iterable[int]) -> None:
        """Commit where confirmed outcomes are ahead of what the group remembers. Never raises."""
        ahead = [
            TopicPartition(self._topic, partition, self._answered[partition])
            for partition in partitions
            if partition in self._answered and self._answered[partition] != self._committed.get(partition)
        ]
        if not ahead or self._consumer is None:
            return
        try:
            self._consumer.commit(offsets=ahead, asynchronous=False)
        except KafkaException as error:
            code = error.args[0].code()
            level = logging.DEBUG if code in _NOT_OURS else logging.WARNING
            log.log(level, "offsets not committed yet: %s", error.args[0].str())
            if code in _DENIED or error.args[0].fatal():
                self._failure = self._failure or _translate(error.args[0], "committing offsets")
            return
        self._committed.update((each.partition, each.offset) for each in ahead)

    def _rewind(self) -> None:
        """Receive again whatever has no confirmed outcome."""
        assert self._consumer is not None
        for partition, offset in self._answered.items():
            if partition in self._assigned:
                # A partition that is just being taken away cannot be sought, and need not be.
                with suppress(KafkaException):
                    self._consumer.seek(TopicPartition(self._topic, partition, offset))

    # --- closing and errors --------------------------------------------------------------------

    def close(self) -> None:
        consumer = self._consumer
        if consumer is not None:
            self._commit_answered(list(self._answered))
            self._consumer = None
            consumer.close()
        left = self._producer.flush(CLOSE_SECONDS)
        if left:
            log.warning("%d messages were not confirmed before closing", left)

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka's news between the calls. Never raises: that would throw away a batch."""
        if error.code() in _HOPELESS or error.fatal():
            self._failure = self._failure or _translate(error, self._settings["bootstrap.servers"])
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and time.monotonic() > self._quiet_until:
            self._quiet_until = time.monotonic() + DOWN_SECONDS
            log.warning("no broker answers at %s; trying again", self._settings["bootstrap.servers"])

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _raise_translated(self, error: KafkaException, doing: str) -> NoReturn:
        raise _translate(error.args[0], doing) from error


def _headers(record: Record) -> list[tuple[str, bytes | None]]:
    # A received record has its headers as a list of pairs, with values of bytes or None.
    return cast(list[tuple[str, bytes | None]], record.headers() or [])


def _high_watermark(consumer: Consumer, partition: TopicPartition) -> int:
    """The offset that the next record gets; waits for a partition that is just being made or moved."""
    deadline = time.monotonic() + TOPIC_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=CONNECT_SECONDS)[1]
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or time.monotonic() > deadline:
                raise
            consumer.poll(0.02)


def _has_leaders(admin: AdminClient, topic: str) -> bool:
    metadata = admin.list_topics(topic, timeout=TOPIC_SECONDS).topics[topic]
    return bool(metadata.partitions) and all(each.leader >= 0 for each in metadata.partitions.values())


def _translate(error: KafkaError, doing: str) -> TransportError:
    """librdkafka's error as this project's: the one door for both."""
    code = error.code()
    if code in _DENIED:
        return AccessDenied(
            f"{doing}: these credentials lack the right on the {_DENIED[code]}: {error.str()}"
        )
    if code in _HOPELESS:
        return ConnectionFailed(f"{doing}: {error.str()}")
    if code in (KafkaError._MSG_TIMED_OUT, KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._PURGE_QUEUE):
        return PublishFailed(f"{doing}: {error.str()}")
    return TransportError(f"{doing}: {error.str()}")
