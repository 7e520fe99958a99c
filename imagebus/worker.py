"""The replier's serving loop: receive, predict, commit.

At-least-once: the replies of a batch are confirmed by the bus before its requests are marked as done,
so a replier that is killed anywhere in between leaves its batch to the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from imagebus.batching import fill
from imagebus.classifier import Classifier
from imagebus.errors import BadMessage, CommitFailed
from imagebus.formats import read_images
from imagebus.messages import (
    Envelope,
    ErrorCode,
    Images,
    Message,
    Probabilities,
    check_envelope,
    dead_letter,
    encode_error,
    encode_reply,
    read_envelope,
)
from imagebus.metrics import Metrics
from imagebus.transports.base import Transport

log = logging.getLogger(__name__)

BACK_OFF = (0.1, 5.0)  # seconds before trying again after a failed commit: the first, and the longest


class Worker:
    """Answers the requests that `transport` receives with the predictions of `classifier`.

    The transport is subscribed by the caller. `max_batch_size` is in requests, `max_wait` in seconds
    (see `fill`). Predictions and errors go to the topic `replies`, what cannot be answered goes to
    `dead_letter_topic`.
    """

    def __init__(
        self,
        transport: Transport,
        classifier: Classifier,
        *,
        replies: str,
        dead_letter_topic: str,
        max_batch_size: int = 32,
        max_wait: float = 0.0,
    ) -> None:
        self.metrics = Metrics()
        self._transport = transport
        self._classifier = classifier
        self._replies = replies
        self._dead_letter_topic = dead_letter_topic
        self._max_batch_size = max_batch_size
        self._max_wait = max_wait
        self._stopping = threading.Event()

    def run(self) -> None:
        """Serve until `stop()`; the batch at hand is finished first. Raises `TransportError`."""
        back_off = BACK_OFF[0]
        while not self._stopping.is_set():
            batch = fill(self._transport.receive, self._max_batch_size, self._max_wait)
            if not batch:
                continue
            outgoing = self.handle(batch)
            try:
                self._transport.commit(batch, outgoing)
                back_off = BACK_OFF[0]
            except CommitFailed as error:
                self.metrics.failed_commits += 1
                log.warning("%s; trying again in %.1f s", error, back_off)
                self._stopping.wait(back_off)
                back_off = min(2 * back_off, BACK_OFF[1])
            self.metrics.in_flight = 0

    def stop(self) -> None:
        """Let `run()` return after the batch at hand. Safe to call from a signal handler."""
        self._stopping.set()

    def handle(self, batch: Sequence[Message]) -> list[Message]:
        """The outcome of each message of `batch`: a prediction, an error reply or a dead letter.

        Nothing is sent. Raises nothing because of a message, whatever is in it.
        """
        self.metrics.in_flight = len(batch)
        self.metrics.batch_size.observe(len(batch))
        outgoing: list[Message] = []
        answerable: list[tuple[Envelope, Images]] = []
        for message in batch:
            try:
                envelope = read_envelope(message)
            except BadMessage as error:
                outgoing.append(self._set_aside(message, error))
                continue
            try:
                check_envelope(envelope, message, reply_topics=(self._replies,))
                answerable.append((envelope, read_images(envelope, message)))
            except BadMessage as error:
                outgoing.append(self._refuse(envelope, error))

        packages = [images for _, images in answerable]
        started = time.perf_counter()
        answers = predict_each(self._classifier.predict, packages)
        self.metrics.inference_seconds.observe(time.perf_counter() - started)
        for (envelope, images), answer in zip(answerable, answers, strict=True):
            outgoing.append(self._answer(envelope, images, answer))
        self.metrics.requests += len(batch)
        return outgoing

    def _answer(self, envelope: Envelope, images: Images, answer: Probabilities | Exception) -> Message:
        if isinstance(answer, Exception):
            log.error("the model failed on request %s: %s", envelope.id, answer)
            return self._refuse(envelope, BadMessage(ErrorCode.MODEL, "the model failed on these images"))
        self.metrics.images += len(images)
        log.debug("answered %s: %d images", envelope.id, len(images))
        return encode_reply(envelope, self._replies, self._classifier.model, self._classifier.labels, answer)

    def _refuse(self, envelope: Envelope, error: BadMessage) -> Message:
        self.metrics.errors[error.code] += 1
        log.debug("refused %s: %s", envelope.id, error.code)
        return encode_error(envelope, self._replies, error)

    def _set_aside(self, message: Message, error: BadMessage) -> Message:
        self.metrics.dead_letters[error.code] += 1
        log.debug("dead letter: %s", error.code)
        return dead_letter(message, self._dead_letter_topic, error)


def predict_each(
    predict: Callable[[Images], Probabilities], packages: Sequence[Images]
) -> list[Probabilities | Exception]:
    """Predict all packages in one batch; each one's probabilities, or the error it raises by itself.

    When the batch fails it is halved and tried again, so that one package cannot fail its neighbours.
    """
    if not packages:
        return []
    try:
        probabilities = predict(packages[0] if len(packages) == 1 else np.concatenate(packages))
    except Exception as error:
        if len(packages) == 1:
            return [error]
        half = len(packages) // 2
        return predict_each(predict, packages[:half]) + predict_each(predict, packages[half:])
    ends = np.cumsum([len(images) for images in packages])
    return list(np.split(probabilities, ends[:-1]))
