"""librdkafka's clients from a config file: the settings that the promise rests on.

Settings are checked when a client is made, before anything connects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from imagebus.errors import ConfigError
from imagebus.transports.kafka import driver_log
from imagebus.transports.kafka.entries import Settings
from imagebus.transports.kafka.refusals import explained

_COMMON = {
    # Closing an idle connection is normal.
    "log.connection.close": "false",
    # A frozen partition leader stalls a client for 71 s at librdkafka's default of 60 s, 7.7 s with 6 s.
    "socket.timeout.ms": "6000",
}
_PRODUCER = {
    "enable.idempotence": "true",
    # librdkafka waits 5 ms for more messages by default. With one request in flight, the first message leaves at
    # once, and those that come meanwhile go together: a request for every few messages keeps a broker busy with
    # requests.
    "linger.ms": "0",
    "max.in.flight.requests.per.connection": "1",
    "request.timeout.ms": "5000",
    "message.timeout.ms": "30000",
    "allow.auto.create.topics": "false",
}
# An abandoned transaction blocks read-committed consumers for this long. Not shorter: a killed broker is replaced
# within 13 s, and a transaction that waited for that can still succeed.
_TRANSACTIONS = {"transaction.timeout.ms": "20000", "message.timeout.ms": "20000"}
_CONSUMER = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    # 20 ms where librdkafka has 1,000: with a full queue the consumer starves otherwise.
    "fetch.queue.backoff.ms": "20",
    # A killed member's partitions go to the others after 6 s, the least that brokers allow by default.
    # It also bounds the cost of members that librdkafka loses: one closed while it joins sends no
    # LeaveGroup, and one that requests a member id twice leaves the first behind (issue 5569); either keeps
    # the whole group waiting for a session.
    "session.timeout.ms": "6000",
    # A member learns of a rebalance from the answer to its heartbeat: with 2 s, the partitions of one that leaves
    # waited for up to 2 s.
    "heartbeat.interval.ms": "200",
    # 8 MB of prefetched requests, where librdkafka keeps 64 MB: the resident memory stays flat.
    "queued.max.messages.kbytes": "8192",
    # Added partitions are found within 5 s, where librdkafka looks every 5 minutes: one small request each time.
    "topic.metadata.refresh.interval.ms": "5000",
    "allow.auto.create.topics": "false",
    # A fetch that does not arrive within socket.timeout.ms is fetched anew, and on a slow line never arrives.
    # librdkafka asks for 1 MB of each partition: 6 MB in 6 s, for the topics that the scripts create.
    "max.partition.fetch.bytes": "131072",
}
# The same for many partitions. It may not be below message.max.bytes, so it is left alone where a file sets that.
_FETCH = {"fetch.max.bytes": "1048576"}
_CLASSIC_GROUP = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")
_NOTHING: Mapping[str, str] = MappingProxyType({})
# confluent-kafka's settings that are Python objects, which a file cannot hold.
_OBJECTS = frozenset(
    {
        "default.topic.config",
        "error_cb",
        "logger",
        "oauth_cb",
        "on_commit",
        "on_delivery",
        "stats_cb",
        "throttle_cb",
    }
)

OnCommit = Callable[[KafkaError | None, list[TopicPartition]], None]
OnError = Callable[[KafkaError], None]
OnStatistics = Callable[[str], None]


class Clients:
    """Makes librdkafka's clients from the settings of one file; `on_error` gets their errors between calls.

    Raises `ConfigError` for settings that librdkafka does not take.
    """

    def __init__(self, theirs: Settings, on_error: OnError) -> None:
        self._theirs = theirs
        self._on_error = on_error
        driver_log.prepare(theirs)

    @property
    def compress(self) -> bool:
        """Whether producers compress what they send."""
        named = (self._theirs.get(key, "none") for key in ("compression.type", "compression.codec"))
        return any(name != "none" for name in named)

    def admin(self, on_statistics: OnStatistics | None = None) -> AdminClient:
        """A client for topics and metadata. Keep it until its futures are done.

        Its polls hand librdkafka's statistics to `on_statistics`, as JSON, each second.
        """
        fixed: dict[str, Any] = {}
        if on_statistics is not None:
            fixed = {"stats_cb": on_statistics, "statistics.interval.ms": "1000"}
        admin: AdminClient = self._make(AdminClient, fixed=fixed)
        return admin

    def producer(self, transactional_id: str | None = None, *, one_by_one: bool = False) -> Producer:
        """A producer. It connects in the background. `one_by_one`: each message is a batch of Kafka's."""
        defaults, fixed = _PRODUCER, {}
        if transactional_id is not None:
            defaults = {**_PRODUCER, **_TRANSACTIONS}
            fixed["transactional.id"] = transactional_id
        if one_by_one:
            fixed["batch.num.messages"] = "1"
        producer: Producer = self._make(Producer, defaults, fixed)
        return producer

    def consumer(self, group: str, on_commit: OnCommit | None = None, *, ends: bool = False) -> Consumer:
        """A consumer of a group, not yet subscribed. Its polls report each commit's result to `on_commit`.

        With `ends`, the end of a partition comes in place of a record.
        """
        if not group:  # librdkafka would end the process
            raise ConfigError("the name of the consumer group is empty")
        fixed: dict[str, Any] = {"group.id": group}
        if on_commit is not None:
            fixed["on_commit"] = on_commit
        if ends:
            fixed["enable.partition.eof"] = "true"
        defaults = _CONSUMER if "message.max.bytes" in self._theirs else {**_CONSUMER, **_FETCH}
        consumer: Consumer = self._make(Consumer, defaults, fixed)
        return consumer

    def _make(
        self,
        kind: Callable[[dict[str, Any]], Any],
        defaults: Mapping[str, str] = _NOTHING,
        fixed: Mapping[str, Any] = _NOTHING,
    ) -> Any:
        """A client of librdkafka, which checks every setting of the file, of any kind of client.

        The file cannot change what is `fixed`.
        """
        theirs = self._theirs
        for key in _OBJECTS & theirs.keys():
            raise ConfigError(f"{theirs.where(key)}: {key} is for programs: a file cannot set it")
        both = {
            **_COMMON,
            **defaults,
            **theirs,
            **fixed,
            "error_cb": self._on_error,
            "logger": driver_log.log,
        }
        if theirs.get("group.protocol") == "consumer":  # there the broker decides these
            both = {key: value for key, value in both.items() if key not in _CLASSIC_GROUP or key in theirs}
        try:
            return kind(both)
        except (KafkaException, ImportError, TypeError, ValueError) as error:
            raise explained(theirs, error) from None
