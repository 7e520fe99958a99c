"""What a client's futures do inside other programs: callbacks that wait, asyncio, cancelling."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from typing import Any

import pytest

from imagebus.client import Client
from imagebus.errors import ImageBusError, RequestTimeout, TransportError
from imagebus.observer import Observer
from imagebus.transports.memory import MemoryBroker, MemoryBus
from imagebus.wire.results import Reply

from .fakes import package
from .test_client import SECONDS, Answerer

ONE = package(1)


class Replier(Answerer):
    """Answers every request, on a thread of its own."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                for request in self._member.receive(100, SECONDS):
                    self.answer(request)
        except TransportError:
            pass  # the end

    def close(self) -> None:
        self._bus.close()
        self._thread.join()


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    broker = MemoryBroker()
    replier = Replier(broker)
    yield broker
    replier.close()


@pytest.fixture
def client(broker: MemoryBroker) -> Iterator[Client]:
    with Client(MemoryBus(broker), timeout=SECONDS) as client:
        yield client


def called(future: Future[Reply], call: Callable[[], Any]) -> Any:
    """What `call` returned or raised in a callback of the future."""
    outcome: Future[Any] = Future()

    def callback(_: Future[Reply]) -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    future.add_done_callback(callback)
    return outcome.result(SECONDS)


def test_a_callback_may_ask_for_another_prediction_and_wait_for_it(client: Client) -> None:
    again = called(client.submit(ONE), lambda: client.predict(package(1, 2)))

    assert len(again) == 2


def test_a_callback_that_waits_holds_up_no_other_request(client: Client) -> None:
    go_on = threading.Event()
    client.submit(ONE).add_done_callback(lambda _: go_on.wait(SECONDS))

    others = [client.predict(ONE) for _ in range(3)]
    go_on.set()

    assert len(others) == 3


def test_a_callback_may_close_the_client(client: Client) -> None:
    called(client.submit(ONE), client.close)

    with pytest.raises(TransportError, match="closed"):
        client.submit(ONE)


def test_a_callback_of_a_future_that_is_done_is_called_at_once(client: Client) -> None:
    future = client.submit(ONE)
    future.result(SECONDS)
    threads: list[threading.Thread] = []

    future.add_done_callback(lambda _: threads.append(threading.current_thread()))

    assert threads == [threading.current_thread()]


def test_callbacks_are_called_in_their_order_and_all_before_close_returns(broker: MemoryBroker) -> None:
    numbers: list[int] = []
    client = Client(MemoryBus(broker))
    futures = [client.submit(ONE) for _ in range(20)]
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: numbers.append(number))  # type: ignore[misc]

    client.close()

    assert sorted(numbers) == list(range(20))


@pytest.mark.parametrize("raised", [LookupError("a fault of the caller"), SystemExit(3)], ids=repr)
def test_a_callback_that_fails_is_logged_and_the_next_one_is_called(
    client: Client, caplog: pytest.LogCaptureFixture, raised: BaseException
) -> None:
    def fail(_: object) -> None:
        raise raised

    future = client.submit(ONE)
    future.add_done_callback(fail)

    assert called(future, lambda: "called") == "called"
    assert called(client.submit(ONE), lambda: "called") == "called"
    assert client.failure is None
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


def test_a_client_whose_callbacks_are_not_used_has_no_thread_for_them(client: Client) -> None:
    before = set(threading.enumerate())

    client.predict(ONE)

    assert set(threading.enumerate()) <= before


def test_an_observer_that_would_wait_for_a_reply_gets_an_error_at_once(broker: MemoryBroker) -> None:
    raised: list[BaseException] = []

    class Asking(Observer):
        def resolved(self, id: str, outcome: Reply | ImageBusError) -> None:
            if not raised:
                raised.append(RuntimeError())  # once
                try:
                    asking.predict(ONE)
                except RuntimeError as error:
                    raised[0] = error

    with Client(MemoryBus(broker), observers=[Asking()], timeout=SECONDS) as asking:
        asking.predict(ONE)
        asking.predict(ONE)

    assert "reads the replies" in str(raised[0])


def test_a_future_can_be_awaited(client: Client) -> None:
    async def ask() -> list[Reply]:
        return await asyncio.gather(*(asyncio.wrap_future(client.submit(ONE)) for _ in range(10)))

    replies = asyncio.run(ask())

    assert len({reply.id for reply in replies}) == 10


def test_an_error_is_raised_where_it_is_awaited() -> None:
    async def ask() -> None:
        with Client(MemoryBus()) as client:
            await asyncio.wrap_future(client.submit(ONE, timeout=0.05))

    with pytest.raises(RequestTimeout):
        asyncio.run(ask())


def test_what_is_cancelled_while_it_is_awaited_goes_on_and_harms_nothing(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> Future[Reply]:
        future = client.submit(ONE)
        awaited = asyncio.wrap_future(future)
        awaited.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaited
        return future

    future = asyncio.run(ask())

    assert future.result(SECONDS).predictions
    assert client.predict(ONE)
    assert caplog.records == []


def test_a_wait_that_asyncio_gives_up_leaves_the_client_as_it_was() -> None:
    broker = MemoryBroker()

    async def ask(client: Client) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.wrap_future(client.submit(ONE))

    with Client(MemoryBus(broker), timeout=SECONDS) as client:
        asyncio.run(ask(client))
        replier = Replier(broker)

        assert client.predict(ONE)
    replier.close()


def test_a_sent_request_cannot_be_cancelled(client: Client) -> None:
    future = client.submit(ONE)

    assert not future.cancel()
    assert future.result(SECONDS).predictions
    assert not future.cancelled()


def test_futures_can_be_waited_for_as_those_of_an_executor(client: Client) -> None:
    futures = [client.submit(ONE) for _ in range(10)]

    first = wait(futures, SECONDS, FIRST_COMPLETED)
    rest = list(as_completed(futures, SECONDS))

    assert first.done
    assert set(rest) == set(futures)
