"""A request's headers, written and read."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.message import Message

RAW = "application/octet-stream"
PNG = "image/png"
JPEG = "image/jpeg"
V2_JSON = "application/json"

TOP = 3  # labels listed for each image unless the request's `top` header asks for another number
REPLY_PARTITION = "kafka_replyPartition"  # Spring Kafka's name for it
_INTEGER = re.compile(r"[0-9]{1,18}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
TRACEPARENT = re.compile(r"[0-9a-f-]{1,64}")


class Envelope(NamedTuple):
    """What must be known of a request to answer it at all, and what its headers say of the pixels."""

    id: str
    sha256: str  # hex digest of the value as it arrived
    content_type: str = RAW
    claimed_sha256: str | None = None  # what the sender says it is
    key: bytes | None = None
    reply_to: str | None = None
    deadline: int | None = None  # Unix time in milliseconds
    top: int = TOP
    traceparent: str | None = None
    requestor: str | None = None  # by which a bus that filters brings the reply to its caller alone
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


def check_hash(claimed: str | None, sha256: str) -> None:
    """Refuse a value that is not what its sender hashed: `BadMessage` (`HASH_MISMATCH`)."""
    if claimed is not None and not hmac.compare_digest(claimed.lower().encode(), sha256.encode()):
        raise BadMessage(
            ErrorCode.HASH_MISMATCH, "the value does not have the SHA-256 that the header states"
        )


def reply_partition_header(number: int) -> tuple[str, bytes]:
    """The header that asks for the reply in this partition, as Spring Kafka writes it: int32, big-endian."""
    return REPLY_PARTITION, number.to_bytes(4, "big")


def reply_partition(message: Message) -> int | None:
    """What `reply_partition_header` wrote; None for anything else."""
    value = next(value for name, value in message.headers if name == REPLY_PARTITION and value is not None)
    return int.from_bytes(value, "big") if len(value) == 4 and value[0] < 0x80 else None


def integer(text: str | None) -> int | None:
    """A decimal number of at most 18 digits, so that no header can make a huge one."""
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None
