"""One message on the bus, and the limits within which it is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from imagebus.errors import BadMessage, ErrorCode

MAX_HEADERS = 100  # headers looked at in one message; a request of this project carries seven
MAX_HEADER_BYTES = 1024  # read of one header, and of a key
MAX_BYTES = 8 * 1024 * 1024  # of a value that is decoded
# Once parsed, each part of a JSON text takes 30 to 250 bytes. A request of 1,000 images has 1.6 million
# parts when every pixel stands in brackets of its own, and few objects; its reply has 1,001 of them.
MAX_JSON_PARTS = 2_000_000
MAX_JSON_OBJECTS = 10_000
_BEGINS_AN_OBJECT = re.compile(rb"[ \t\r\n]*\{")  # in JSON's own white space


class Position(NamedTuple):
    """Where a message stood in a log, for buses that are one. `timestamp` is Unix time in milliseconds."""

    partition: int
    offset: int
    timestamp: int


class Message(NamedTuple):
    """One message on the bus.

    `receipt` is the bus's private handle on a received one, `attempt` how often it was received
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
                return text_of(value)
        return None

    def texts(self) -> dict[str, str]:
        """All headers, as `header` reads each: for who asks for many."""
        return {
            name: value[:MAX_HEADER_BYTES].decode("utf-8", "replace")  # as `text_of`, without a call for each
            for name, value in reversed(self.headers[:MAX_HEADERS])
            if value is not None
        }


def text_of(value: bytes) -> str:
    """The text of a header or a key."""
    return value[:MAX_HEADER_BYTES].decode(errors="replace")


def too_large() -> BadMessage:
    """Why a value of more than `MAX_BYTES` is not decoded."""
    return BadMessage(ErrorCode.TOO_LARGE, f"a value has at most {MAX_BYTES} bytes")


def read_json(value: bytes) -> dict[str, Any]:
    """What a JSON text says that is an object.

    Raises `BadMessage` (`TOO_LARGE`) before parsing it would take too much memory, and
    `orjson.JSONDecodeError`, for what is no object without parsing it at all.
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
