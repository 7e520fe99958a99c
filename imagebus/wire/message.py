"""One message on the bus, and the limits within which it is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from imagebus.errors import BadMessage, ErrorCode

MAX_HEADERS = 100  # headers read of one message; a request of this project carries seven
MAX_HEADER_BYTES = 1024  # read of one header, and of a key
MAX_BYTES = 8 * 1024 * 1024  # of a value that is decoded
# Once parsed, each part of a JSON text takes 30 to 250 bytes. A request of 1,000 images has 1.6 million parts if
# every pixel has brackets of its own, and few objects; its reply has 1,001 of them.
MAX_JSON_PARTS = 2_000_000
MAX_JSON_OBJECTS = 10_000
_BEGINS_AN_OBJECT = re.compile(rb"[ \t\r\n]*\{")  # in JSON's own white space


class Position(NamedTuple):
    """The place of a message in a log, for buses that are one. `timestamp` is Unix time in milliseconds."""

    partition: int
    offset: int
    timestamp: int


class Message(NamedTuple):
    """One message on the bus.

    `receipt` is the bus's private handle on a received message, `attempt` how often it has been received, as
    far as is known: more than once when a reader died with it. `partition` is the one to write to, on a bus
    that has partitions; None leaves it to the key.
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

        Bytes that are not UTF-8 become U+FFFD, and those over `MAX_HEADER_BYTES` are cut off. So an unreadable
        header never counts as missing: no id, hash, type or topic looks like it.
        """
        for header, value in self.headers[:MAX_HEADERS]:
            if header == name and value is not None:
                return text_of(value)
        return None

    def texts(self) -> dict[str, str]:
        """All headers, each as `header` reads it; faster for many."""
        return {
            name: value[:MAX_HEADER_BYTES].decode("utf-8", "replace")  # as `text_of`, without a call for each
            for name, value in reversed(self.headers[:MAX_HEADERS])
            if value is not None
        }


def text_of(value: bytes) -> str:
    """The text of a header or a key."""
    return value[:MAX_HEADER_BYTES].decode(errors="replace")


def too_large() -> BadMessage:
    """The error for a value of more than `MAX_BYTES`, which is not decoded."""
    return BadMessage(ErrorCode.TOO_LARGE, f"a value has at most {MAX_BYTES} bytes")


def read_json(value: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises `BadMessage` (`TOO_LARGE`) if parsing would take too much memory, and `orjson.JSONDecodeError` for
    anything else than an object, without parsing it.
    """
    if len(value) > MAX_BYTES:
        raise too_large()
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
