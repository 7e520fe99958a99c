"""Creating topics, and asking the brokers about them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does export them
    AdminClient,
    NewTopic,
    TopicMetadata,
)

from imagebus.errors import AccessDenied, TransportError
from imagebus.transports.kafka.connecting import ANSWER_SECONDS
from imagebus.transports.kafka.errors import DENIED, translate

log = logging.getLogger(__name__)

TOPIC_SECONDS = 30.0  # a created topic was seen in the metadata within 1 s; a busy cluster may take longer
JUST_MADE_SECONDS = 3.0  # for a topic or a right that may have been made a moment ago
LEADER_POLL_SECONDS = 0.02  # between two requests for the leader of a partition

# A topic or its leader is not known to the asked broker yet, or no longer.
MOVING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
    }
)
# The asked broker is gone: another one may answer.
NO_ANSWER = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._DESTROY_BROKER,
    }
)


def create_topics(admin: AdminClient, topics: Sequence[str], partitions: int) -> None:
    """Create topics with the broker's default replication, and wait until they can be used.

    Raises `AccessDenied` where the right is missing. Another program may create them at the same time.
    """
    if not topics:
        return
    # Neither a topic nor a right reaches all brokers at once, and either may have been made for this start.
    denied = _create(admin, topics, partitions)
    deadline = time.monotonic() + JUST_MADE_SECONDS
    for topic in denied:
        while _describe(admin, topic, TOPIC_SECONDS).error is not None:
            if time.monotonic() > deadline:
                raise AccessDenied(
                    f"topic {topic!r} is missing, or hidden, and these credentials may not create it: "
                    f"create it or grant Create on it, or Read or Write where it exists"
                )
            admin.poll(LEADER_POLL_SECONDS)
    # The brokers confirm a topic before all of them list it; producing to it then would fail.
    deadline = time.monotonic() + TOPIC_SECONDS
    while not all(_has_leaders(admin, topic) for topic in topics):
        if time.monotonic() > deadline:
            raise TransportError(f"the created topics have no leaders after {TOPIC_SECONDS:.0f} s")
        admin.poll(LEADER_POLL_SECONDS)


def partitions_of(consumer: Consumer, topic: str, seconds: float = TOPIC_SECONDS) -> list[int]:
    """The numbers of a topic's partitions. Waits a while for a new topic: it does not reach all brokers at once.

    Raises `KafkaException` for one that is missing, or hidden from these credentials.
    """
    deadline = time.monotonic() + seconds
    while True:
        metadata = _describe(consumer, topic, seconds)
        if metadata.error is None:
            return sorted(metadata.partitions)
        if metadata.error.code() not in MOVING or time.monotonic() > deadline:
            raise KafkaException(metadata.error)
        time.sleep(LEADER_POLL_SECONDS)  # not a poll, which could take a record


def _create(admin: AdminClient, topics: Sequence[str], partitions: int) -> list[str]:
    """Create them, and return those for which the right is missing."""
    denied = []
    missing = list(topics)
    deadline = time.monotonic() + TOPIC_SECONDS
    while missing:
        wanted = [NewTopic(topic, num_partitions=partitions, replication_factor=-1) for topic in missing]
        for topic, created in admin.create_topics(wanted).items():
            try:
                created.result()
                log.info("created topic %s with %d partitions", topic, partitions)
            except KafkaException as error:
                code = error.args[0].code()
                if code in NO_ANSWER and time.monotonic() < deadline:  # it may have been made, or not
                    continue
                if code in DENIED:
                    denied.append(topic)
                elif code != KafkaError.TOPIC_ALREADY_EXISTS:  # else the other script was faster
                    reason = error.args[0].str()
                    raise TransportError(f"topic {topic!r} could not be created: {reason}") from None
            missing.remove(topic)
        if missing:
            admin.poll(LEADER_POLL_SECONDS)
    return denied


def _has_leaders(admin: AdminClient, topic: str) -> bool:
    metadata = _describe(admin, topic, TOPIC_SECONDS)
    if metadata.error is not None and metadata.error.code() in DENIED:
        raise translate(metadata.error, f"describing topic {topic!r}")
    return bool(metadata.partitions) and all(each.leader >= 0 for each in metadata.partitions.values())


def _describe(client: AdminClient | Consumer, topic: str, seconds: float) -> TopicMetadata:
    """What a broker says about a topic; after a while without an answer, another one is asked."""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            return client.list_topics(topic, timeout=min(left, ANSWER_SECONDS)).topics[topic]
        except KafkaException as error:
            if left <= ANSWER_SECONDS or error.args[0].code() not in NO_ANSWER:
                raise
        time.sleep(LEADER_POLL_SECONDS)  # it may fail at once
