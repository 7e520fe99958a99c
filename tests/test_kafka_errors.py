"""librdkafka's errors as this project's: each code that the code knows becomes one line of the right kind."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaError

from imagebus.errors import (
    AccessDenied,
    ConnectionFailed,
    Fenced,
    GroupConflict,
    PublishFailed,
    TooLarge,
    TransportError,
)
from imagebus.transports.kafka.errors import (
    DENIED,
    HOPELESS,
    OTHER_GROUP,
    is_fatal,
    is_too_large,
    translate,
)
from imagebus.transports.kafka.ledger import PendingCommit

EXPECTED = {
    **dict.fromkeys(DENIED, (AccessDenied, "these credentials lack the right")),
    **dict.fromkeys(HOPELESS, (ConnectionFailed, "")),
    **dict.fromkeys(
        [KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED],
        (Fenced, "another replier has the same transactional id"),
    ),
    **dict.fromkeys(
        [KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID],
        (GroupConflict, "another member of the group has the same group.instance.id"),
    ),
    **dict.fromkeys(OTHER_GROUP, (GroupConflict, "partition.assignment.strategy or group.protocol")),
    KafkaError.MSG_SIZE_TOO_LARGE: (
        TooLarge,
        "message.max.bytes of this client or max.message.bytes of the topic",
    ),
    **dict.fromkeys(
        [KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT],
        (PublishFailed, "not confirmed by the brokers"),
    ),
}


@pytest.mark.parametrize("code", EXPECTED, ids=lambda code: KafkaError(code).name())
def test_each_code_is_one_line_of_the_right_kind(code: int) -> None:
    kind, text = EXPECTED[code]

    failure = translate(KafkaError(code), "sending to topic 'x'")

    assert type(failure) is kind
    assert str(failure).startswith("sending to topic 'x': ")
    assert text in str(failure)
    assert "\n" not in str(failure)
    assert is_too_large(KafkaError(code)) == (kind is TooLarge)


@pytest.mark.parametrize(
    ("doing", "right"),
    [("reading topic 'x'", "Read on the topic"), ("sending to topic 'x'", "Write on the topic")],
)
def test_the_missing_right_on_a_topic_depends_on_what_was_being_done(doing: str, right: str) -> None:
    assert right in str(translate(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), doing))


@pytest.mark.parametrize(
    "reason",
    [
        "Broker: Static consumer fenced by other consumer with same group.instance.id",
        "Broker: The instance ID is still used by another member in the consumer group",
    ],
)
def test_the_cause_of_a_consumers_fatal_error_is_in_its_text(reason: str) -> None:
    fatal = KafkaError(KafkaError._FATAL, f"Fatal error: {reason}")

    failure = translate(fatal, "reading topic 'x'")

    assert type(failure) is GroupConflict
    assert "group.instance.id" in str(failure)
    assert is_fatal(fatal)


def test_any_other_code_is_a_failure_of_the_bus_in_librdkafkas_words() -> None:
    error = KafkaError(KafkaError.NOT_COORDINATOR)

    failure = translate(error, "committing offsets")

    assert type(failure) is TransportError
    assert str(failure) == f"committing offsets: {error.str()}"


def test_what_ends_a_commit_in_a_rebalance_is_kept_for_its_caller() -> None:
    def broken() -> None:
        raise LookupError("instead knows nothing")

    commit = PendingCommit(threading.RLock(), broken, lambda: pytest.fail("it is not done"))

    commit.end()  # as a rebalance does, where nothing may be raised

    with pytest.raises(LookupError, match="instead knows nothing"):
        commit.result()
