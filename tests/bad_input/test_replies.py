"""Replies at the requestor: what is forged, broken or odd is counted, and the right one still waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from imagebus.client import Client
from imagebus.errors import RequestFailed
from imagebus.transports.memory import MemoryBroker, MemoryBus
from imagebus.wire.message import MAX_BYTES, MAX_JSON_OBJECTS, Message

from ..fakes import package
from .rig import CANARY, memory_within

SECONDS = 30.0


class Forger:
    """Someone who sees the requests and may write replies, and in the end tells the truth."""

    def __init__(self) -> None:
        broker = MemoryBroker()
        self._bus = MemoryBus(broker)
        member = self._bus.join("requests", "forger")
        self.client = Client(MemoryBus(broker), timeout=SECONDS)
        self.future = self.client.submit(package(1, 2))
        (self._request,) = member.receive(1, SECONDS)

    def right(self) -> dict[str, Any]:
        """The reply as it should be."""
        return {
            "id": self._request.header("correlation_id"),
            "sha256": self._request.header("sha256"),
            "model": {"name": "m", "version": "1", "sha256": "0"},
            "predictions": [{"label": "a", "probability": 0.5, "top": [["a", 0.5], ["b", 0.25]]}] * 2,
        }

    def says(self, reply: object, *headers: tuple[str, bytes | None]) -> None:
        value = reply if isinstance(reply, bytes) else orjson.dumps(reply)
        self._bus.publish(Message("replies", value, headers=headers))

    def is_found_out(self) -> dict[str, int]:
        """What the client ignored by the time it had the right reply; and nothing else was believed."""
        self.says(self.right())
        labels = [each.label for each in self.future.result(SECONDS).predictions]
        assert labels == ["a", "a"]
        return dict(self.client.ignored)


@pytest.fixture
def forger() -> Iterator[Forger]:
    forger = Forger()
    with forger.client:
        yield forger


def with_prediction(forger: Forger, **changes: Any) -> dict[str, Any]:
    reply = forger.right()
    first, second = reply["predictions"]
    return reply | {"predictions": [first | changes, second]}


@pytest.mark.parametrize("id", ["another-s", "", "../x", "x" * 1000])
def test_a_reply_for_another_s_id_is_counted(forger: Forger, id: str) -> None:
    forger.says(forger.right() | {"id": id})

    assert forger.is_found_out() == {"unknown": 1}


def test_an_error_for_another_s_id_is_counted(forger: Forger) -> None:
    error = {"code": "MODEL", "message": "forged", "retryable": False}
    forger.says({"id": "another-s", "sha256": forger.right()["sha256"], "error": error})

    assert forger.is_found_out() == {"unknown": 1}


@pytest.mark.parametrize("sha256", ["0" * 64, "", "x"])
def test_a_reply_to_other_bytes_is_counted(forger: Forger, sha256: str) -> None:
    error = {"code": "MODEL", "message": "forged", "retryable": False}
    forger.says(forger.right() | {"sha256": sha256})
    forger.says({"id": forger.right()["id"], "sha256": sha256, "error": error})

    assert forger.is_found_out() == {"hash": 2}


@pytest.mark.parametrize("count", [0, 1, 3, 5000])
def test_predictions_for_another_number_of_images_are_counted(forger: Forger, count: int) -> None:
    reply = forger.right()
    forger.says(reply | {"predictions": reply["predictions"][:1] * count})

    assert forger.is_found_out() == {"malformed": 1}


@pytest.mark.parametrize("top", [[], [["a", 0.5]] * 4, [["a", 0.5]] * 1000])
def test_more_labels_than_were_asked_for_or_none_are_counted(forger: Forger, top: Any) -> None:
    forger.says(with_prediction(forger, top=top))

    assert forger.is_found_out() == {"malformed": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"label": 5},
        {"label": None},
        {"label": ["a"]},
        {"label": "\x1b[2J"},
        {"label": "a\nb"},
        {"label": "a\rb"},
        {"label": "a\0"},
        {"label": "\x7f"},
        {"label": "\x9b2J"},
        {"label": "\u202egnp.exe"},
        {"label": "\u2028"},
        {"label": "a" * 10_000},
        {"probability": 1.5},
        {"probability": -0.1},
        {"probability": None},  # what NaN becomes in JSON
        {"probability": True},
        {"probability": "0.5"},
        {"probability": 10**18},
        {"top": None},
        {"top": "ab"},
        {"top": ["ab"]},
        {"top": {"ab": 1}},
        {"top": [["a"]]},
        {"top": [["a", 0.5, 0]]},
        {"top": [[0.5, "a"]]},
        {"top": [["a", 1.5]]},
        {"top": [["a", None]]},
        {"top": [["\x1b[2J", 0.5]]},
    ],
)
def test_a_prediction_that_is_none_is_counted(forger: Forger, changes: dict[str, Any]) -> None:
    forger.says(with_prediction(forger, **changes))

    assert forger.is_found_out() == {"malformed": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 5},
        {"id": None},
        {"sha256": None},
        {"sha256": ["0"]},
        {"model": None},
        {"model": {}},
        {"model": {"name": "m", "version": 1, "sha256": "0"}},
        {"model": {"name": "\x1b[2J", "version": "1", "sha256": "0"}},
        {"predictions": None},
        {"predictions": 2},
        {"predictions": "ab"},
        {"predictions": {"a": 1, "b": 2}},
        {"predictions": [None, None]},
        {"predictions": [{}, {}]},
        {"error": None},
        {"error": "text"},
        {"error": {}},
        {"error": {"code": 5, "message": "", "retryable": False}},
        {"error": {"code": "A", "message": None, "retryable": False}},
        {"error": {"code": "A", "message": "\x1b[2J", "retryable": False}},
        {"error": {"code": "A\nB", "message": "", "retryable": False}},
        {"error": {"code": "A", "message": "x" * 100_000, "retryable": False}},
        {"error": {"code": "A", "message": "", "retryable": "yes"}},
        {"error": {"code": "A", "message": "", "retryable": 1}},
    ],
)
def test_a_reply_of_wrong_types_is_counted(forger: Forger, changes: dict[str, Any]) -> None:
    forger.says(forger.right() | changes)

    assert forger.is_found_out() == {"malformed": 1}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\0" * 1000,
        b"\xff",
        b"null",
        b"[]",
        b'"id"',
        b"{",
        b"[" * 100_000,
        b'{"id":' * 100_000,
        b'{"id": NaN}',
        b'{"id": 1e999}',
        b'{"id": ' + b"1" * 10_000 + b"}",
        b'{"id": "\\ud800"}',
        b'{"error": "SHAPE: text", "id": "1"}',
        b'{"model_name": "m", "outputs": []}',
        b"[" + b"{}," * MAX_JSON_OBJECTS + b"{}]",
    ],
)
def test_what_is_no_reply_at_all_is_counted(forger: Forger, value: bytes) -> None:
    forger.says(value)

    assert forger.is_found_out() == {"malformed": 1}


def test_a_reply_cut_off_anywhere_is_counted(forger: Forger) -> None:
    whole = orjson.dumps(forger.right())

    for length in range(len(whole)):
        forger.says(whole[:length])

    assert forger.is_found_out() == {"malformed": len(whole)}


def test_a_reply_with_nan_in_it_is_counted(forger: Forger) -> None:
    forger.says(orjson.dumps(forger.right()).replace(b"0.5", b"NaN"))

    assert forger.is_found_out() == {"malformed": 1}


def test_huge_replies_are_counted_without_being_read(forger: Forger) -> None:
    reply = forger.right()
    many = orjson.dumps(reply | {"predictions": reply["predictions"][:1] * 100_000})

    huge = bytes(MAX_BYTES + 1)

    with memory_within(1_000_000):
        forger.says(many)
        forger.says(huge)

        assert forger.is_found_out() == {"malformed": 2}


def test_headers_of_a_reply_are_not_believed(forger: Forger) -> None:
    id, digest = forger.right()["id"].encode(), forger.right()["sha256"].encode()
    forger.says(b"{}", ("correlation_id", id), ("sha256", digest), ("status", b"error"))
    forger.says(b"{}", *[("x", None)] * 10_000)

    assert forger.is_found_out() == {"malformed": 2}


def test_a_request_among_the_replies_is_counted(forger: Forger) -> None:
    forger.says(bytes(784), ("correlation_id", forger.right()["id"].encode()))

    assert forger.is_found_out() == {"malformed": 1}


def test_all_of_it_at_once_does_not_keep_the_right_reply_away(forger: Forger) -> None:
    for _ in range(100):
        forger.says(b"garbage")
        forger.says(forger.right() | {"id": CANARY})
        forger.says(forger.right() | {"sha256": "0"})

    assert forger.is_found_out() == {"malformed": 100, "unknown": 100, "hash": 100}


def test_an_error_that_fits_is_believed(forger: Forger) -> None:
    error = {"code": "MODEL", "message": "the model failed on these images", "retryable": True}
    forger.says({"id": forger.right()["id"], "sha256": forger.right()["sha256"], "error": error})

    with pytest.raises(RequestFailed, match="MODEL: the model failed") as failed:
        forger.future.result(SECONDS)
    assert failed.value.retryable
