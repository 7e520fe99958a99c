"""librdkafka's errors as this project's: the one door for them."""

from __future__ import annotations

from typing import NoReturn

from confluent_kafka import KafkaError, KafkaException

from imagebus.errors import (
    AccessDenied,
    ConnectionFailed,
    Fenced,
    GroupConflict,
    PublishFailed,
    TooLarge,
    TransportError,
)

# Retrying cannot mend these.
HOPELESS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE})
# The topic or partition is not known to this client.
NOT_THERE = frozenset({KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
# Denied, and the missing right, as docs/security.md grants it.
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "Read on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: (
        "Read on the consumer group (for a replier) or Describe on requestor-* (for a requestor)"
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "Create on the cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "Write on the transactional id",
}
# The members of a group share no `partition.assignment.strategy`, or not even the protocol of the group.
OTHER_GROUP = frozenset({KafkaError.INCONSISTENT_GROUP_PROTOCOL, KafkaError.UNSUPPORTED_ASSIGNOR})
_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})
_SAME_INSTANCE = frozenset({KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID})
# A consumer's fatal error has the code _FATAL, and its cause only as text: the group's protocol decides which.
_SAME_INSTANCE_TEXTS = ("group.instance.id", "instance ID")


def translate(error: KafkaError, doing: str) -> TransportError:
    """librdkafka's error as this project's, with what was being done."""
    code = error.code()
    if code in DENIED:
        right = DENIED[code]
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED and not doing.startswith(("reading", "committing")):
            right = "Write on the topic"
        return AccessDenied(f"{doing}: these credentials lack the right {right}: {error.str()}")
    if code in HOPELESS:
        return ConnectionFailed(f"{doing}: {error.str()}")
    if code in _FENCED:
        return Fenced(
            f"{doing}: another replier has the same transactional id and took over: give each a name of its own. "
            "Or this one was held up for longer than transaction.timeout.ms: start it again"
        )
    if code in _SAME_INSTANCE or (
        is_fatal(error) and any(text in error.str() for text in _SAME_INSTANCE_TEXTS)
    ):
        return GroupConflict(
            f"{doing}: another member of the group has the same group.instance.id: give each replier's file its own"
        )
    if code in OTHER_GROUP:
        return GroupConflict(
            f"{doing}: the consumer group has members of another program, with another "
            f"partition.assignment.strategy or group.protocol: choose a group of its own"
        )
    if is_too_large(error):
        return TooLarge(
            f"{doing}: larger than message.max.bytes of this client or max.message.bytes of the topic"
        )
    if code in (KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
        return PublishFailed(f"{doing}: not confirmed by the brokers: {error.str()}")
    return TransportError(f"{doing}: {reason_of(error)}")


def reason_of(error: KafkaError) -> str:
    """librdkafka's own words, with what to look at where they do not name it."""
    if error.code() == KafkaError.INVALID_TIMESTAMP:
        return (
            f"{error.str()}: is this machine's clock right? See message.timestamp.before.max.ms of the topic"
        )
    return error.str()


def is_fatal(error: KafkaError) -> bool:
    """Whether the client that reports it is of no use any more."""
    return error.fatal() or error.code() == KafkaError._FATAL


def is_too_large(error: KafkaError) -> bool:
    """Whether a message can never be sent, however often it is tried."""
    return error.code() == KafkaError.MSG_SIZE_TOO_LARGE


def raise_translated(error: KafkaException, doing: str) -> NoReturn:
    """Raise what `translate` makes of a driver's exception."""
    raise translate(error.args[0], doing) from error
