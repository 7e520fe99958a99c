"""Many packages through one client: when they are sent, and how their outcomes come."""

from __future__ import annotations

import itertools
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebus.client import Client
from imagebus.errors import (
    PublishFailed,
    RequestFailed,
    RequestTimeout,
    TooLarge,
    TransportError,
)
from imagebus.open_packages import OpenPackages, Package
from imagebus.streaming import Outcome, Stream
from imagebus.transports.base import OnDelivery
from imagebus.transports.memory import MemoryBroker, MemoryBus, MemoryInbox
from imagebus.wire.message import Message
from imagebus.wire.results import Reply

from .fakes import package
from .test_client import SECONDS, Answerer

HOUR = 3600.0


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


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    """A thread for the other end of the bus, while a stream holds up this one."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def state(tmp_path: Path) -> Iterator[OpenPackages]:
    state = OpenPackages(tmp_path)
    yield state
    state.close()


def packages(count: int) -> list[Package]:
    return [Package(package(1), number=number) for number in range(1, count + 1)]


def answer(answerer: Answerer, count: int) -> None:
    for _ in range(count):
        answerer.answer(answerer.request())


def wait_until_known(stream: Stream, outcomes: int) -> None:
    """Wait until so many outcomes have come to the stream and were not handed out yet."""
    deadline = time.monotonic() + SECONDS
    while stream._sender.events.qsize() < outcomes:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def numbers(outcomes: list[Outcome]) -> list[int]:
    return [outcome.package.number for outcome in outcomes]


def test_outcomes_come_in_the_order_in_which_the_replies_do(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    def answer_the_last_first() -> None:
        for request in [answerer.request() for _ in range(3)][::-1]:
            answerer.answer(request)

    answered = aside.submit(answer_the_last_first)
    outcomes = list(client.stream(packages(3)))
    answered.result()

    assert numbers(outcomes) == [3, 2, 1]
    for outcome in outcomes:
        assert isinstance(outcome.result, Reply)
        assert outcome.result.id == outcome.package.id


def test_a_package_whose_outcome_could_not_be_shown_stays_in_the_state_and_holds_up_nothing(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor, state: OpenPackages
) -> None:
    answered = aside.submit(answer, answerer, 3)
    stream = client.stream(packages(3), at_most=1, state=state)

    for outcome in stream:
        if outcome.package.number == 2:
            stream.keep_last()
    answered.result()

    assert [each.number for each in state.load()] == [2]
    assert (stream.sent, stream.open) == (3, 0)


def test_a_package_that_fails_or_is_lost_is_an_outcome_as_well(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    def refuse_one() -> None:
        error = {"code": "SHAPE", "message": "images are N,28,28", "retryable": False}
        answerer.answer(answerer.request(), error=error)

    refused = aside.submit(refuse_one)
    failed, lost = client.stream(packages(2), timeout=0.3)
    refused.result()

    assert isinstance(failed.result, RequestFailed)
    assert isinstance(lost.result, RequestTimeout)
    assert numbers([failed, lost]) == [1, 2]


def test_a_package_that_is_too_large_to_be_sent_fails_alone(
    broker: MemoryBroker, aside: ThreadPoolExecutor
) -> None:
    class Small(MemoryBus):
        def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
            if len(message.value) > 784:
                raise TooLarge("two images are too many")
            super().publish(message, on_delivery)

    with Client(Small(broker), timeout=SECONDS) as client:
        answered = aside.submit(answer, Answerer(broker), 1)
        outcomes = list(client.stream([Package(package(1, 2), number=1), *packages(2)[1:]]))
        answered.result()

    assert [type(outcome.result) for outcome in outcomes] == [TooLarge, Reply]


def test_no_package_waits_for_the_replies_to_others(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    def answer_when_all_are_there() -> None:
        for request in [answerer.request() for _ in range(5)]:
            answerer.answer(request)

    answered = aside.submit(answer_when_all_are_there)
    outcomes = list(client.stream(packages(5), interval=0.01))
    answered.result()

    assert sorted(numbers(outcomes)) == [1, 2, 3, 4, 5]


def test_a_package_is_not_sent_before_its_time(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    stream = client.stream(packages(2), interval=HOUR)
    answered = aside.submit(answer, answerer, 1)
    first = next(stream)
    answered.result()
    stream.stop()

    assert numbers([first, *stream]) == [1]
    assert stream.sent == 1


def test_the_end_does_not_wait_for_the_time_of_a_package_that_is_not_there(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    answered = aside.submit(answer, answerer, 1)

    assert numbers(list(client.stream(packages(1), interval=HOUR))) == [1]
    answered.result()


def test_no_more_are_open_at_a_time_than_was_asked_for(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    stream = client.stream(packages(5), at_most=2)
    answered = aside.submit(answer, answerer, 5)

    open_ = [stream.open for _ in stream]
    answered.result()

    assert len(open_) == stream.sent == 5
    assert max(open_) <= 2


def test_packages_are_taken_one_ahead_of_what_is_sent(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    taken = itertools.count(1)
    stream = client.stream((Package(package(1), number=number) for number in taken), at_most=1)
    answered = aside.submit(answer, answerer, 2)

    assert numbers([next(stream), next(stream)]) == [1, 2]
    answered.result()
    assert next(taken) == 4


def test_a_known_outcome_does_not_wait_for_a_slow_source(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    shown = threading.Event()

    def slow() -> Iterator[Package]:
        yield from packages(2)
        assert shown.wait(SECONDS), "the first outcome was held back"

    answered = aside.submit(answer, answerer, 2)
    stream = client.stream(slow())

    outcomes = [next(stream)]
    shown.set()
    outcomes += stream
    answered.result()

    assert numbers(outcomes) == [1, 2]


@pytest.mark.parametrize("error", [OSError("the camera is gone"), SystemExit("the camera is gone")])
def test_what_the_source_raises_comes_behind_the_outcomes_of_what_was_sent(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor, error: BaseException
) -> None:
    def broken() -> Iterator[Package]:
        yield from packages(3)
        raise error

    answered = aside.submit(answer, answerer, 3)
    outcomes: list[Outcome] = []

    with pytest.raises(type(error), match="the camera is gone"):
        outcomes += client.stream(broken())  # a list keeps what came before the error
    answered.result()

    assert numbers(outcomes) == [1, 2, 3]


def test_a_package_without_images_is_an_error_behind_the_outcomes_of_the_others(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor, state: OpenPackages
) -> None:
    answered = aside.submit(answer, answerer, 2)
    outcomes: list[Outcome] = []
    images = [package(1), package(2), np.zeros(3, np.uint8)]

    with pytest.raises(ValueError, match="images"):
        outcomes += client.stream((Package(each) for each in images), state=state)
    answered.result()

    assert len(outcomes) == 2
    assert state.load() == []


@pytest.mark.parametrize("sent", [package(1), None, [package(1)]], ids=lambda sent: type(sent).__name__)
def test_what_is_no_package_is_an_error_that_says_so(client: Client, sent: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a Package, as Package\(images\)"):
        next(client.stream([sent]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("at_most", value) for value in (0, -1, 1.5, math.inf, "5", True, None)),
        *(("interval", value) for value in (-1, math.nan, math.inf, "1", None)),
        *(("timeout", value) for value in (0, math.nan, "1")),
        *(("top", value) for value in (0, 1.5, None)),
    ],
)
def test_a_stream_is_refused_at_once_where_a_number_is_out_of_range(
    client: Client, name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value!r}, expected "):
        client.stream(packages(1), **{name: value})


# --- its end -----------------------------------------------------------------------------------


def test_a_signal_handler_can_stop_it_while_it_waits(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    def interrupt_when_it_waits() -> None:
        answerer.request()
        os.kill(os.getpid(), signal.SIGUSR1)

    stream = client.stream(packages(1))
    before = signal.signal(signal.SIGUSR1, lambda *_: stream.stop())
    try:
        interrupted = aside.submit(interrupt_when_it_waits)
        outcomes = list(stream)
        interrupted.result()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert outcomes == []
    assert (stream.sent, stream.open) == (1, 1)


def test_outcomes_that_are_known_when_it_is_stopped_are_handed_out(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    stream = client.stream(packages(3))
    answered = aside.submit(answer, answerer, 2)
    outcomes = [next(stream)]
    answered.result()
    last = client.submit(package(1))
    answerer.answer([answerer.request() for _ in range(2)][1])
    last.result(SECONDS)  # replies are read in order, so that the second one is known by now

    stream.stop()
    outcomes += stream

    assert numbers(outcomes) == [1, 2]
    assert stream.open == 1


def test_a_bus_that_fails_for_good_ends_it_and_no_package_has_an_outcome(state: OpenPackages) -> None:
    class Failing(MemoryBus):
        def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
            super().publish(message, on_delivery)
            sent.release()

        def inbox(self, topic: str) -> MemoryInbox:
            return FailingInbox(self, topic)

    class FailingInbox(MemoryInbox):
        def receive(self, limit: int, timeout: float) -> list[Message]:
            for _ in range(3):
                sent.acquire()
            raise TransportError("the bus is gone")

    sent = threading.Semaphore(0)
    with Client(Failing()) as client:
        stream = client.stream(packages(3), state=state)

        with pytest.raises(TransportError, match="the bus is gone"):
            list(stream)

    assert (stream.sent, stream.open) == (3, 3)
    assert [package.number for package in state.load()] == [1, 2, 3]


def test_after_a_stop_nothing_more_is_sent(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    answered = aside.submit(answer, answerer, 3)
    stream = client.stream(packages(50), at_most=3)
    first = next(stream)
    answered.result()
    wait_until_known(stream, 2)

    stream.stop()
    rest = list(stream)

    assert numbers([first, *rest]) == [1, 2, 3]
    assert stream.sent == 3


def test_a_stream_that_is_stopped_before_it_began_sends_nothing(
    client: Client, broker: MemoryBroker, state: OpenPackages
) -> None:
    state.add(packages(1)[0])
    stream = client.stream(packages(3), state=state)

    stream.stop()

    assert list(stream) == []
    assert broker.topics["requests"] == []
    assert len(state.load()) == 1


def test_a_stream_that_nobody_has_any_more_sends_no_more(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor
) -> None:
    def use() -> None:
        for _ in client.stream((Package(package(1)) for _ in itertools.count()), at_most=2):
            break

    answered = aside.submit(answer, answerer, 1)
    use()
    answered.result()

    for thread in threading.enumerate():
        if thread.name == "imagebus-stream":
            thread.join(SECONDS)
            assert not thread.is_alive()


def test_what_is_open_when_the_client_is_closed_stays_on_disk(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor, state: OpenPackages
) -> None:
    def close_when_it_waits() -> None:
        for _ in range(3):
            answerer.request()
        client.close()

    closed = aside.submit(close_when_it_waits)

    with pytest.raises(TransportError, match="closed"):
        next(client.stream(packages(3), state=state))
    closed.result()

    assert [each.number for each in state.load()] == [1, 2, 3]


def test_a_closed_client_ends_it(client: Client) -> None:
    client.close()

    with pytest.raises(TransportError, match="the client is closed"):
        next(client.stream(packages(1)))


def test_a_send_that_is_never_confirmed_is_an_outcome_and_no_failure_of_the_bus(broker: MemoryBroker) -> None:
    class Unconfirming(MemoryBus):
        def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
            pass

    with Client(Unconfirming(broker)) as client:
        (outcome,) = client.stream(packages(1), timeout=0.01)

    assert isinstance(outcome.result, PublishFailed)


# --- packages on disk --------------------------------------------------------------------------


def test_what_an_earlier_process_left_open_is_sent_first_under_the_same_ids(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor, state: OpenPackages
) -> None:
    left = packages(2)
    for each in left:
        state.add(each)
    new = Package(package(1), number=state.next_number())

    def answer_both() -> list[str | None]:
        requests = [answerer.request() for _ in left]
        for request in requests:
            answerer.answer(request)
        return [request.header("correlation_id") for request in requests]

    ids = aside.submit(answer_both)
    stream = client.stream([new], interval=HOUR, at_most=1, state=state)
    outcomes = [next(stream), next(stream)]

    assert ids.result() == [each.id for each in left]
    assert numbers(outcomes) == [1, 2]
    assert new.number == 3


def test_a_package_is_on_disk_until_the_outcome_after_it_is_asked_for(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor, state: OpenPackages
) -> None:
    answered = aside.submit(answer, answerer, 2)
    stream = client.stream(packages(2), at_most=1, state=state)

    left = [[each.number for each in state.load()] for _ in stream]
    answered.result()

    assert left == [[1], [2]]
    assert state.load() == []


# --- silence -----------------------------------------------------------------------------------


def test_silence_is_reported_once_until_something_comes(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagebus.streaming.SILENCE_SECONDS", 0.0)
    monkeypatch.setattr("imagebus.streaming.LISTEN_SECONDS", 0.01)
    silences: list[int] = []

    stream = client.stream(
        packages(2), at_most=1, timeout=0.3, on_silence=lambda: silences.append(stream.sent)
    )

    assert [type(outcome.result) for outcome in stream] == [RequestTimeout, RequestTimeout]
    assert silences == [1, 2]


def test_nothing_is_silent_while_nothing_is_open(
    client: Client, answerer: Answerer, aside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagebus.streaming.SILENCE_SECONDS", 0.0)
    monkeypatch.setattr("imagebus.streaming.LISTEN_SECONDS", 0.01)
    open_: list[int] = []
    stream = client.stream(packages(3), interval=0.1, on_silence=lambda: open_.append(stream.open))
    answered = aside.submit(answer, answerer, 3)

    assert len(list(stream)) == 3
    answered.result()
    assert 0 not in open_
