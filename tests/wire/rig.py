"""Requests as they come, and what the door says to them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagebus.errors import BadMessage
from imagebus.wire.message import Message
from imagebus.wire.pixels import FASHION, Images
from imagebus.wire.requests import Request, read_request


def request(value: bytes = bytes(784), **headers: str | bytes | None) -> Message:
    """A request with these headers alone; underscores in their names are as the wire has them."""
    encoded = [
        (name.replace("_type", "-type"), text.encode() if isinstance(text, str) else text)
        for name, text in headers.items()
    ]
    return Message("requests", value, headers=encoded)


def read(message: Message) -> Request:
    return read_request(message, FASHION, reply_topics=("replies",))


def refused(message: Message) -> str:
    """The code of a request whose sender is told."""
    error = _error_of(message)
    assert error.envelope is not None
    return error.code


def unanswerable(message: Message) -> str:
    """The code of a message whose sender cannot be told: a dead letter."""
    error = _error_of(message)
    assert error.envelope is None
    return error.code


def _error_of(message: Message) -> BadMessage:
    with pytest.raises(BadMessage) as refusal:
        read(message)
    return refusal.value


def images_of(value: bytes, content_type: str = "application/octet-stream", **headers: str) -> Images:
    return read(request(value, correlation_id="1", content_type=content_type, **headers)).images


def code_of(value: bytes, content_type: str = "application/octet-stream", **headers: str) -> str:
    return refused(request(value, correlation_id="1", content_type=content_type, **headers))


def v2(data: Any, shape: Any = (1, 28, 28), datatype: Any = "UINT8") -> bytes:
    tensor = {"name": "images", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor]}).encode()
