"""What is on the wire: envelopes, requests and replies as bytes and headers.

A request carries pixels (`imagebus.formats` reads them) under a request id and a SHA-256. A reply is
JSON that a person can read in any console consumer, under the same key and `correlation_id`:

    {"id": "…", "sha256": "…", "model": {"name": …, "version": …, "sha256": …},
     "predictions": [{"label": "Sneaker", "probability": 0.981, "top": [["Sneaker", 0.981], …]}, …]}
    {"id": "…", "sha256": "…", "error": {"code": "HASH_MISMATCH", "message": "…", "retryable": false}}

A request in Open Inference Protocol V2 JSON is answered in V2 JSON. Nothing here knows which bus
carries the messages.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from imagebus.errors import BadMessage
from imagebus.predictions import Probabilities, Ranked, as_json, rank

Images = npt.NDArray[np.uint8]  # (N, 28, 28), grey levels 0-255

RAW = "application/octet-stream"
PNG = "image/png"
JPEG = "image/jpeg"
V2_JSON = "application/json"

TOP = 3  # labels listed for each image unless the request's `top` header asks for another number
MAX_HEADERS = 100  # headers looked at in one message; a request of this project carries seven
MAX_HEADER_BYTES = 1024  # read of one header, and of a key
MAX_BYTES = 8 * 1024 * 1024  # of a value that is decoded
# Once parsed, each part of a JSON text takes 30 to 250 bytes. A request of 1,000 images has 1.6 million
# parts when every pixel stands in brackets of its own, and few objects; its reply has 1,001 of them.
MAX_JSON_PARTS = 2_000_000
MAX_JSON_OBJECTS = 10_000
DEAD_LETTER_BYTES = 900_000  # of a value kept there: with key and headers below Kafka's default limit of 1 MB
# Kept there: with those that tell its reason and origin below Pub/Sub's limit of 100.
DEAD_LETTER_HEADERS = 80
DEAD_LETTER_HEADER_BYTES = 64_000  # of all names and values of the headers kept there
DEAD_LETTER_CODE = "dead_letter_code"
DEAD_LETTER_CUT = "dead_letter_cut"
_DEAD_LETTER_REASON = frozenset(
    {DEAD_LETTER_CODE, DEAD_LETTER_CUT, "kafka_dlt-exception-fqcn", "kafka_dlt-exception-message"}
)
REPLY_PARTITION = "kafka_replyPartition"  # Spring Kafka's name for it
_BEGINS_AN_OBJECT = re.compile(rb"[ \t\r\n]*\{")  # in JSON's own white space
_INTEGER = re.compile(r"[0-9]{1,18}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f-]{1,64}")


class ErrorCode(StrEnum):
    """The fixed words an error reply or a dead letter gives as its reason."""

    NO_ID = "NO_ID"
    BAD_ID = "BAD_ID"
    EMPTY = "EMPTY"
    TOO_LARGE = "TOO_LARGE"
    FORMAT = "FORMAT"
    WRONG_TYPE = "WRONG_TYPE"
    NO_HASH = "NO_HASH"
    HASH_MISMATCH = "HASH_MISMATCH"
    SHAPE = "SHAPE"
    DTYPE = "DTYPE"
    COUNT = "COUNT"
    VALUES = "VALUES"
    JSON = "JSON"
    BAD_IMAGE = "BAD_IMAGE"
    PIXELS_MAX = "PIXELS_MAX"
    REPLY_TO = "REPLY_TO"
    EXPIRED = "EXPIRED"
    MODEL = "MODEL"
    KILLER = "KILLER"


class Position(NamedTuple):
    """Where a message stood in a log, for buses that are one. `timestamp` is Unix time in milliseconds."""

    partition: int
    offset: int
    timestamp: int


class Message(NamedTuple):
    """One message on the bus.

    `receipt` is the transport's private handle on a received one, `attempt` how often it was received
    with this time, as far as is known: more than once when a reader died with it. `partition` is where one
    that is sent shall be written, on a bus that has partitions; None leaves it to the key.
    """

    topic: str
    value: bytes
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    receipt: Any = None
    attempt: int = 1
    position: Position | None = None
    partition: int | None = None

    def header(self, name: str) -> str | None:
        """The text of the first header called `name`; None when there is none, or only without a value.

        What is not UTF-8 is replaced by U+FFFD, what is over `MAX_HEADER_BYTES` cut off. So a header that
        cannot be read is never taken for one that is not there: no id, hash, type or topic looks like it.
        """
        for header, value in self.headers[:MAX_HEADERS]:
            if header == name and value is not None:
                return _text(value)
        return None

    def texts(self) -> dict[str, str]:
        """All headers, as `header` reads each: for who asks for many."""
        return {
            name: _text(value) for name, value in reversed(self.headers[:MAX_HEADERS]) if value is not None
        }


def _text(value: bytes) -> str:
    return value[:MAX_HEADER_BYTES].decode(errors="replace")


class ModelIdentity(Protocol):
    """What a reply says of the model that answered; a classifier from outside the package brings its own."""

    @property
    def name(self) -> str:
        """Its name, the same from version to version."""

    @property
    def version(self) -> str:
        """Which of the models of that name."""

    @property
    def sha256(self) -> str:
        """The digest (hex) of its file."""


@dataclass(frozen=True, slots=True)
class Model:
    """Which model answered: its name, version and the SHA-256 (hex) of its file."""

    name: str
    version: str
    sha256: str


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


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image's answer: the likeliest label, its probability, and the likeliest few in order."""

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request, as its caller sees it. `round_trip` is in seconds."""

    id: str
    sha256: str
    model: Model
    predictions: tuple[Prediction, ...]
    round_trip: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """The error that answers one request."""

    id: str
    sha256: str
    code: str
    message: str
    retryable: bool


def is_id(text: str) -> bool:
    """Whether a request may have this id."""
    return _ID.fullmatch(text) is not None


def sha256_hex(value: bytes) -> str:
    """The SHA-256 of `value` as 64 lower-case hex digits."""
    return hashlib.sha256(value).hexdigest()


# --- requests ----------------------------------------------------------------------------------


def encode_request(
    images: Images,
    topic: str,
    *,
    id: str | None = None,
    reply_to: str | None = None,
    deadline: int | None = None,
    top: int = TOP,
) -> Message:
    """A package of images as a request message.

    `images` is uint8, (N, 28, 28); `deadline` is Unix time in milliseconds, after which nobody waits
    for the answer. Without `id` a new UUID4 is taken.
    """
    if images.ndim != 3 or images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 (N, 28, 28)")
    id = id or str(uuid.uuid4())
    value = images.tobytes()
    headers = [
        ("correlation_id", id.encode()),
        ("sha256", sha256_hex(value).encode()),
        ("content-type", RAW.encode()),
        ("shape", ",".join(map(str, images.shape)).encode()),
        ("dtype", b"uint8"),
    ]
    if reply_to is not None:
        headers.append(("reply_to", reply_to.encode()))
    if deadline is not None:
        headers.append(("deadline", str(deadline).encode()))
    if top != TOP:
        headers.append(("top", str(top).encode()))
    return Message(topic, value, key=id.encode(), headers=headers)


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
        id = _text(message.key)
    if id is None and content_type == V2_JSON:
        id = _id_in_body(message, sha256)
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
        deadline=_integer(headers.get("deadline")),
        top=_integer(headers.get("top")) or TOP,
        traceparent=traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None,
        requestor=requestor if requestor and is_id(requestor) else None,
        reply_partition=_reply_partition(message) if REPLY_PARTITION in headers else None,
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
    _check_hash(claimed, envelope.sha256)
    if envelope.deadline is not None and envelope.deadline < time.time() * 1000:
        raise BadMessage(ErrorCode.EXPIRED, "the deadline passed before the request was served")


def _check_hash(claimed: str | None, sha256: str) -> None:
    if claimed is not None and not hmac.compare_digest(claimed.lower().encode(), sha256.encode()):
        raise BadMessage(
            ErrorCode.HASH_MISMATCH, "the value does not have the SHA-256 that the header states"
        )


def reply_partition_header(number: int) -> tuple[str, bytes]:
    """The header that asks for the reply in this partition, as Spring Kafka writes it: int32, big-endian."""
    return REPLY_PARTITION, number.to_bytes(4, "big")


def _reply_partition(message: Message) -> int | None:
    """What `reply_partition_header` wrote; None for anything else."""
    value = next(value for name, value in message.headers if name == REPLY_PARTITION and value is not None)
    return int.from_bytes(value, "big") if len(value) == 4 and value[0] < 0x80 else None


def _id_in_body(message: Message, sha256: str) -> str | None:
    """The `id` of a V2 body, which is decoded for it: never one that is too large, or not what was sent."""
    _check_hash(message.header("sha256"), sha256)
    try:
        body = read_json(message.value)
    except orjson.JSONDecodeError:
        return None
    id = body.get("id")
    return id if isinstance(id, str) else None


def check_size(value: bytes) -> None:
    """Refuse to decode what is too large for a request or a reply: `BadMessage` (`TOO_LARGE`)."""
    if len(value) > MAX_BYTES:
        raise BadMessage(ErrorCode.TOO_LARGE, f"a value has at most {MAX_BYTES} bytes")


def read_json(value: bytes) -> dict[str, Any]:
    """What a JSON text says that is an object.

    Raises `BadMessage` (`TOO_LARGE`) before parsing it would take too much memory, and
    `orjson.JSONDecodeError`, for what is no object without parsing it at all.
    """
    check_size(value)
    if _BEGINS_AN_OBJECT.match(value) is None:
        raise orjson.JSONDecodeError("not an object", "", 0)
    parts = value.count(b",") + value.count(b"[")
    if parts > MAX_JSON_PARTS or value.count(b"{") > MAX_JSON_OBJECTS:
        raise BadMessage(
            ErrorCode.TOO_LARGE,
            f"a JSON value has at most {MAX_JSON_PARTS} parts and {MAX_JSON_OBJECTS} objects",
        )
    body: dict[str, Any] = orjson.loads(value)
    return body


def _integer(text: str | None) -> int | None:
    """A decimal number of at most 18 digits, so that no header can make a huge one."""
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


# --- replies -----------------------------------------------------------------------------------


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
        return _reply(envelope, topic, b"ok", orjson.dumps(_v2_body(envelope, model, labels, probabilities)))
    if ranked is None:
        ranked = rank(labels, probabilities, envelope.top)
    body = b'{"id":"%s","sha256":"%s","model":%s,"predictions":%s}' % (
        envelope.id.encode(),  # which has no character that JSON would escape
        envelope.sha256.encode(),
        _model_as_json(model.name, model.version, model.sha256),
        as_json(ranked, envelope.top),
    )
    return _reply(envelope, topic, b"ok", body)


@lru_cache
def _model_as_json(name: str, version: str, sha256: str) -> bytes:
    return orjson.dumps({"name": name, "version": version, "sha256": sha256})


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


def decode_reply(message: Message) -> Reply | ErrorReply:
    """Read a reply of this project's own JSON.

    Raises `BadMessage` (`JSON`, `TOO_LARGE`) when it is not one: forged, cut off, or another program's.
    """
    try:
        body = read_json(message.value)
        id, digest = body["id"], body["sha256"]
        if "error" in body:
            error = body["error"]
            error_reply = ErrorReply(id, digest, error["code"], error["message"], error["retryable"])
            _check_types(error_reply)
            return error_reply
        model = Model(body["model"]["name"], body["model"]["version"], body["model"]["sha256"])
        predictions = tuple(
            Prediction(each["label"], each["probability"], tuple((label, p) for label, p in each["top"]))
            for each in body["predictions"]
        )
        reply = Reply(id, digest, model, predictions)
        _check_types(reply)
        return reply
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadMessage(ErrorCode.JSON, "not a reply of this project") from error


def dead_letter(
    message: Message, topic: str, error: BadMessage, *, group: str = "", whole: bool = True
) -> Message:
    """What cannot be answered, kept for a person to look at: the bytes as they came, and why.

    The headers that tell reason and origin are the ones that Spring Kafka writes, so that its tools read
    them: numbers are big-endian, and a message that comes here again keeps those of its first time before
    the new ones. `dead_letter_code` has the code alone. What would make it larger than the bus takes is
    cut off: a value at `DEAD_LETTER_BYTES`, a key or a header at `MAX_HEADER_BYTES`, headers after so many.
    Then `dead_letter_cut` has the size that the value had. Without `whole`, for a topic that takes less still,
    there is no value, no key and no header of the message's own: the rest tells where it stands.
    """
    value, key, kept = message.value[:DEAD_LETTER_BYTES], message.key, _kept_headers(message)
    if not whole:
        value, key, kept = b"", None, []
    if key is not None:
        key = key[:MAX_HEADER_BYTES]
    # The reason comes first, so that `Message.header` sees it however many headers are kept.
    headers: list[tuple[str, bytes | None]] = [
        (DEAD_LETTER_CODE, error.code.encode()),
        ("kafka_dlt-exception-fqcn", b"imagebus.BadMessage"),
        ("kafka_dlt-exception-message", f"{error.code}: {error}".encode()),
    ]
    if (value, key, kept) != (message.value, message.key, list(message.headers)):
        headers.append((DEAD_LETTER_CUT, str(len(message.value)).encode()))
    headers += [(name, text) for name, text in kept if name not in _DEAD_LETTER_REASON]
    headers.append(("kafka_dlt-original-topic", message.topic.encode()))
    if group:
        headers.append(("kafka_dlt-original-consumer-group", group.encode()))
    if message.position is not None:
        headers += [
            ("kafka_dlt-original-partition", struct.pack(">i", message.position.partition)),
            ("kafka_dlt-original-offset", struct.pack(">q", message.position.offset)),
            ("kafka_dlt-original-timestamp", struct.pack(">q", message.position.timestamp)),
            ("kafka_dlt-original-timestamp-type", b"CreateTime"),
        ]
    return Message(topic, value, key=key, headers=headers)


def _kept_headers(message: Message) -> list[tuple[str, bytes | None]]:
    """The first headers of a message, as many as a dead letter has room for."""
    kept: list[tuple[str, bytes | None]] = []
    room = DEAD_LETTER_HEADER_BYTES
    for name, value in message.headers[:DEAD_LETTER_HEADERS]:
        text = None if value is None else value[:MAX_HEADER_BYTES]
        room -= len(name.encode()) + len(text or b"")
        if room < 0:
            break
        kept.append((name, text))
    return kept


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


def _v2_body(
    envelope: Envelope, model: ModelIdentity, labels: Sequence[str], probabilities: Probabilities
) -> dict[str, Any]:
    count, classes = probabilities.shape
    return {
        "model_name": model.name,
        "model_version": model.version,
        "id": envelope.id,
        "outputs": [
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": [count, classes],
                "data": probabilities.astype(np.float64).round(6).ravel().tolist(),
            },
            {
                "name": "labels",
                "datatype": "BYTES",
                "shape": [count],
                "data": [labels[index] for index in probabilities.argmax(axis=1)],
            },
        ],
    }


def _check_types(reply: Reply | ErrorReply) -> None:
    """Dataclasses do not check their fields, and a reply may come from anyone.

    Its texts are shown on terminals, so what is not printable is refused.
    """
    texts: list[object] = [reply.id, reply.sha256]
    numbers: list[Any] = []
    if isinstance(reply, ErrorReply):
        texts += [reply.code, reply.message]
        if not isinstance(reply.retryable, bool):
            raise TypeError("retryable is neither true nor false")
    else:
        texts += [reply.model.name, reply.model.version, reply.model.sha256]
        for prediction in reply.predictions:
            texts += [prediction.label, *(label for label, _ in prediction.top)]
            numbers += [prediction.probability, *(p for _, p in prediction.top)]
    if not all(
        isinstance(text, str) and text.isprintable() and len(text) <= MAX_HEADER_BYTES for text in texts
    ):
        raise ValueError("a text is not a short printable string")
    if not all(type(number) in (int, float) and 0 <= number <= 1 for number in numbers):
        raise ValueError("a probability is not a number from 0 to 1")
