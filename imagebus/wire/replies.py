"""A reply on its way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from imagebus.errors import BadMessage
from imagebus.wire.envelope import V2_JSON, Envelope
from imagebus.wire.message import Message
from imagebus.wire.openinference import outputs
from imagebus.wire.results import ModelIdentity, Probabilities, Ranked, as_json, model_as_json, rank


def encode_reply(
    envelope: Envelope,
    topic: str,
    model: ModelIdentity,
    labels: Sequence[str],
    probabilities: Probabilities,
    ranked: Ranked | None = None,
) -> Message:
    """The predictions for one request, as its reply message; `probabilities` is (N, len(labels)).

    `ranked` is what `rank` gives for these images with the request's `top` or more, where that was done for
    many requests at once. The id is one that `is_id` lets pass.
    """
    if envelope.content_type == V2_JSON:
        return _reply(envelope, topic, b"ok", orjson.dumps(outputs(envelope, model, labels, probabilities)))
    if ranked is None:
        ranked = rank(labels, probabilities, envelope.top)
    body = b'{"id":"%s","sha256":"%s","model":%s,"predictions":%s}' % (
        envelope.id.encode(),  # which has no character that JSON would escape
        envelope.sha256.encode(),
        model_as_json(model.name, model.version, model.sha256),
        as_json(ranked, envelope.top),
    )
    return _reply(envelope, topic, b"ok", body)


def encode_error(envelope: Envelope, topic: str, error: BadMessage, *, retryable: bool = False) -> Message:
    """The error that answers one request, as its reply message."""
    if envelope.content_type == V2_JSON:
        body: dict[str, Any] = {"error": f"{error.code}: {error}", "id": envelope.id}
    else:
        body = {
            "id": envelope.id,
            "sha256": envelope.sha256,
            "error": {"code": error.code, "message": str(error), "retryable": retryable},
        }
    return _reply(envelope, topic, b"error", orjson.dumps(body))


def _reply(envelope: Envelope, topic: str, status: bytes, value: bytes) -> Message:
    headers = [
        ("correlation_id", envelope.id.encode()),
        ("status", status),
        ("sha256", envelope.sha256.encode()),
        ("content-type", V2_JSON.encode()),
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
