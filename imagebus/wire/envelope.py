"""The headers of a request: its id, where the answer goes, and how to read the pixels."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.message import MAX_HEADER_BYTES, Message, text_of

OWN = "imagebus"  # our own dialect

RAW = "application/octet-stream"
PNG = "image/png"
JPEG = "image/jpeg"
V2_JSON = "application/json"

TOP = 3  # labels listed for each image unless the request's `top` header asks for another number
REPLIER_TIME = "replier_time"  # of an `EXPIRED`: Unix time in milliseconds, by the clock that judged
REPLY_PARTITION = "kafka_replyPartition"  # Spring Kafka's name for it
_INTEGER = re.compile(r"[0-9]{1,18}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f-]{1,64}")


class Envelope(NamedTuple):
    """What it takes to answer a request, and what its headers say of the pixels."""

    id: str
    sha256: str  # hex digest of the value as it arrived
    dialect: str = OWN  # of request and reply: a name in `imagebus.wire.dialects.DIALECTS`
    content_type: str = RAW
    intact: bool | None = None  # whether the value has the stated hash; None without one
    key: bytes | None = None
    reply_to: str | None = None
    deadline: int | None = None  # Unix time in milliseconds
    top: int = TOP
    traceparent: str | None = None
    requestor: str | None = None  # for a bus that filters replies by caller
    reply_partition: int | None = None  # the one that the caller reads
    status: str | None = None  # of a reply
    shape: str | None = None
    dtype: str | None = None


def is_id(text: str) -> bool:
    """Whether a request may have this id."""
    return _ID.fullmatch(text) is not None


def sha256_hex(value: bytes) -> str:
    """The SHA-256 of `value` as 64 lower-case hex digits."""
    return hashlib.sha256(value).hexdigest()


def read_envelope(
    message: Message,
    headers: Mapping[str, str],
    content_type: str,
    *,
    dialect: str = OWN,
    id_in_body: Callable[[bytes], str | None] | None = None,
) -> Envelope:
    """The envelope of a request; `headers` are the message's texts.

    The id comes from the header, else the key, else `id_in_body`, if the value has the stated hash.
    Raises `BadMessage` when the message cannot be answered: `NO_ID`, `BAD_ID`, `HASH_MISMATCH` and what
    `id_in_body` raises.
    """
    sha256 = sha256_hex(message.value)
    claimed = headers.get("sha256")
    intact = None if claimed is None else hmac.compare_digest(claimed.lower().encode(), sha256.encode())
    id = headers.get("correlation_id")
    if id is None and message.key:
        id = text_of(message.key)
    if id is None and id_in_body is not None:
        if intact is False:
            raise hash_mismatch()
        id = id_in_body(message.value)
    if id is None:
        raise BadMessage(ErrorCode.NO_ID, "no correlation_id header, no key and no id in the body")
    if not is_id(id):
        raise BadMessage(ErrorCode.BAD_ID, "the request id is not 1 to 64 of A-Z a-z 0-9 . _ -")
    traceparent = headers.get("traceparent")
    requestor = headers.get("requestor")
    return Envelope(
        id=id,
        sha256=sha256,
        dialect=dialect,
        content_type=content_type,
        intact=intact,
        # A reply with a key as large as a request could be too large for the bus.
        key=message.key if len(message.key or b"") <= MAX_HEADER_BYTES else None,
        reply_to=headers.get("reply_to"),
        deadline=integer_of(headers.get("deadline")),
        top=integer_of(headers.get("top")) or TOP,
        traceparent=traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None,
        requestor=requestor if requestor and is_id(requestor) else None,
        reply_partition=_reply_partition(message) if REPLY_PARTITION in headers else None,
        status=headers.get("status"),
        shape=headers.get("shape"),
        dtype=headers.get("dtype"),
    )


def hash_mismatch() -> BadMessage:
    """The error for a value without the stated hash, which is not decoded."""
    return BadMessage(ErrorCode.HASH_MISMATCH, "the value does not have the SHA-256 that the header states")


def with_deadline(request: Message, deadline: int) -> Message:
    """The same request with another deadline, Unix time in milliseconds."""
    others = [header for header in request.headers if header[0] != "deadline"]
    return request._replace(headers=[*others, ("deadline", str(deadline).encode())])


def reply_partition_header(number: int) -> tuple[str, bytes]:
    """The header that asks for the reply in this partition, as Spring Kafka writes it: int32, big-endian."""
    return REPLY_PARTITION, number.to_bytes(4, "big")


def _reply_partition(message: Message) -> int | None:
    """What `reply_partition_header` wrote; None for anything else."""
    value = next(value for name, value in message.headers if name == REPLY_PARTITION and value is not None)
    return int.from_bytes(value, "big") if len(value) == 4 and value[0] < 0x80 else None


def integer_of(text: str | None) -> int | None:
    """The value of a header as a decimal number of at most 18 digits, so that no header can make a huge one."""
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None
