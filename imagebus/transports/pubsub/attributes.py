"""Messages of this project as messages of Pub/Sub, and back; both are of plain protocol buffers.

Pub/Sub has attributes in place of headers: text only, each name once, in no order. Bytes that are no text
travel as base64 under `NAME;base64`, a header without a value as `NAME;none`, and a key that is not the
correlation id as `imagebus_key`; so a message survives the round trip, apart from a second header of the same name.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from google.pubsub_v1 import PubsubMessage as _PubsubMessage

from imagebus.errors import TooLarge
from imagebus.wire.message import Message, Position

# Limits of the service, of which the emulator knows nothing: https://cloud.google.com/pubsub/quotas
MAX_PUBLISH_BYTES = 10_000_000  # of a publish request, all its messages together
MAX_PUBLISH_MESSAGES = 1000
MAX_ATTRIBUTES = 100
MAX_NAME_BYTES = 256
MAX_TEXT_BYTES = 1024
OVERHEAD_BYTES = 1000  # of one message in a request: lengths, tags and the topic's name

PubsubMessage: Any = type(_PubsubMessage.pb(_PubsubMessage()))  # ten times as fast as its wrapper

_ID = "correlation_id"
_KEY = "imagebus_key"
_BASE64, _NONE = ";base64", ";none"
_RESERVED = "goog"  # names that only Google's own programs may write
_TRACE = "googclient_traceparent"  # where they put `traceparent`


def to_pubsub(message: Message) -> Any:
    """A `PubsubMessage` with the same content. Raises `TooLarge` for what the service would refuse."""
    headers = list(message.headers)
    id = next((value for name, value in headers if name == _ID), None)
    if message.key is not None and message.key != id:
        headers.append((_KEY, message.key))
    attributes: dict[str, str] = {}
    names: set[str] = set()
    for name, value in headers:
        if name not in names and not name.startswith(_RESERVED):
            names.add(name)
            attribute, text = _as_text(name, value)
            attributes[attribute] = text
    _check(message, attributes)
    return PubsubMessage(data=message.value, attributes=attributes)


def size(message: Any) -> int:
    """What a `PubsubMessage` counts for in a request, in bytes, and a little more."""
    return int(message.ByteSize()) + OVERHEAD_BYTES


def from_pubsub(message: Any, topic: str, attempt: int) -> Message:
    """The message that was sent. Its receipt is the message's id."""
    attributes = dict(message.attributes)
    key: bytes | None = None
    correlation_id: bytes | None = None
    headers: list[tuple[str, bytes | None]] = []
    for attribute in sorted(attributes):
        name, value = _as_bytes(attribute, attributes[attribute])
        if name == _KEY:
            key = value
            continue
        if name == _TRACE and "traceparent" not in attributes:
            name = "traceparent"
        elif name == _ID and correlation_id is None:
            correlation_id = value
        headers.append((name, value))
    id = message.message_id
    # There are no offsets, but the id is a number too.
    number = int(id) % 2**63 if id.isdigit() else 0
    return Message(
        topic,
        message.data,
        correlation_id if key is None else key,
        headers,
        receipt=id,
        attempt=attempt,
        position=Position(0, number, message.publish_time.ToMilliseconds()),
    )


def _as_text(name: str, value: bytes | None) -> tuple[str, str]:
    if value is None:
        return name + _NONE, ""
    try:
        return name, value.decode()
    except UnicodeDecodeError:
        return name + _BASE64, base64.b64encode(value).decode()


def _as_bytes(attribute: str, text: str) -> tuple[str, bytes | None]:
    if ";" not in attribute:
        return attribute, text.encode()
    if attribute.endswith(_NONE):
        return attribute.removesuffix(_NONE), None
    if attribute.endswith(_BASE64):
        try:
            return attribute.removesuffix(_BASE64), base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):  # it was not written by this project
            pass
    return attribute, text.encode()


def _check(message: Message, attributes: dict[str, str]) -> None:
    """Raise `TooLarge`, naming the part and the service's limit."""
    where = f"a message to topic {message.topic!r}"
    if len(attributes) > MAX_ATTRIBUTES:
        raise TooLarge(f"{where} has {len(attributes)} attributes, Pub/Sub takes {MAX_ATTRIBUTES}")
    total = len(message.value) + OVERHEAD_BYTES
    for name, text in attributes.items():
        lengths = len(name.encode()), len(text.encode())
        total += sum(lengths)
        if lengths[0] > MAX_NAME_BYTES:
            raise TooLarge(
                f"{where} has an attribute whose name is {lengths[0]} bytes long, Pub/Sub takes {MAX_NAME_BYTES}"
            )
        if lengths[1] > MAX_TEXT_BYTES:
            raise TooLarge(
                f"{where} has an attribute of {lengths[1]} bytes, Pub/Sub takes {MAX_TEXT_BYTES}: {name[:64]!r}"
            )
    if total > MAX_PUBLISH_BYTES:
        raise TooLarge(
            f"{where} has {len(message.value)} bytes, Pub/Sub takes {MAX_PUBLISH_BYTES} with attributes"
        )
