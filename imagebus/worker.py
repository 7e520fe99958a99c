"""The replier's serving loop: receive, predict, commit.

At-least-once: the replies of a batch are confirmed by the bus before its requests are marked as done,
so a replier that is killed anywhere in between leaves its batch to the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from imagebus.batching import fill
from imagebus.classifier import Classifier
from imagebus.errors import BadMessage, CommitFailed, ErrorCode, ModelError
from imagebus.metrics import Metrics
from imagebus.transports.base import Commit, Transport
from imagebus.wire.dead_letters import dead_letter
from imagebus.wire.envelope import TOP, Envelope
from imagebus.wire.message import Message
from imagebus.wire.pixels import Images
from imagebus.wire.replies import encode_error, encode_reply
from imagebus.wire.requests import Request, read_request
from imagebus.wire.results import Probabilities, Ranked, are_probabilities, rank

log = logging.getLogger(__name__)

Answer = Probabilities | Exception  # the model's, to one package

GLANCE_SECONDS = 0.002  # for what comes next, while something is in hand; a confirmation takes as long
BACK_OFF = (0.1, 5.0)  # seconds before trying again after a failed commit: the first, and the longest
MAX_ATTEMPTS = 3  # of a message that the replier died with each time
UNHEALTHY = (
    3  # batches in a row that fail as a whole: it is the model's fault, and another replier may do better
)


class _Answered(NamedTuple):
    """What the model said to each package, and the seconds that it took."""

    answers: list[Answer]
    seconds: float


@dataclass(slots=True)
class _Batch:
    """Requests that are being predicted: those that can be answered, and the outcomes of the others, by place."""

    messages: Sequence[Message]
    outcomes: dict[int, Message] = field(default_factory=dict)
    answerable: list[tuple[int, Envelope, Images]] = field(default_factory=list)
    answers: Future[_Answered] = field(default_factory=Future)


class _UnderWay(NamedTuple):
    """A batch that is being confirmed and committed."""

    batch: Sequence[Message]
    commit: Commit


class Worker:
    """Answers the requests that `transport` receives with the predictions of `classifier`.

    The transport is subscribed by the caller. `max_batch_size` is in requests, `max_wait` in seconds
    (see `fill`). `at_once` batches may be with the classifier at the same time, 2 for one whose `predict` can be
    called from two threads: then the next one's first images take the cores that the last ones of this one
    leave. Predictions and errors go to the topic `replies`, what cannot be answered goes to
    `dead_letter_topic`, with `group` as the name of who put it there. With `require_hash`, a
    request without a `sha256` header is refused (`NO_HASH`).
    """

    def __init__(
        self,
        transport: Transport,
        classifier: Classifier,
        *,
        replies: str,
        dead_letter_topic: str,
        max_batch_size: int = 128,
        max_wait: float = 0.0,
        at_once: int = 1,
        require_hash: bool = False,
        group: str = "",
    ) -> None:
        self.metrics = Metrics()
        self._transport = transport
        self._classifier = classifier
        self._replies = replies
        self._dead_letter_topic = dead_letter_topic
        self._max_batch_size = max_batch_size
        self._max_wait = max_wait
        self._require_hash = require_hash
        self._group = group
        self._model_threads = ThreadPoolExecutor(at_once, thread_name_prefix="imagebus-batch")
        self._stopping = threading.Event()
        self._back_off = BACK_OFF[0]
        self._too_large: set[Hashable] = set()  # receipts of messages whose outcome the bus refused
        self._model_failures = 0  # batches in a row of which the model could not do any package

    def run(self) -> None:
        """Serve until `stop()`; what is in hand by then is finished.

        Behind a full batch there will be more: the next one is received and waits for the model while that is
        at work, and the last one's outcomes are confirmed meanwhile. Never more than three are in hand, and
        they are committed in their order. Raises `TransportError` when the bus fails for good, `ModelError`
        when the model fails on batch after batch.
        """
        predicting: deque[_Batch] = deque()
        under_way: _UnderWay | None = None
        try:
            while not self._stopping.is_set():
                batch = self._receive(busy=bool(predicting or under_way))
                if any(message.attempt > 1 for message in batch):
                    before, under_way = under_way, None
                    self._try_alone(batch, predicting, before)
                    continue
                if batch:
                    full = len(batch) >= self._max_batch_size > 1
                    predicting.append(self._begin(batch, aside=full or bool(predicting)))
                    if full and len(predicting) == 1:
                        continue
                done = predicting.popleft() if predicting else None
                outgoing = self._finish(done) if done else []
                if not self._settle(under_way):
                    predicting.clear()  # received after what failed: they come again with it
                    under_way = None
                    continue
                under_way = None
                if done:
                    under_way = _UnderWay(
                        done.messages, self._transport.begin_commit(done.messages, outgoing)
                    )
                self._check_model()
        finally:
            if self._settle(under_way) and self._stopping.is_set():
                self._finish_all(predicting)

    def _try_alone(
        self, suspects: Sequence[Message], predicting: deque[_Batch], under_way: _UnderWay | None
    ) -> None:
        """A reader died with one of these: nothing else is in hand meanwhile, and they are committed at once."""
        if self._settle(under_way) and self._finish_all(predicting):
            outgoing = self._finish(self._begin(suspects, aside=False))
            self._settle(_UnderWay(suspects, self._transport.begin_commit(suspects, outgoing)))
            self._check_model()
        predicting.clear()  # where a commit failed, they come again with it

    def _receive(self, *, busy: bool) -> list[Message]:
        """The next batch. While another one is in hand there is no waiting for a fuller one."""
        if busy:
            batch = self._transport.receive(self._max_batch_size, GLANCE_SECONDS)
        else:
            batch = fill(self._transport.receive, self._max_batch_size, self._max_wait)
        self.metrics.lost = self._transport.lost
        self.metrics.failed_acknowledgements = self._transport.failed_acknowledgements
        return batch

    def _finish_all(self, predicting: deque[_Batch]) -> bool:
        """Answer what the model has; False when a commit failed, and the others come again."""
        while predicting:
            batch = predicting.popleft()
            outgoing = self._finish(batch)
            if not self._settle(
                _UnderWay(batch.messages, self._transport.begin_commit(batch.messages, outgoing))
            ):
                return False
        return True

    def _settle(self, under_way: _UnderWay | None) -> bool:
        """Wait for a commit and read its result; False when everything since has to be done again."""
        if under_way is None:
            return True
        try:
            under_way.commit.result()
        except CommitFailed as error:
            self.metrics.failed_commits += 1
            if error.refused:  # no reason to wait: next time they get an outcome that fits
                self._too_large.update(under_way.batch[place].receipt for place in error.refused)
                log.warning("%s", error)
            else:
                log.warning("%s; trying again in %.1f s", error, self._back_off)
                self._stopping.wait(self._back_off)
                self._back_off = min(2 * self._back_off, BACK_OFF[1])
            self._transport.rewind()
            self.metrics.in_flight = 0
            return False
        self._back_off = BACK_OFF[0]
        self.metrics.in_flight -= len(under_way.batch)
        return True

    def _check_model(self) -> None:
        if self._model_failures >= UNHEALTHY:
            raise ModelError(f"the model failed on {UNHEALTHY} batches in a row")

    def stop(self) -> None:
        """Let `run()` return after the batch at hand. Safe to call from a signal handler."""
        self._stopping.set()
        self._transport.hurried_at = time.monotonic()

    def handle(self, batch: Sequence[Message]) -> list[Message]:
        """The outcome of each message of `batch`, in its place: a prediction, an error or a dead letter.

        Nothing is sent. Raises nothing because of a message, whatever is in it.
        """
        return self._finish(self._begin(batch, aside=False))

    def _begin(self, messages: Sequence[Message], *, aside: bool) -> _Batch:
        """Read a batch and let the model predict its images: `aside`, on another thread, or at once."""
        self.metrics.in_flight += len(messages)
        self.metrics.batch_size.observe(len(messages))
        batch = _Batch(messages)
        for place, message in enumerate(messages):
            try:
                envelope, images = self._read(message)
                batch.answerable.append((place, envelope, images))
            except BadMessage as error:
                if error.envelope is None:
                    batch.outcomes[place] = self._set_aside(message, error)
                else:
                    batch.outcomes[place] = self._refuse(error.envelope, error)
        packages = [images for *_, images in batch.answerable]
        if aside:
            batch.answers = self._model_threads.submit(self._predict, packages)
        else:
            batch.answers.set_result(self._predict(packages))
        return batch

    def _predict(self, packages: Sequence[Images]) -> _Answered:
        started = time.perf_counter()
        answers = predict_each(self._classifier.predict, packages)
        return _Answered(answers, time.perf_counter() - started)

    def _finish(self, batch: _Batch) -> list[Message]:
        """Wait for the model, and make the outcome of each message."""
        answers, seconds = batch.answers.result()
        self.metrics.inference_seconds.observe(seconds)
        outcomes = batch.outcomes
        ranked = self._rank(answers)
        for (place, envelope, images), answer in zip(batch.answerable, answers, strict=True):
            outcomes[place] = self._answer(envelope, images, answer, ranked)
        if answers:
            all_failed = all(isinstance(answer, Exception) for answer in answers)
            self._model_failures = self._model_failures + 1 if all_failed else 0
        self.metrics.requests += len(batch.messages)
        return [outcomes[place] for place in range(len(batch.messages))]

    def _read(self, message: Message) -> Request:
        """What is asked, and by whom; raises `BadMessage` as `read_request` does."""
        if message.attempt > MAX_ATTEMPTS:
            raise BadMessage(
                ErrorCode.KILLER, f"the replier died {MAX_ATTEMPTS} times with this message in hand"
            )
        request = read_request(
            message,
            self._classifier.spec,
            reply_topics=(self._replies,),
            require_hash=self._require_hash,
        )
        if message.receipt in self._too_large:
            self._too_large.discard(message.receipt)
            error = BadMessage(
                ErrorCode.TOO_LARGE, "the reply is larger than the bus takes: ask for fewer images or labels"
            )
            error.envelope = request.envelope
            raise error
        return request

    def _rank(self, answers: Sequence[Answer]) -> Iterator[Ranked]:
        """The likeliest labels of each package that the model could do, ranked all at once."""
        probabilities = [answer for answer in answers if not isinstance(answer, Exception)]
        if probabilities:
            ranked = rank(self._classifier.labels, np.concatenate(probabilities), TOP)
            yield from _split(ranked, probabilities)

    def _answer(
        self, envelope: Envelope, images: Images, answer: Answer, ranked: Iterator[Ranked]
    ) -> Message:
        if isinstance(answer, Exception):
            log.error("the model failed on request %s: %s", envelope.id, answer)
            return self._refuse(envelope, BadMessage(ErrorCode.MODEL, "the model failed on these images"))
        self.metrics.images += len(images)
        log.debug("answered %s: %d images", envelope.id, len(images))
        likeliest = next(ranked)
        return encode_reply(
            envelope,
            self._replies,
            self._classifier.model,
            self._classifier.labels,
            answer,
            likeliest if envelope.top <= TOP else None,
        )

    def _refuse(self, envelope: Envelope, error: BadMessage) -> Message:
        self.metrics.errors[error.code] += 1
        log.debug("refused %s: %s", envelope.id, error.code)
        return encode_error(envelope, self._replies, error)

    def _set_aside(self, message: Message, error: BadMessage) -> Message:
        self.metrics.dead_letters[error.code] += 1
        log.debug("dead letter: %s", error.code)
        whole = message.receipt not in self._too_large
        self._too_large.discard(message.receipt)
        return dead_letter(message, self._dead_letter_topic, error, group=self._group, whole=whole)


def predict_each(predict: Callable[[Images], Probabilities], packages: Sequence[Images]) -> list[Answer]:
    """Predict all packages in one batch; each one's probabilities, or the error it raises by itself.

    When the batch fails it is halved and tried again, so that one package cannot fail its neighbours; one
    that fails alone is tried once more.
    """
    if not packages:
        return []
    try:
        probabilities = predict(packages[0] if len(packages) == 1 else np.concatenate(packages))
    except Exception as error:
        log.debug("the model failed on %d packages: %s", len(packages), error)
        if len(packages) == 1:
            return [_predict_again(predict, packages[0])]
        half = len(packages) // 2
        return predict_each(predict, packages[:half]) + predict_each(predict, packages[half:])
    answers = _split(probabilities, packages)
    return [*answers] if are_probabilities(probabilities) else [_checked(answer) for answer in answers]


def _predict_again(predict: Callable[[Images], Probabilities], images: Images) -> Answer:
    try:
        return _checked(predict(images))
    except Exception as error:
        return error


def _checked(answer: Probabilities) -> Answer:
    if are_probabilities(answer):
        return answer
    return ModelError("the model gave something that is no probability")


def _split(rows: npt.NDArray[Any], packages: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Those of each package, of rows that stand for all their images."""
    ends = accumulate(map(len, packages), initial=0)
    return [rows[start:end] for start, end in pairwise(ends)]
