"""The serving loop: batches, errors, dead letters, and what a failure costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import pytest

from imagebus.answering import Answering, predict_each
from imagebus.batching import fill
from imagebus.client import Client
from imagebus.errors import ModelError, RequestFailed, TooLarge
from imagebus.transports.base import Commit, Instead
from imagebus.transports.memory import MemoryBroker, MemoryBus, MemoryMember
from imagebus.wire.message import Message
from imagebus.wire.pixels import Images, encode_request
from imagebus.wire.results import ErrorReply, Probabilities, Reply, decode_reply
from imagebus.worker import Worker

from .fakes import FirstPixel, package


def worker_on(
    broker: MemoryBroker, classifier: FirstPixel | None = None, *, max_batch_size: int = 32, at_once: int = 1
) -> Worker:
    return Worker(
        MemoryBus(broker).join("requests", "repliers"),
        classifier or FirstPixel(),
        replies="replies",
        dead_letter_topic="requests.dlt",
        max_batch_size=max_batch_size,
        at_once=at_once,
    )


def answering() -> Answering:
    return Answering(FirstPixel(), replies="replies", dead_letter_topic="requests.dlt")


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
    batch = [encode_request(package(*classes), "requests") for classes in ([1, 2], [3], [4, 5, 6])]

    replies = [decode_reply(message) for message in answering().answer(batch)]

    assert [labels(reply) for reply in replies] == [["b", "c"], ["d"], ["e", "f", "g"]]
    assert [reply.id.encode() for reply in replies] == [message.key for message in batch]


def test_a_bad_request_gets_an_error_and_its_neighbours_their_predictions() -> None:
    good = encode_request(package(1), "requests")
    cut_off = Message("requests", good.value[:-1], b"cut-off", headers=good.headers[2:])

    error, reply = map(decode_reply, answering().answer([cut_off, good]))

    assert isinstance(error, ErrorReply)
    assert (error.id, error.code) == ("cut-off", "SHAPE")
    assert labels(reply) == ["b"]


def test_what_cannot_be_answered_becomes_a_dead_letter() -> None:

    (letter,) = answering().answer([Message("requests", b"who sent this?")])

    assert (letter.topic, letter.value) == ("requests.dlt", b"who sent this?")
    assert letter.header("dead_letter_code") == "NO_ID"


def test_a_package_that_the_model_fails_on_does_not_fail_its_neighbours() -> None:
    batch = [encode_request(package(first), "requests") for first in (1, 2, 255, 4, 5)]

    replies = [decode_reply(message) for message in answering().answer(batch)]

    failed = [reply for reply in replies if isinstance(reply, ErrorReply)]
    assert [(reply.id.encode(), reply.code) for reply in failed] == [(batch[2].key, "MODEL")]
    assert [labels(reply) for reply in replies if isinstance(reply, Reply)] == [["b"], ["c"], ["e"], ["f"]]


def test_every_message_has_one_outcome_and_is_counted() -> None:
    broker = MemoryBroker()
    worker = worker_on(broker)
    batch = [
        encode_request(package(1, 2), "requests"),
        encode_request(package(255), "requests"),
        Message("requests", b"", b"empty"),
        Message("requests", b"nobody"),
    ]
    with MemoryBus(broker) as sender:
        for message in batch:
            sender.publish(message)

    with serving(worker), broker.changed:
        assert broker.changed.wait_for(
            lambda: len(broker.topics["replies"]) + len(broker.topics["requests.dlt"]) == 4, 30
        )

    assert worker.metrics.requests == 4
    assert worker.metrics.images == 2
    assert worker.metrics.errors == {"MODEL": 1, "EMPTY": 1}
    assert worker.metrics.dead_letters == {"NO_ID": 1}
    assert str(worker.metrics) == "4 requests, 2 images, 2 errors, 1 dead letters"


def test_requests_are_answered_over_the_bus() -> None:
    broker = MemoryBroker()
    worker = worker_on(broker)

    with serving(worker), Client(MemoryBus(broker)) as client:
        predictions = client.predict(package(7, 8))
        with pytest.raises(RequestFailed, match="MODEL"):
            client.predict(package(255))

    assert [prediction.label for prediction in predictions] == ["h", "i"]


def test_a_failed_commit_is_done_again_and_the_caller_sees_one_answer() -> None:
    broker = MemoryBroker()
    broker.fail_next_commits(2)
    worker = worker_on(broker)

    with serving(worker), Client(MemoryBus(broker)) as client:
        predictions = client.predict(package(3))

    assert [prediction.label for prediction in predictions] == ["d"]
    assert worker.metrics.failed_commits == 2
    assert len(broker.topics["replies"]) == 1


def test_a_backlog_is_answered_in_its_order_although_commits_fail_with_batches_in_hand() -> None:
    broker = MemoryBroker()
    ids = [f"{number:02}" for number in range(41)]
    with MemoryBus(broker) as sender:
        for id in ids:
            sender.publish(encode_request(package(1), "requests", id=id))
    broker.fail_next_commits(3)
    worker = worker_on(broker, max_batch_size=4)

    with serving(worker), broker.changed:
        assert broker.changed.wait_for(lambda: len(broker.topics["replies"]) >= len(ids), 30)

    assert [reply.header("correlation_id") for reply in broker.topics["replies"]] == ids
    assert worker.metrics.failed_commits == 3
    assert broker.groups["requests", "repliers"].position == len(ids)


def test_what_was_received_behind_a_suspect_waits_until_that_is_committed() -> None:
    class Failing(MemoryMember):
        failures = 2

        def commit(
            self,
            received: Sequence[Message],
            outgoing: Sequence[Message] = (),
            instead: Instead | None = None,
        ) -> Commit:
            if received[0].attempt > 1 and self.failures:
                self.failures -= 1
                broker.fail_next_commits(1)
            return super().commit(received, outgoing, instead)

    broker = MemoryBroker()
    ids = [f"{number:02}" for number in range(20)]
    with MemoryBus(broker) as sender:
        for id in ids:
            sender.publish(encode_request(package(1), "requests", id=id))
    dying = MemoryBus(broker)
    dying.join("requests", "repliers").receive(8, 0)
    dying.die()
    worker = Worker(
        Failing(broker, "requests", "repliers"),
        FirstPixel(),
        replies="replies",
        dead_letter_topic="requests.dlt",
        max_batch_size=4,
    )

    with serving(worker), broker.changed:
        assert broker.changed.wait_for(lambda: len(broker.topics["replies"]) >= len(ids), 30)

    assert [reply.header("correlation_id") for reply in broker.topics["replies"]] == ids
    assert worker.metrics.failed_commits == 2
    assert worker.metrics.in_flight == 0


class Deadly(FirstPixel):
    """A model that is the end of the process on an image whose first pixel is 66, as a bug in C would be."""

    def predict(self, images: Images) -> Probabilities:
        if (images[:, 0, 0] == 66).any():
            raise SystemExit
        return super().predict(images)


@pytest.mark.parametrize("max_wait", [0.0, 0.05, 1.0])
def test_a_record_that_kills_its_reader_is_set_aside_alone_however_long_batches_wait(max_wait: float) -> None:
    broker = MemoryBroker()
    with MemoryBus(broker) as sender:
        for number in range(201):
            deadly = number == 100
            id = "killer" if deadly else f"{number:03}"
            sender.publish(encode_request(package(66 if deadly else 1), "requests", id=id))

    lives = 0
    while not all_done(broker):
        lives += 1
        assert lives < 10
        bus = MemoryBus(broker)
        worker = Worker(
            bus.join("requests", "repliers"),
            Deadly(),
            replies="replies",
            dead_letter_topic="requests.dlt",
            max_batch_size=32,
            max_wait=max_wait,
        )
        live(broker, worker, bus)

    assert lives == 4
    assert [letter.header("correlation_id") for letter in broker.topics["requests.dlt"]] == ["killer"]
    answered = [reply.header("correlation_id") for reply in broker.topics["replies"]]
    assert set(answered) == {f"{number:03}" for number in range(201)} - {"100"}


def live(broker: MemoryBroker, worker: Worker, bus: MemoryBus) -> None:
    """Serve until all is answered, or until a death."""

    def serve() -> None:
        try:
            worker.run()
        except SystemExit:
            bus.die()
        else:
            bus.close()
        with broker.changed:
            broker.changed.notify_all()

    thread = threading.Thread(target=serve)
    thread.start()
    with broker.changed:
        assert broker.changed.wait_for(lambda: not thread.is_alive() or all_done(broker) or bus.closed, 30)
    worker.stop()
    thread.join()


def all_done(broker: MemoryBroker) -> bool:
    """Whether each of the 201 records has an outcome."""
    outcomes = [*broker.topics["replies"], *broker.topics["requests.dlt"]]
    return len({outcome.header("correlation_id") for outcome in outcomes}) == 201


def test_what_is_too_large_has_its_error_once_and_the_rest_flows_on() -> None:
    class Counting(FirstPixel):
        predicted = 0

        def predict(self, images: Images) -> Probabilities:
            self.predicted += len(images)
            return super().predict(images)

    broker = MemoryBroker()
    broker.max_message_bytes["replies"] = 500  # three images are too many, one is not
    with MemoryBus(broker) as sender:
        for number in range(300):
            images = package(1, 2, 3, 4, 5) if number % 3 == 0 else package(1)
            sender.publish(encode_request(images, "requests", id=f"{number:03}"))
    classifier = Counting()
    worker = worker_on(broker, classifier, max_batch_size=8)

    with serving(worker), broker.changed:
        assert broker.changed.wait_for(lambda: len(broker.topics["replies"]) >= 300, 30)

    replies = [decode_reply(reply) for reply in broker.topics["replies"]]
    assert [reply.id for reply in replies] == [f"{number:03}" for number in range(300)]
    codes = [reply.code if isinstance(reply, ErrorReply) else "ok" for reply in replies]
    assert codes == ["TOO_LARGE" if number % 3 == 0 else "ok" for number in range(300)]
    assert classifier.predicted == 100 * 5 + 200
    assert worker.metrics.failed_commits == 0


def test_where_not_even_an_error_fits_a_dead_letter_tells_of_it_and_where_that_does_not_the_worker_ends() -> (
    None
):
    broker = MemoryBroker()
    broker.max_message_bytes["replies"] = 10
    with MemoryBus(broker) as sender:
        sender.publish(encode_request(package(1), "requests", id="one"))
    worker = worker_on(broker)

    with serving(worker), broker.changed:
        assert broker.changed.wait_for(lambda: broker.topics["requests.dlt"], 30)
    broker.max_message_bytes["requests.dlt"] = -1
    with MemoryBus(broker) as sender:
        sender.publish(encode_request(package(1), "requests", id="two"))
    with pytest.raises(TooLarge, match="does not take even a dead letter"):
        worker_on(broker).run()

    (letter,) = broker.topics["requests.dlt"]
    assert (letter.header("dead_letter_code"), letter.header("correlation_id")) == ("TOO_LARGE", "one")


def test_behind_a_batch_that_failed_for_good_nothing_is_committed_even_at_a_stop() -> None:
    class Refusing(MemoryMember):
        commits = 0

        def commit(
            self,
            received: Sequence[Message],
            outgoing: Sequence[Message] = (),
            instead: Instead | None = None,
        ) -> Commit:
            self.commits += 1
            if self.commits > 1:
                return super().commit(received, outgoing, instead)
            worker.stop()
            refused: Future[None] = Future()
            refused.set_exception(TooLarge("not even a dead letter fits"))
            return refused

    broker = MemoryBroker()
    with MemoryBus(broker) as sender:
        for number in range(8):
            sender.publish(encode_request(package(1), "requests", id=str(number)))
    worker = Worker(
        Refusing(broker, "requests", "repliers"),
        FirstPixel(),
        replies="replies",
        dead_letter_topic="requests.dlt",
        max_batch_size=2,
        at_once=2,
    )

    with pytest.raises(TooLarge):
        worker.run()

    assert broker.topics["replies"] == []


def test_a_worker_whose_outcomes_are_not_confirmed_is_not_ready() -> None:
    worker = worker_on(MemoryBroker())

    worker._member.unconfirmed = 3

    assert worker.health().failures == ("3 outcomes are not confirmed by the bus",)
    assert worker.metrics.unconfirmed == 3


def test_a_worker_whose_model_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagebus.worker.SLOW_SECONDS", 0.0)
    broker = MemoryBroker()
    begun, ended = threading.Event(), threading.Event()

    class Hanging(FirstPixel):
        def predict(self, images: Images) -> Probabilities:
            begun.set()
            ended.wait(30)
            return super().predict(images)

    worker = worker_on(broker, classifier=Hanging())
    with serving(worker), MemoryBus(broker) as sender:
        sender.publish(encode_request(package(1), "requests"))
        assert begun.wait(30)
        hanging = worker.health()
        ended.set()

    assert not hanging.ready
    assert hanging.failures[-1].startswith("the model has been at work on a batch for ")
    assert worker._answering.working_for() == 0


def test_health_tells_what_keeps_a_worker_from_being_ready() -> None:
    broker = MemoryBroker()
    worker = worker_on(broker)
    with MemoryBus(broker) as sender:
        sender.publish(encode_request(package(1), "requests"))
    fresh = worker.health()

    with serving(worker), broker.changed:
        assert broker.changed.wait_for(lambda: broker.topics["replies"], 30)
    stopped = worker.health()

    assert (fresh.ready, fresh.partitions, fresh.last_commit) == (True, (0,), None)
    assert fresh.model.name == "first-pixel"
    assert stopped.last_commit is not None
    assert stopped.failures == ("it is stopping",)


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

    broker = MemoryBroker()
    ids = [f"{number:02}" for number in range(16)]
    with MemoryBus(broker) as sender:
        for id in ids:
            sender.publish(encode_request(package(1), "requests", id=id))
    classifier = Counting()
    worker = worker_on(broker, classifier, max_batch_size=4, at_once=at_once)

    with serving(worker), broker.changed:
        assert broker.changed.wait_for(lambda: len(broker.topics["replies"]) >= len(ids), 60)

    assert [reply.header("correlation_id") for reply in broker.topics["replies"]] == ids
    assert classifier.most == at_once


def test_stop_finishes_the_batch_at_hand() -> None:
    broker = MemoryBroker()
    with MemoryBus(broker) as sender:
        for _ in range(10):
            sender.publish(encode_request(package(1), "requests"))
    worker = worker_on(broker, max_batch_size=4)
    put = worker._pipeline.put

    def stop_then_put(messages: Sequence[Message]) -> bool:
        worker.stop()
        return put(messages)

    worker._pipeline.put = stop_then_put  # type: ignore[method-assign]
    worker.run()

    assert len(broker.topics["replies"]) == 4
    assert broker.groups["requests", "repliers"].position == 4


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


def test_fill_waits_no_longer_for_what_can_only_come_after_this_batch() -> None:
    waiting = [[1], []]

    assert fill(lambda limit, timeout: waiting.pop(0), 4, 60.0) == [1]


def test_fill_waits_no_longer_once_its_caller_stops() -> None:
    waiting = [[1]]
    looks = iter([False, True])

    def receive(limit: int, timeout: float) -> list[int]:
        if waiting:
            return waiting.pop()
        time.sleep(timeout)  # what an empty bus does
        return []

    assert fill(receive, 4, 3600.0, idle=0.01, stopping=lambda: next(looks)) == [1]


def test_fill_returns_empty_when_nothing_comes() -> None:
    assert fill(lambda limit, timeout: [], 4, 60.0) == []


def test_images_are_not_changed_on_the_way() -> None:
    seen: list[Images] = []

    class Recorder(FirstPixel):
        def predict(self, images: Images) -> Probabilities:
            seen.append(images.copy())
            return super().predict(images)

    sent = np.random.default_rng(0).integers(0, 10, (5, 28, 28), np.uint8)
    Answering(Recorder(), replies="replies", dead_letter_topic="dlt").answer(
        [encode_request(sent, "requests")]
    )

    np.testing.assert_array_equal(seen[0], sent)
