"""The door in: every message that a replier receives becomes a `Request` here, or a `BadMessage`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.dialects import BY_CONTENT_TYPE, DIALECTS
from imagebus.wire.envelope import OWN, RAW, Envelope, hash_mismatch
from imagebus.wire.message import MAX_BYTES, Message, too_large
from imagebus.wire.pixels import MAX_IMAGES, Images, ImageSpecLike


class Request(NamedTuple):
    """A request: its envelope and its images."""

    envelope: Envelope
    images: Images


def read_request(
    message: Message,
    spec: ImageSpecLike,
    *,
    reply_topics: Sequence[str],
    require_hash: bool = False,
    max_images: int = MAX_IMAGES,
) -> Request:
    """Read a request of 1 to `max_images` images as `spec` says, in any dialect.

    Raises `BadMessage` with the code of the first error. Its `envelope` is None when the message cannot be
    answered, a dead letter: `NO_ID`, `BAD_ID`, and `TOO_LARGE` or `HASH_MISMATCH` when the id would be in the
    body.
    """
    headers = message.texts()
    content_type = headers.get("content-type") or RAW
    dialect = BY_CONTENT_TYPE.get(content_type)
    if dialect is None:
        content_type = content_type.partition(";")[0].strip().lower()
        dialect = BY_CONTENT_TYPE.get(content_type, DIALECTS[OWN])
    envelope = dialect.read_envelope(message, headers, content_type)
    try:
        _check(envelope, message, reply_topics, require_hash)
        read_images = dialect.readers.get(content_type)
        if read_images is None:
            raise BadMessage(ErrorCode.FORMAT, f"content-type is none of {', '.join(BY_CONTENT_TYPE)}")
        return Request(envelope, read_images(envelope, message.value, spec, max_images))
    except BadMessage as error:
        error.envelope = envelope
        raise


def _check(envelope: Envelope, message: Message, reply_topics: Sequence[str], require_hash: bool) -> None:
    """Refuse a foreign reply topic, a reply, and a value that is empty, not intact, too late or too large.

    Raises `BadMessage` (`REPLY_TO`, `WRONG_TYPE`, `EMPTY`, `NO_HASH`, `HASH_MISMATCH`, `EXPIRED`,
    `TOO_LARGE`), before the pixels are decoded.
    """
    if envelope.reply_to is not None and envelope.reply_to not in reply_topics:
        raise BadMessage(ErrorCode.REPLY_TO, "reply_to names a topic that this replier may not answer to")
    if envelope.status is not None:
        raise BadMessage(ErrorCode.WRONG_TYPE, "this is a reply, not a request")
    if not message.value:
        raise BadMessage(ErrorCode.EMPTY, "the request has no value")
    if envelope.intact is None and require_hash:
        raise BadMessage(ErrorCode.NO_HASH, "the request has no sha256 header, which this replier asks for")
    if envelope.intact is False:
        raise hash_mismatch()
    if envelope.deadline is not None and (late := time.time() - envelope.deadline / 1000) > 0:
        raise BadMessage(
            ErrorCode.EXPIRED,
            f"the deadline passed {late:.1f} s before the request was served, by this replier's clock",
        )
    if len(message.value) > MAX_BYTES:
        raise too_large()
