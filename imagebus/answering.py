"""Messages in, outcomes out: a prediction, an error or a dead letter for each. No thread, no bus."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from imagebus.classifier import Classifier
from imagebus.errors import BadMessage, ErrorCode, ModelError, TooLarge
from imagebus.observer import Observer
from imagebus.recent import RecentAnswers, key_of
from imagebus.wire.dead_letters import dead_letter
from imagebus.wire.envelope import TOP, Envelope
from imagebus.wire.message import Message
from imagebus.wire.pixels import Images
from imagebus.wire.replies import encode_error, encode_reply
from imagebus.wire.requests import read_request
from imagebus.wire.results import Probabilities, Ranked, are_probabilities, rank

log = logging.getLogger(__name__)

Answer = Probabilities | Exception  # the model's, for one package

MAX_ATTEMPTS = 3  # of a message that crashes the replier each time
# Labels up to which a batch is ranked at once, as many for all as one asks for: enough for those requestors that ask
# for all labels of a small model, and so few that one package costs its neighbours next to nothing.
RANKED_TOGETHER = 25


class Answered(NamedTuple):
    """The model's answer to each package, and the seconds it took.

    `all_failed` tells whether it failed on each package that it was asked about; None when all were known.
    """

    answers: list[Answer]
    seconds: float
    all_failed: bool | None


@dataclass(slots=True)
class Batch:
    """Requests being answered: those for the model, and the outcomes of the others, by place."""

    messages: Sequence[Message]
    outcomes: dict[int, Message] = field(default_factory=dict)
    answerable: list[tuple[int, Envelope, Images]] = field(default_factory=list)
    refusals: dict[int, BadMessage] = field(default_factory=dict)
    fallbacks: dict[int, Iterator[Message]] = field(default_factory=dict)


class Answering:
    """Answers batches with the predictions of `classifier`; its parameters are those of `Worker`."""

    def __init__(
        self,
        classifier: Classifier,
        *,
        replies: str,
        dead_letter_topic: str,
        require_hash: bool = False,
        group: str = "",
        observers: Sequence[Observer] = (),
    ) -> None:
        self._classifier = classifier
        self._replies = replies
        self._dead_letter_topic = dead_letter_topic
        self._require_hash = require_hash
        self._group = group
        self._observers = observers
        self._recent = RecentAnswers()
        self.model_failures = 0  # batches in a row of which every package failed
        self._begun: dict[
            int, float
        ] = {}  # by thread, time.monotonic() at which the model began on its batch

    def answer(self, messages: Sequence[Message]) -> list[Message]:
        """The outcome of each message, in its place. Raises nothing because of a message's content."""
        batch = self.read(messages)
        return self.outcomes(batch, self.predict(batch))

    def read(self, messages: Sequence[Message]) -> Batch:
        """1. Read the requests. Unreadable ones get their outcome here."""
        batch = Batch(messages)
        for place, message in enumerate(messages):
            try:
                if message.attempt > MAX_ATTEMPTS:
                    raise BadMessage(
                        ErrorCode.KILLER, f"the replier died {MAX_ATTEMPTS} times with this message in hand"
                    )
                envelope, images = read_request(
                    message,
                    self._classifier.spec,
                    reply_topics=(self._replies,),
                    require_hash=self._require_hash,
                )
                batch.answerable.append((place, envelope, images))
            except BadMessage as error:
                batch.outcomes[place] = self._refuse(batch, place, error)
        return batch

    def predict(self, batch: Batch) -> Answered:
        """2. Let the model predict the images, once for copies of a request. May run on another thread."""
        keys = [key_of(envelope) for _, envelope, _ in batch.answerable]
        known: dict[str, Answer] = dict(self._recent.find(keys))
        asked = {
            key: images for key, (*_, images) in zip(keys, batch.answerable, strict=True) if key not in known
        }
        started = time.perf_counter()
        with self._at_work():
            answers = predict_each(self._classifier.predict, list(asked.values()))
        seconds = time.perf_counter() - started
        predicted = dict(zip(asked, answers, strict=True))
        good = {key: answer for key, answer in predicted.items() if not isinstance(answer, Exception)}
        self._recent.keep(good)
        known |= predicted
        return Answered([known[key] for key in keys], seconds, not good if asked else None)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        thread = threading.get_ident()
        self._begun[thread] = time.monotonic()
        try:
            yield
        finally:
            del self._begun[thread]

    def working_for(self) -> float:
        """The seconds for which the model has been at work on the batch that it began first. Any thread may call."""
        begun = list(self._begun.values())
        return time.monotonic() - min(begun) if begun else 0.0

    def outcomes(self, batch: Batch, answered: Answered) -> list[Message]:
        """3. Make the outcome of each message."""
        answers = answered.answers
        asked = (envelope.top for _, envelope, _ in batch.answerable)
        together = max((top for top in asked if top <= RANKED_TOGETHER), default=TOP)
        ranked = self._rank(answers, together)
        done = 0
        for (place, envelope, images), answer in zip(batch.answerable, answers, strict=True):
            if isinstance(answer, Exception):
                log.error("the model failed on request %s: %s", envelope.id, answer)
                failed = BadMessage(ErrorCode.MODEL, "the model failed on these images")
                failed.envelope = envelope
                batch.outcomes[place] = self._refuse(batch, place, failed)
                continue
            done += len(images)
            log.debug("answered %s: %d images", envelope.id, len(images))
            likeliest = next(ranked)
            batch.outcomes[place] = encode_reply(
                envelope,
                self._replies,
                self._classifier.model,
                self._classifier.labels,
                answer,
                likeliest if envelope.top <= together else None,
            )
        if answered.all_failed is not None:
            self.model_failures = self.model_failures + 1 if answered.all_failed else 0
        for observer in self._observers:
            observer.predicted(done, answered.seconds)
        return [batch.outcomes[place] for place in range(len(batch.messages))]

    def _rank(self, answers: Sequence[Answer], top: int) -> Iterator[Ranked]:
        """The `top` likeliest labels of each predicted package, ranked all at once."""
        probabilities = [answer for answer in answers if not isinstance(answer, Exception)]
        if probabilities:
            ranked = rank(self._classifier.labels, np.concatenate(probabilities), top)
            yield from _split(ranked, probabilities)

    def _refuse(self, batch: Batch, place: int, error: BadMessage) -> Message:
        """The outcome of a bad message: an error or a dead letter."""
        batch.refusals[place] = error
        message = batch.messages[place]
        for observer in self._observers:
            observer.refused(message, error)
        if error.envelope is None:
            log.debug("dead letter: %s", error.code)
            return dead_letter(message, self._dead_letter_topic, error, group=self._group)
        log.debug("refused %s: %s", error.envelope.id, error.code)
        return encode_error(error.envelope, self._replies, error)

    def smaller(self, batch: Batch, place: int) -> Message:
        """The replacement for an outcome that is larger than the bus takes: see `Member.commit`.

        An error for a prediction, a dead letter for an error, and for a dead letter one with only its reason
        and origin. Raises `TooLarge` where a topic does not take even that.
        """
        fallbacks = batch.fallbacks.setdefault(place, self._ever_smaller(batch, place))
        for outcome in fallbacks:
            return outcome
        raise TooLarge(
            f"topic {self._dead_letter_topic!r} does not take even a dead letter without its value: "
            "max.message.bytes is too small"
        )

    def _ever_smaller(self, batch: Batch, place: int) -> Iterator[Message]:
        text = "the reply is larger than the bus takes: ask for fewer images or labels"
        refusal = batch.refusals.get(place)
        if refusal is None:
            too_large = BadMessage(ErrorCode.TOO_LARGE, text)
            too_large.envelope = next(envelope for at, envelope, _ in batch.answerable if at == place)
            yield self._refuse(batch, place, too_large)
        if refusal is None or refusal.envelope is not None:
            refusal = BadMessage(ErrorCode.TOO_LARGE, text)
            yield self._refuse(batch, place, refusal)
        message = batch.messages[place]
        yield dead_letter(message, self._dead_letter_topic, refusal, group=self._group, whole=False)


def predict_each(predict: Callable[[Images], Probabilities], packages: Sequence[Images]) -> list[Answer]:
    """Predict all packages in one batch; each one's probabilities, or the error it raises by itself.

    A batch that fails is halved and tried again, so that one package cannot fail its neighbours; one that
    fails alone is tried once more.
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
    """The rows of all images, split by package."""
    ends = accumulate(map(len, packages), initial=0)
    return [rows[start:end] for start, end in pairwise(ends)]
