"""The door out: a replier's answers as messages in the dialect of the request."""

from __future__ import annotations

import time
from collections.abc import Sequence

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.dialects import DIALECTS
from imagebus.wire.envelope import REPLIER_TIME, V2_JSON, Envelope
from imagebus.wire.message import Message
from imagebus.wire.results import ModelIdentity, Probabilities, Ranked

_JSON = V2_JSON.encode()


def encode_reply(
    envelope: Envelope,
    topic: str,
    model: ModelIdentity,
    labels: Sequence[str],
    probabilities: Probabilities,
    ranked: Ranked | None = None,
) -> Message:
    """The predictions for one request, as its reply message; `probabilities` is (N, len(labels)).

    `ranked` is the result of `rank` for these images with the request's `top` or more, where it was called for
    many requests at once. The id is valid by `is_id`.
    """
    value = DIALECTS[envelope.dialect].write_reply(envelope, model, labels, probabilities, ranked)
    return _reply(envelope, topic, b"ok", value)


def encode_error(envelope: Envelope, topic: str, error: BadMessage, *, retryable: bool = False) -> Message:
    """The error that answers one request, as its reply message.

    `EXPIRED` says in headers which `deadline` passed, since a request may have been sent again with a later one, and
    by which time: clocks may differ.
    """
    value = DIALECTS[envelope.dialect].write_error(envelope, error, retryable)
    reply = _reply(envelope, topic, b"error", value)
    if error.code != ErrorCode.EXPIRED:
        return reply
    times = {"deadline": envelope.deadline, REPLIER_TIME: round(time.time() * 1000)}
    return reply._replace(headers=[*reply.headers, *((name, str(ms).encode()) for name, ms in times.items())])


def _reply(envelope: Envelope, topic: str, status: bytes, value: bytes) -> Message:
    headers = [
        ("correlation_id", envelope.id.encode()),
        ("status", status),
        ("sha256", envelope.sha256.encode()),
        ("content-type", _JSON),
    ]
    if envelope.traceparent is not None:
        headers.append(("traceparent", envelope.traceparent.encode()))
    if envelope.requestor is not None:
        headers.append(("requestor", envelope.requestor.encode()))
    return Message(
        topic,
        value,
        key=envelope.key or envelope.id.encode(),
        headers=headers,
        partition=envelope.reply_partition,
    )
