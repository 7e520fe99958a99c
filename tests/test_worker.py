"""The serving loop: batches, errors, dead letters, and what a failure costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from imagebus.batching import fill
from imagebus.client import Client
from imagebus.errors import ModelError, RequestFailed
from imagebus.transports.base import Commit
from imagebus.transports.memory import MemoryBus, MemoryTransport
from imagebus.wire.message import Message
from imagebus.wire.pixels import Images, encode_request
from imagebus.wire.results import ErrorReply, Probabilities, Reply, decode_reply
from imagebus.worker import Worker, predict_each

from .fakes import FirstPixel, package


def worker_on(
    bus: MemoryBus, classifier: FirstPixel | None = None, *, max_batch_size: int = 32, at_once: int = 1
) -> Worker:
    transport = MemoryTransport(bus)
    transport.subscribe("requests", "repliers")
    return Worker(
        transport,
        classifier or FirstPixel(),
        replies="replies",
        dead_letter_topic="requests.dlt",
        max_batch_size=max_batch_size,
        at_once=at_once,
    )


@contextmanager
def serving(worker: Worker) -> Iterator[None]:
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


def labels(reply: Reply | ErrorReply) -> list[str]:
    assert isinstance(reply, Reply)
    return [prediction.label for prediction in reply.predictions]


def test_each_request_of_a_batch_gets_its_own_predictions() -> None:
    worker = worker_on(MemoryBus())
    batch = [encode_request(package(*classes), "requests") for classes in ([1, 2], [3], [4, 5, 6])]

    replies = [decode_reply(message) for message in worker.handle(batch)]

    assert [labels(reply) for reply in replies] == [["b", "c"], ["d"], ["e", "f", "g"]]
    assert [reply.id.encode() for reply in replies] == [message.key for message in batch]


def test_a_bad_request_gets_an_error_and_its_neighbours_their_predictions() -> None:
    worker = worker_on(MemoryBus())
    good = encode_request(package(1), "requests")
    cut_off = Message("requests", good.value[:-1], b"cut-off", headers=good.headers[2:])

    error, reply = map(decode_reply, worker.handle([cut_off, good]))

    assert isinstance(error, ErrorReply)
    assert (error.id, error.code) == ("cut-off", "SHAPE")
    assert labels(reply) == ["b"]


def test_what_cannot_be_answered_becomes_a_dead_letter() -> None:
    worker = worker_on(MemoryBus())

    (letter,) = worker.handle([Message("requests", b"who sent this?")])

    assert (letter.topic, letter.value) == ("requests.dlt", b"who sent this?")
    assert letter.header("dead_letter_code") == "NO_ID"


def test_a_package_that_the_model_fails_on_does_not_fail_its_neighbours() -> None:
    worker = worker_on(MemoryBus())
    batch = [encode_request(package(first), "requests") for first in (1, 2, 255, 4, 5)]

    replies = [decode_reply(message) for message in worker.handle(batch)]

    failed = [reply for reply in replies if isinstance(reply, ErrorReply)]
    assert [(reply.id.encode(), reply.code) for reply in failed] == [(batch[2].key, "MODEL")]
    assert [labels(reply) for reply in replies if isinstance(reply, Reply)] == [["b"], ["c"], ["e"], ["f"]]


def test_every_message_has_one_outcome_and_is_counted() -> None:
    worker = worker_on(MemoryBus())
    batch = [
        encode_request(package(1, 2), "requests"),
        encode_request(package(255), "requests"),
        Message("requests", b"", b"empty"),
        Message("requests", b"nobody"),
    ]

    outgoing = worker.handle(batch)

    assert len(outgoing) == len(batch)
    assert worker.metrics.requests == 4
    assert worker.metrics.images == 2
    assert worker.metrics.errors == {"MODEL": 1, "EMPTY": 1}
    assert worker.metrics.dead_letters == {"NO_ID": 1}
    assert str(worker.metrics) == "4 requests, 2 images, 2 errors, 1 dead letters"


def test_requests_are_answered_over_the_bus() -> None:
    bus = MemoryBus()
    worker = worker_on(bus)

    with serving(worker), Client(MemoryTransport(bus)) as client:
        predictions = client.predict(package(7, 8))
        with pytest.raises(RequestFailed, match="MODEL"):
            client.predict(package(255))

    assert [prediction.label for prediction in predictions] == ["h", "i"]


def test_a_failed_commit_is_done_again_and_the_caller_sees_one_answer() -> None:
    bus = MemoryBus()
    bus.fail_next_commits(2)
    worker = worker_on(bus)

    with serving(worker), Client(MemoryTransport(bus)) as client:
        predictions = client.predict(package(3))

    assert [prediction.label for prediction in predictions] == ["d"]
    assert worker.metrics.failed_commits == 2
    assert len(bus.topics["replies"]) == 1


def test_a_backlog_is_answered_in_its_order_although_commits_fail_with_batches_in_hand() -> None:
    bus = MemoryBus()
    ids = [f"{number:02}" for number in range(41)]
    with MemoryTransport(bus) as sender:
        for id in ids:
            sender.publish(encode_request(package(1), "requests", id=id))
    bus.fail_next_commits(3)
    worker = worker_on(bus, max_batch_size=4)

    with serving(worker), bus.changed:
        assert bus.changed.wait_for(lambda: len(bus.topics["replies"]) >= len(ids), 30)

    assert [reply.header("correlation_id") for reply in bus.topics["replies"]] == ids
    assert worker.metrics.failed_commits == 3
    assert bus.groups["requests", "repliers"].position == len(ids)


def test_what_was_received_behind_a_suspect_waits_until_that_is_committed() -> None:
    class Suspicious(MemoryTransport):
        failures = 2

        def receive(self, limit: int, timeout: float) -> list[Message]:
            received = super().receive(limit, timeout)
            return [each._replace(attempt=2) if 4 <= each.receipt < 8 else each for each in received]

        def begin_commit(self, received: Sequence[Message], outgoing: Sequence[Message] = ()) -> Commit:
            if received[0].attempt > 1 and self.failures:
                self.failures -= 1
                bus.fail_next_commits(1)
            return super().begin_commit(received, outgoing)

    bus = MemoryBus()
    ids = [f"{number:02}" for number in range(20)]
    with MemoryTransport(bus) as sender:
        for id in ids:
            sender.publish(encode_request(package(1), "requests", id=id))
    transport = Suspicious(bus)
    transport.subscribe("requests", "repliers")
    worker = Worker(
        transport, FirstPixel(), replies="replies", dead_letter_topic="requests.dlt", max_batch_size=4
    )

    with serving(worker), bus.changed:
        assert bus.changed.wait_for(lambda: len(bus.topics["replies"]) >= len(ids), 30)

    assert [reply.header("correlation_id") for reply in bus.topics["replies"]] == ids
    assert worker.metrics.failed_commits == 2
    assert worker.metrics.in_flight == 0


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_batches_are_with_the_model_than_may_be(at_once: int) -> None:
    lock, met = threading.Lock(), threading.Event()

    class Counting(FirstPixel):
        now = most = 0

        def predict(self, images: Images) -> Probabilities:
            with lock:
                self.now += 1
                self.most = max(self.most, self.now)
                if self.now == 2:
                    met.set()
            if at_once == 2:
                assert met.wait(30), "the next batch is not predicted beside this one"
            answers = super().predict(images)
            with lock:
                self.now -= 1
            return answers

    bus = MemoryBus()
    ids = [f"{number:02}" for number in range(16)]
    with MemoryTransport(bus) as sender:
        for id in ids:
            sender.publish(encode_request(package(1), "requests", id=id))
    classifier = Counting()
    worker = worker_on(bus, classifier, max_batch_size=4, at_once=at_once)

    with serving(worker), bus.changed:
        assert bus.changed.wait_for(lambda: len(bus.topics["replies"]) >= len(ids), 60)

    assert [reply.header("correlation_id") for reply in bus.topics["replies"]] == ids
    assert classifier.most == at_once


def test_stop_finishes_the_batch_at_hand() -> None:
    bus = MemoryBus()
    with MemoryTransport(bus) as sender:
        for _ in range(10):
            sender.publish(encode_request(package(1), "requests"))
    worker = worker_on(bus, max_batch_size=4)
    begin = worker._begin

    def stop_then_begin(messages: Sequence[Message], *, aside: bool) -> Any:
        worker.stop()
        return begin(messages, aside=aside)

    worker._begin = stop_then_begin  # type: ignore[method-assign]
    worker.run()

    assert len(bus.topics["replies"]) == 4
    assert bus.groups["requests", "repliers"].position == 4


def test_predict_each_tries_no_more_than_it_must() -> None:
    classifier = FirstPixel()

    answers = predict_each(classifier.predict, [package(1), package(2, 3)])

    assert [len(answer) for answer in answers if not isinstance(answer, Exception)] == [1, 2]
    assert classifier.batches == [3]
    assert predict_each(classifier.predict, []) == []


def test_predict_each_never_raises_whatever_the_model_does() -> None:
    def broken(images: Images) -> Probabilities:
        raise MemoryError

    answers = predict_each(broken, [package(1)] * 5)

    assert [type(answer) for answer in answers] == [MemoryError] * 5


def test_probabilities_that_are_no_numbers_are_the_models_failure() -> None:
    def dizzy(images: Images) -> Probabilities:
        probabilities = FirstPixel().predict(images)
        probabilities[images[:, 0, 0] == 3] = np.nan
        return probabilities

    answers = predict_each(dizzy, [package(1, 2), package(3), package(4)])

    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]


@pytest.mark.parametrize("nonsense", [np.nan, np.inf, 1.5, -0.5])
def test_what_is_no_probability_is_the_models_failure_at_the_second_try_too(nonsense: float) -> None:
    tries: list[int] = []

    def shaky(images: Images) -> Probabilities:
        tries.append(len(images))
        if len(tries) == 1:
            raise MemoryError
        return np.full((len(images), 10), nonsense, np.float32)

    answers = predict_each(shaky, [package(1, 2)])

    assert [type(answer) for answer in answers] == [ModelError]
    assert tries == [2, 2]


def test_fill_takes_what_is_there_and_does_not_wait_for_more() -> None:
    calls: list[tuple[int, float]] = []

    def receive(limit: int, timeout: float) -> list[int]:
        calls.append((limit, timeout))
        return [1, 2]

    batch = fill(receive, 8, 0.0, idle=0.5)

    assert batch == [1, 2]
    assert calls == [(8, 0.5)]


def test_fill_waits_for_a_full_batch_when_asked_to() -> None:
    waiting = [[1], [2, 3], [4]]

    batch = fill(lambda limit, timeout: waiting.pop(0), 4, 60.0)

    assert batch == [1, 2, 3, 4]


def test_fill_waits_no_longer_than_asked() -> None:
    waiting = [[1]]

    def receive(limit: int, timeout: float) -> list[int]:
        if waiting:
            return waiting.pop()
        assert timeout <= 0.02
        time.sleep(timeout)  # what an empty bus does
        return []

    assert fill(receive, 4, 0.02) == [1]


def test_fill_returns_empty_when_nothing_comes() -> None:
    assert fill(lambda limit, timeout: [], 4, 60.0) == []


def test_images_are_not_changed_on_the_way() -> None:
    seen: list[Images] = []

    class Recorder(FirstPixel):
        def predict(self, images: Images) -> Probabilities:
            seen.append(images.copy())
            return super().predict(images)

    sent = np.random.default_rng(0).integers(0, 10, (5, 28, 28), np.uint8)
    transport = MemoryTransport(MemoryBus())
    worker = Worker(transport, Recorder(), replies="replies", dead_letter_topic="dlt")
    worker.handle([encode_request(sent, "requests")])

    np.testing.assert_array_equal(seen[0], sent)
