"""The caller's side: one outcome for each request, and nothing else believed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from imagebus.client import Client
from imagebus.errors import (
    BadMessage,
    ConfigError,
    ErrorCode,
    ImageBusError,
    PublishFailed,
    RequestFailed,
    RequestTimeout,
    TooLarge,
    TransportError,
)
from imagebus.observer import Observer
from imagebus.transports.base import OnDelivery
from imagebus.transports.memory import MemoryBroker, MemoryBus, MemoryInbox
from imagebus.wire.envelope import REPLIER_TIME, Envelope
from imagebus.wire.message import Message
from imagebus.wire.pixels import Images, encode_request
from imagebus.wire.replies import encode_error
from imagebus.wire.results import Reply

from .fakes import package

SECONDS = 30.0


class Answerer:
    """The other end of the bus, answering by hand: a test decides what is said."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._bus = MemoryBus(broker)
        self._member = self._bus.join("requests", "by-hand")

    def request(self) -> Message:
        (message,) = self._member.receive(1, SECONDS)
        return message

    def publish(self, reply: Message) -> None:
        self._bus.publish(reply)

    def say(self, value: bytes) -> None:
        self.publish(Message("replies", value))

    def answer(self, request: Message, **changes: Any) -> None:
        self.say(orjson.dumps(reply_to(request) | changes))


def reply_to(request: Message) -> dict[str, Any]:
    images = len(request.value) // 784
    return {
        "id": request.header("correlation_id"),
        "sha256": request.header("sha256"),
        "model": {"name": "by hand", "version": "1", "sha256": "0"},
        "predictions": [{"label": "a", "probability": 0.5, "top": [["a", 0.5]]}] * images,
    }


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def client(broker: MemoryBroker) -> Iterator[Client]:
    with Client(MemoryBus(broker), timeout=SECONDS) as client:
        yield client


@pytest.fixture
def answerer(broker: MemoryBroker, client: Client) -> Answerer:
    return Answerer(broker)


def result(future: Future[Reply]) -> Reply:
    return future.result(timeout=SECONDS)


def test_replies_find_their_requests_in_any_order(client: Client, answerer: Answerer) -> None:
    futures = [client.submit(package(1)) for _ in range(3)]
    requests = [answerer.request() for _ in range(3)]

    for request in reversed(requests):
        answerer.answer(request)

    assert [result(future).id for future in futures] == [
        request.header("correlation_id") for request in requests
    ]
    assert client.in_flight == 0


def test_the_round_trip_is_measured(client: Client, answerer: Answerer) -> None:
    future = client.submit(package(1))
    answerer.answer(answerer.request())

    assert 0 < result(future).round_trip < SECONDS


def test_map_keeps_the_order_of_its_packages(client: Client, answerer: Answerer) -> None:
    def answer_three() -> None:
        for request in [answerer.request() for _ in range(3)][::-1]:
            answerer.answer(request)

    thread = threading.Thread(target=answer_three)
    thread.start()
    packages: list[Images] = [package(1), package(2, 2), package(3, 3, 3)]
    replies = list(client.map(packages))
    thread.join()

    assert [len(reply.predictions) for reply in replies] == [1, 2, 3]


def test_an_error_reply_is_raised_with_its_code(client: Client, answerer: Answerer) -> None:
    future = client.submit(package(1))

    answerer.answer(
        answerer.request(), error={"code": "SHAPE", "message": "images are N,28,28", "retryable": False}
    )

    with pytest.raises(RequestFailed, match="SHAPE: images are N,28,28") as failed:
        result(future)
    assert failed.value.code == "SHAPE"


def test_a_request_without_a_reply_times_out_and_says_so(client: Client) -> None:
    future = client.submit(package(1), timeout=0.01)

    with pytest.raises(RequestTimeout, match=r"no reply to request .* within 0\.01 s"):
        result(future)


def test_a_late_reply_is_counted_and_dropped(client: Client, answerer: Answerer) -> None:
    late = client.submit(package(1), timeout=0.01)
    with pytest.raises(RequestTimeout):
        result(late)

    answerer.answer(answerer.request())
    later = client.submit(package(1))
    answerer.answer(answerer.request())

    result(later)
    assert client.ignored == {"unknown": 1}


def test_only_the_first_of_repeated_replies_counts(client: Client, answerer: Answerer) -> None:
    first, second = client.submit(package(1)), client.submit(package(2))
    requests = [answerer.request(), answerer.request()]

    for request in (requests[0], requests[0], requests[1]):
        answerer.answer(request)

    assert result(first).id != result(second).id
    assert client.ignored == {"unknown": 1}


def test_what_is_no_answer_is_counted_and_the_right_one_still_counts(
    client: Client, answerer: Answerer
) -> None:
    future = client.submit(package(1))
    request = answerer.request()

    answerer.say(b"garbage")
    answerer.answer(request, predictions=[])
    answerer.answer(request, sha256="0" * 64)
    answerer.answer(request, id="another's")
    answerer.answer(request)

    assert result(future).predictions[0].label == "a"
    assert client.ignored == {"malformed": 2, "hash": 1, "unknown": 1}


def test_close_fails_what_is_pending(broker: MemoryBroker) -> None:
    client = Client(MemoryBus(broker))
    future = client.submit(package(1))

    client.close()
    client.close()

    with pytest.raises(TransportError, match="closed before an answer came"):
        result(future)
    with pytest.raises(TransportError, match="closed"):
        client.submit(package(1))


class Unconfirming(MemoryBus):
    """A bus that confirms nothing for the first `refusals` sends of a message."""

    def __init__(self, broker: MemoryBroker, refusals: int, error: TransportError) -> None:
        super().__init__(broker)
        self.refusals = refusals
        self.error = error

    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        self.refusals -= 1
        if self.refusals < 0:
            super().publish(message, on_delivery)
        elif on_delivery is not None:
            on_delivery(self.error)


def test_a_send_that_was_never_confirmed_is_said_to_be_that_at_its_deadline(broker: MemoryBroker) -> None:
    with Client(Unconfirming(broker, 1000, PublishFailed("nobody there"))) as client:
        future = client.submit(package(1), timeout=0.3)

        with pytest.raises(PublishFailed, match="was not confirmed by the brokers: nobody there"):
            result(future)


def test_a_send_that_was_not_confirmed_is_tried_again_under_the_same_id(broker: MemoryBroker) -> None:
    with Client(Unconfirming(broker, 1, PublishFailed("not now"))) as client:
        answerer = Answerer(broker)
        future = client.submit(package(1), id="again")
        answerer.answer(answerer.request())

        assert result(future).id == "again"
        assert client.resent == 1


def test_a_send_that_can_never_succeed_fails_at_once(broker: MemoryBroker) -> None:
    with (
        Client(Unconfirming(broker, 1000, TooLarge("5 MB"))) as client,
        pytest.raises(TooLarge, match="5 MB"),
    ):
        result(client.submit(package(1)))


def test_an_unanswered_request_is_sent_again_and_the_caller_sees_one_answer(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagebus.pending.RESEND", (0.05, 0.1))
    with Client(MemoryBus(broker)) as client:
        answerer = Answerer(broker)
        future = client.submit(package(1))
        requests = [answerer.request() for _ in range(3)]
        for request in requests:
            answerer.answer(request)

        assert {request.header("correlation_id") for request in requests} == {result(future).id}
        last = client.submit(package(2))
        answerer.answer(answerer.request())
        result(last)
        assert client.resent >= 2
        assert client.ignored["unknown"] >= 2


def expired(request: Message, *, by_clock: int = 0, deadline: bytes | None = None) -> Message:
    """What a replier says of a request that it took for late; `by_clock` is how far its clock is ahead, in ms."""
    envelope = Envelope(request.header("correlation_id") or "", request.header("sha256") or "")
    envelope = envelope._replace(deadline=int(deadline or request.header("deadline") or 0))
    reply = encode_error(envelope, "replies", BadMessage(ErrorCode.EXPIRED, "too late"))
    time = (b"%d" % (int(reply.header(REPLIER_TIME) or 0) + by_clock)) if by_clock else None
    headers = [(name, time if time and name == REPLIER_TIME else value) for name, value in reply.headers]
    return reply._replace(headers=headers)


def test_that_an_earlier_copy_came_too_late_decides_nothing(client: Client, answerer: Answerer) -> None:
    future = client.submit(package(1), id="asked-before")
    request = answerer.request()

    answerer.publish(expired(request, deadline=b"1000"))
    answerer.answer(request)

    assert result(future).id == "asked-before"
    assert client.ignored["expired"] == 1
    assert client.resent == 0


def test_a_replier_whose_clock_is_ahead_is_asked_again_with_a_deadline_by_its_clock(
    client: Client, answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    future = client.submit(package(1))
    request = answerer.request()

    answerer.publish(expired(request, by_clock=40_000))
    again = answerer.request()
    answerer.answer(again)

    assert result(future).id == request.header("correlation_id")
    moved = int(again.header("deadline") or 0) - int(request.header("deadline") or 0)
    assert 39_000 < moved < 41_000
    assert "the clock of a replier is 40.0 s ahead" in caplog.text.replace("39.9", "40.0")


def test_an_expired_request_whose_deadline_had_not_passed_is_not_sent_again(
    client: Client, answerer: Answerer
) -> None:
    future = client.submit(package(1))
    request = answerer.request()

    answerer.publish(expired(request, by_clock=-1000))
    answerer.answer(request)

    assert result(future).id == request.header("correlation_id")
    assert client.resent == 0


def test_later_requests_carry_a_deadline_by_the_clock_that_is_ahead(
    client: Client, answerer: Answerer
) -> None:
    first = client.submit(package(1))
    answerer.publish(expired(answerer.request(), by_clock=3_600_000))
    answerer.answer(answerer.request())
    result(first)

    client.submit(package(2))
    deadline = int(answerer.request().header("deadline") or 0)

    assert deadline / 1000 - time.time() > 3600
    assert client.resent == 1


def test_an_expired_request_of_a_replier_that_tells_no_time_waits_for_its_own_end(
    client: Client, answerer: Answerer
) -> None:
    future = client.submit(package(1))
    request = answerer.request()

    answerer.answer(request, error={"code": "EXPIRED", "message": "too late", "retryable": False})
    answerer.answer(request)

    assert result(future).id == request.header("correlation_id")


def test_the_replies_of_others_are_dropped_by_their_ids_alone(client: Client, answerer: Answerer) -> None:
    future = client.submit(package(1))
    request = answerer.request()

    answerer.publish(Message("replies", b"{not json", key=b"another's"))
    answerer.publish(Message("replies", b"{not json", headers=[("correlation_id", b"another's")]))
    answerer.answer(request)

    assert result(future).id == request.header("correlation_id")
    assert client.ignored == {"unknown": 2}


def test_a_reply_is_found_by_its_header_when_its_key_is_another(client: Client, answerer: Answerer) -> None:
    future = client.submit(package(1))
    request = answerer.request()
    id = request.header("correlation_id") or ""

    value = orjson.dumps(reply_to(request))
    answerer.publish(Message("replies", value, key=b"of-its-own", headers=[("correlation_id", id.encode())]))

    assert result(future).id == id


def test_a_reader_that_fails_in_any_way_leaves_no_future_without_an_end(broker: MemoryBroker) -> None:
    class Broken(MemoryInbox):
        def receive(self, limit: int, timeout: float) -> list[Message]:
            submitted.wait()
            raise LookupError("a fault of the library")

    class BrokenBus(MemoryBus):
        def inbox(self, topic: str) -> MemoryInbox:
            return Broken(self, topic)

    submitted = threading.Event()
    with Client(BrokenBus(broker)) as client:
        future = client.submit(package(1))
        submitted.set()

        with pytest.raises(TransportError, match="a fault of the library"):
            result(future)
        with pytest.raises(TransportError, match="a fault of the library"):
            client.submit(package(1))


def test_an_observer_that_fails_keeps_no_other_request_from_its_outcome(broker: MemoryBroker) -> None:
    class Failing(Observer):
        def resolved(self, id: str, outcome: Reply | ImageBusError) -> None:
            raise LookupError("a fault of the observer")

    with Client(MemoryBus(broker), observers=[Failing()]) as client:
        answerer = Answerer(broker)
        futures = [client.submit(package(1)) for _ in range(3)]
        for _ in futures:
            answerer.answer(answerer.request())

        assert [len(result(future).predictions) for future in futures] == [1, 1, 1]


def test_a_client_may_be_closed_in_the_callback_of_a_future(broker: MemoryBroker) -> None:
    bus = MemoryBus(broker)
    client = Client(bus)
    answerer = Answerer(broker)
    first, second = client.submit(package(1)), client.submit(package(2))
    first.add_done_callback(lambda _: client.close())

    answerer.answer(answerer.request())

    with pytest.raises(TransportError, match="closed before an answer came"):
        result(second)
    client._reader.join(SECONDS)
    assert bus.closed


def test_a_request_that_comes_while_the_reader_ends_is_refused(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(MemoryBus(broker))

    def encode_slowly(*args: Any, **options: Any) -> Message:
        client.close()
        return encode_request(*args, **options)

    monkeypatch.setattr("imagebus.client.encode_request", encode_slowly)

    with pytest.raises(TransportError, match="closed"):
        client.submit(package(1))
    assert client.in_flight == 0


def test_a_bus_that_fails_for_good_fails_every_request(broker: MemoryBroker) -> None:
    class Failing(MemoryInbox):
        def receive(self, limit: int, timeout: float) -> list[Message]:
            submitted.wait()
            raise TransportError("the bus is gone")

    class FailingBus(MemoryBus):
        def inbox(self, topic: str) -> MemoryInbox:
            return Failing(self, topic)

    submitted = threading.Event()
    with Client(FailingBus(broker)) as client:
        future = client.submit(package(1))
        submitted.set()

        with pytest.raises(TransportError, match="the bus is gone"):
            result(future)
        with pytest.raises(TransportError, match="the bus is gone"):
            client.submit(package(1))


@pytest.mark.parametrize(
    ("module", "ask", "patched"),
    [
        ("gevent.monkey", "is_module_patched", "threading"),
        ("eventlet.patcher", "is_monkey_patched", "thread"),
    ],
)
def test_green_threads_in_place_of_threads_are_refused(
    monkeypatch: pytest.MonkeyPatch, module: str, ask: str, patched: str
) -> None:
    """The first call would never return: tried with both libraries, on Kafka."""
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{ask: patched.__eq__}))
    with pytest.raises(ConfigError, match="patch with thread=False"):
        Client(MemoryBus())

    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{ask: "socket".__eq__}))
    Client(MemoryBus()).close()
