"""One record through a replier, and what must be true whatever is in it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import orjson

from imagebus.answering import Answering
from imagebus.transports.memory import MemoryBroker, MemoryBus
from imagebus.wire.envelope import sha256_hex
from imagebus.wire.message import Message

from ..fakes import FirstPixel

RAW, PNG, JPEG, V2 = "application/octet-stream", "image/png", "image/jpeg", "application/json"
ALLOWANCE = 4_000_000  # bytes that a request may take beside twice its own size
CANARY = "canary"  # tests write it into what they send; no error text may have it
IMAGE = bytes(784)  # of the class "a"

Headers = dict[str, str | bytes | None]


class Outcome(NamedTuple):
    """What became of one record: `code` is "ok" for predictions."""

    answered: bool  # else it is a dead letter
    code: str
    message: Message


def request(value: bytes = IMAGE, id: str | bytes | None = "1", **headers: str | bytes | None) -> Message:
    """A request with headers; underscores in the names of the usual ones are as the wire has them."""
    named = {"content-type" if name == "content_type" else name: text for name, text in headers.items()}
    if id is not None:
        named = {"correlation_id": id, **named}
    return message(value, list(named.items()))


def message(
    value: bytes, headers: Sequence[tuple[str, str | bytes | None]] = (), key: bytes | None = None
) -> Message:
    """A record with exactly these headers, in their order, also twice the same."""
    encoded = [(name, text.encode() if isinstance(text, str) else text) for name, text in headers]
    return Message("requests", value, key, encoded)


def v2(data: Any, shape: Any = (1, 28, 28), datatype: Any = "UINT8", **more: Any) -> bytes:
    """A V2 body with one tensor."""
    tensor = {"name": "images", "shape": shape, "datatype": datatype, "data": data}
    return orjson.dumps({"inputs": [tensor], **more})


def outcome(sent: Message, *, require_hash: bool = False) -> Outcome:
    """Serve one record as `Worker.run` does: received, answered, committed.

    Whatever it is: nothing is raised, it has exactly one outcome, the offset moves on, and an error says
    what is wrong in fixed words.
    """
    broker = MemoryBroker()
    sender, bus = MemoryBus(broker), MemoryBus(broker)
    member = bus.join("requests", "repliers")
    answering = Answering(
        FirstPixel(),
        replies="replies",
        dead_letter_topic="requests.dlt",
        require_hash=require_hash,
    )
    sender.publish(sent)
    batch = member.receive(10, 0.0)
    member.commit(batch, answering.answer(batch)).result()
    bus.close()

    (came,) = [*broker.topics["replies"], *broker.topics["requests.dlt"]]
    assert broker.groups["requests", "repliers"].position == 1
    assert broker.groups["requests", "repliers"].returned == []
    code, text = _code_and_text(came)
    assert CANARY not in text
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 120
    return Outcome(came.topic == "replies", code, came)


def refused(sent: Message, *, require_hash: bool = False) -> str:
    """The code of the error reply; it goes to the default replies topic, under the id that was sent."""
    came = outcome(sent, require_hash=require_hash)
    assert came.answered, came
    assert came.message.header("status") == "error"
    assert came.message.header("sha256") == sha256_hex(sent.value)
    assert orjson.loads(came.message.value)["id"] == came.message.header("correlation_id")
    return came.code


def set_aside(sent: Message) -> str:
    """The code of the dead letter; it has the bytes that came, as far as they fit."""
    came = outcome(sent)
    assert not came.answered, came
    assert sent.value.startswith(came.message.value)
    assert ("kafka_dlt-original-topic", b"requests") in came.message.headers
    return came.code


def served(sent: Message, *, require_hash: bool = False) -> bool:
    """Whether it was answered with predictions."""
    return outcome(sent, require_hash=require_hash).code == "ok"


@contextmanager
def memory_within(limit: int) -> Iterator[None]:
    """What is allocated while the block runs stays below `limit` bytes. Only Python's own count."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:,} bytes"


def frugally(judge: Callable[[Message], str], sent: Message) -> str:
    """`judge(sent)`, with memory for twice the request and a little."""
    size = len(sent.value) + len(sent.key or b"")
    with memory_within(2 * size + ALLOWANCE):
        return judge(sent)


def _code_and_text(came: Message) -> tuple[str, str]:
    if came.topic != "replies":
        code = came.header("dead_letter_code")
        assert code
        said, _, text = (came.header("kafka_dlt-exception-message") or "").partition(": ")
        assert said == code
        return code, text
    body = orjson.loads(came.value)
    if came.header("status") == "ok":
        return "ok", ""
    if isinstance(body["error"], str):  # Open Inference Protocol V2
        code, _, text = body["error"].partition(": ")
        return code, text
    return body["error"]["code"], body["error"]["message"]
