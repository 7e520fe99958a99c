"""A request on its way in."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.envelope import (
    JPEG,
    PNG,
    RAW,
    REPLY_PARTITION,
    TOP,
    TRACEPARENT,
    V2_JSON,
    Envelope,
    check_hash,
    integer,
    is_id,
    reply_partition,
    sha256_hex,
)
from imagebus.wire.message import MAX_HEADER_BYTES, Message, check_size, text_of
from imagebus.wire.openinference import id_in_body, read_inputs
from imagebus.wire.pictures import read_picture
from imagebus.wire.pixels import MAX_IMAGES, Images, read_raw


def read_envelope(message: Message) -> Envelope:
    """Who asks, and where the answer goes.

    Raises `BadMessage` when the message cannot be answered, a dead letter: `NO_ID`, `BAD_ID`, or what
    forbids to look for the id in the body, `TOO_LARGE` and `HASH_MISMATCH`.
    """
    headers = message.texts()
    content_type = headers.get("content-type") or RAW
    if content_type not in (RAW, V2_JSON):
        content_type = content_type.partition(";")[0].strip().lower()
    sha256 = sha256_hex(message.value)
    id = headers.get("correlation_id")
    if id is None and message.key:
        id = text_of(message.key)
    if id is None and content_type == V2_JSON:
        id = id_in_body(message, sha256)
    if id is None:
        raise BadMessage(ErrorCode.NO_ID, "no correlation_id header, no key and no id in the body")
    if not is_id(id):
        raise BadMessage(ErrorCode.BAD_ID, "the request id is not 1 to 64 of A-Z a-z 0-9 . _ -")
    traceparent = headers.get("traceparent")
    requestor = headers.get("requestor")
    return Envelope(
        id=id,
        sha256=sha256,
        content_type=content_type,
        claimed_sha256=headers.get("sha256"),
        # A reply under a key as large as the request would be larger than what the bus takes.
        key=message.key if len(message.key or b"") <= MAX_HEADER_BYTES else None,
        reply_to=headers.get("reply_to"),
        deadline=integer(headers.get("deadline")),
        top=integer(headers.get("top")) or TOP,
        traceparent=traceparent if traceparent and TRACEPARENT.fullmatch(traceparent) else None,
        requestor=requestor if requestor and is_id(requestor) else None,
        reply_partition=reply_partition(message) if REPLY_PARTITION in headers else None,
        status=headers.get("status"),
        shape=headers.get("shape"),
        dtype=headers.get("dtype"),
    )


def check_envelope(
    envelope: Envelope, message: Message, *, reply_topics: Sequence[str], require_hash: bool = False
) -> None:
    """Refuse what is not a request, not whole, too late, or to be answered elsewhere.

    Raises `BadMessage` (`WRONG_TYPE`, `EMPTY`, `NO_HASH`, `HASH_MISMATCH`, `REPLY_TO`, `EXPIRED`); the
    pixels have not been looked at.
    """
    if envelope.reply_to is not None and envelope.reply_to not in reply_topics:
        raise BadMessage(ErrorCode.REPLY_TO, "reply_to names a topic that this replier may not answer to")
    if envelope.status is not None:
        raise BadMessage(ErrorCode.WRONG_TYPE, "this is a reply, not a request")
    if not message.value:
        raise BadMessage(ErrorCode.EMPTY, "the request has no value")
    claimed = envelope.claimed_sha256
    if claimed is None and require_hash:
        raise BadMessage(ErrorCode.NO_HASH, "the request has no sha256 header, which this replier asks for")
    check_hash(claimed, envelope.sha256)
    if envelope.deadline is not None and envelope.deadline < time.time() * 1000:
        raise BadMessage(ErrorCode.EXPIRED, "the deadline passed before the request was served")


def read_images(envelope: Envelope, message: Message, *, max_images: int = MAX_IMAGES) -> Images:
    """The images of a request, uint8 (N, 28, 28) with 1 <= N <= `max_images`.

    Raises `BadMessage` with the code of what is wrong with them.
    """
    check_size(message.value)
    match envelope.content_type:
        case "application/octet-stream":
            return read_raw(envelope, message.value, max_images)
        case "image/png" | "image/jpeg":
            return read_picture(message.value)[np.newaxis]
        case "application/json":
            return read_inputs(message.value, max_images)
        case _:
            raise BadMessage(ErrorCode.FORMAT, f"content-type is none of {RAW}, {PNG}, {JPEG}, {V2_JSON}")
