"""The replier's serving loop: receive, answer, commit.

At-least-once: the replies of a batch are confirmed by the bus before its requests are marked as done,
so a replier that is killed anywhere in between leaves its batch to the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from imagebus.answering import Answered, Answering, Batch
from imagebus.backoff import Backoff
from imagebus.batching import fill
from imagebus.classifier import Classifier
from imagebus.errors import CommitFailed, ModelError
from imagebus.forking import OfOneProcess
from imagebus.metrics import Metrics
from imagebus.observer import Observer
from imagebus.transports.base import Commit, Member
from imagebus.wire.message import Message
from imagebus.wire.results import ModelIdentity

log = logging.getLogger(__name__)

GLANCE_SECONDS = 0.002  # for the next batch, while one is in hand; a confirmation takes as long
COMMIT_PAUSES = (0.1, 5.0)  # seconds before a retry after a failed commit: the first, and the longest
STOP_SECONDS = 5.0  # for the batch in hand at a stop; brokers that answer confirm in milliseconds
SLOW_SECONDS = 60.0  # of one batch: callers wait 30 s, and a model that hangs keeps its partitions
# Batches in a row that fail as a whole: it is the model's fault, and another replier may do better.
UNHEALTHY = 3


@dataclass(frozen=True)
class Health:
    """A worker's state. `partitions` is None before the first assignment; `last_commit` is Unix time in seconds."""

    ready: bool
    partitions: tuple[int, ...] | None
    last_commit: float | None
    model: ModelIdentity
    failures: tuple[str, ...]  # what keeps it from being ready, one line each


class _Outcomes(NamedTuple):
    """A batch that is answered, before anything is sent."""

    batch: Batch
    outgoing: list[Message]


class _Pending(NamedTuple):
    """A batch that is being confirmed and committed."""

    messages: Sequence[Message]
    commit: Commit


class Worker(OfOneProcess):
    """Answers the requests that `member` receives with the predictions of `classifier`.

    `max_batch_size` is in requests, `max_wait` in seconds (see `fill`). `at_once` is the number of batches with
    the classifier at the same time, 2 if its `predict` can be called from two threads: the next batch's first
    images then take the cores that this one's last images leave. Predictions and errors go to the topic
    `replies`, requests that cannot be answered to `dead_letter_topic`, with `group` in a header. With
    `require_hash`, a request without a `sha256` header is refused (`NO_HASH`). `observers` are notified of each
    step; `metrics` is always the first of them.
    """

    def __init__(
        self,
        member: Member,
        classifier: Classifier,
        *,
        replies: str,
        dead_letter_topic: str,
        max_batch_size: int = 128,
        max_wait: float = 0.0,
        at_once: int = 1,
        require_hash: bool = False,
        group: str = "",
        observers: Sequence[Observer] = (),
    ) -> None:
        self.metrics = Metrics(member)
        self._member = member
        self._model = classifier.model
        self._max_batch_size = max_batch_size
        self._max_wait = max_wait
        self._observers = (self.metrics, *observers)
        self._answering = Answering(
            classifier,
            replies=replies,
            dead_letter_topic=dead_letter_topic,
            require_hash=require_hash,
            group=group,
            observers=self._observers,
        )
        self._pipeline = _Pipeline(self._answering, max_batch_size, at_once)
        self._pending: _Pending | None = None
        self._stopping = threading.Event()
        self._backoff = Backoff(*COMMIT_PAUSES)
        self._commit_failure: CommitFailed | None = None  # of the last commit
        self._last_commit: float | None = None  # time.time()

    def run(self) -> None:
        """Serve until `stop()`, then finish what is in hand.

        After a full batch there will be more: the next one is received and waits for the model while that
        works on this one, and the previous one's outcomes are confirmed meanwhile. Never more than three are
        in hand, and they are committed in order. Raises `TransportError` when the bus fails for good, `ModelError`
        when the model fails on batch after batch.
        """
        try:
            while not self._stopping.is_set():
                batch = self._receive()  # dynamic batching
                if self._pipeline.put(batch):
                    continue  # there is time to receive more
                answered = self._pipeline.take()  # replies and dead letters; nothing is sent yet
                self._commit(answered)  # outputs exist, then inputs are done
            # Not in `finally`: after a batch that failed for good, nothing may be committed.
            if self._settle():
                while answered := self._pipeline.take():
                    self._commit(answered)
        finally:
            self._settle()
            self._pipeline.close()

    def stop(self) -> None:
        """Let `run()` return after the batch at hand. Safe to call from a signal handler."""
        self._stopping.set()
        self._member.finish_by = time.monotonic() + STOP_SECONDS

    def health(self) -> Health:
        """Its state, for a probe. Any thread may call."""
        partitions = self._member.partitions
        failures = []
        if partitions is None:
            failures.append("no partitions are assigned yet")
        if self._commit_failure is not None:
            failures.append(str(self._commit_failure))
        if unconfirmed := self._member.unconfirmed:
            failures.append(f"{unconfirmed} outcomes are not confirmed by the bus")
        if (seconds := self._answering.working_for()) > SLOW_SECONDS:
            failures.append(f"the model has been at work on a batch for {seconds:.0f} s")
        if self._answering.model_failures:
            failures.append(f"the model failed on {self._answering.model_failures} batches in a row")
        if self._stopping.is_set():
            failures.append("it is stopping")
        return Health(not failures, partitions, self._last_commit, self._model, tuple(failures))

    def _receive(self) -> list[Message]:
        """The next batch. While another one is in hand, it does not wait for a fuller one."""
        if self._pending is not None or self._pipeline:
            batch = self._member.receive(self._max_batch_size, GLANCE_SECONDS)
        else:
            batch = fill(
                self._member.receive, self._max_batch_size, self._max_wait, stopping=self._stopping.is_set
            )
        if batch:
            for observer in self._observers:
                observer.received(batch)
        return batch

    def _commit(self, answered: _Outcomes | None) -> None:
        """End the last commit, and begin the next."""
        if not self._settle():
            self._pipeline.clear()  # received after the failed batch: they come again with it
            return
        if answered is not None:
            batch, outgoing = answered
            commit = self._member.commit(batch.messages, outgoing, partial(self._answering.smaller, batch))
            self._pending = _Pending(batch.messages, commit)
        if self._answering.model_failures >= UNHEALTHY:
            raise ModelError(f"the model failed on {UNHEALTHY} batches in a row")

    def _settle(self) -> bool:
        """Wait for the commit's result; False when everything since has to be done again."""
        pending, self._pending = self._pending, None
        if pending is None:
            return True
        try:
            pending.commit.result()
        except CommitFailed as error:
            self._commit_failure = error
            pause = self._backoff.next()
            log.warning("%s; trying again in %.1f s", error, pause)
            self._stopping.wait(pause)
            self._member.rewind()
            for observer in self._observers:
                observer.commit_failed(error)
            return False
        self._commit_failure = None
        self._last_commit = time.time()
        self._backoff.reset()
        for observer in self._observers:
            observer.committed(pending.messages)
        return True


class _Pipeline:
    """Batches that are with the model, in order."""

    def __init__(self, answering: Answering, max_batch_size: int, at_once: int) -> None:
        self._answering = answering
        self._max_batch_size = max_batch_size
        self._model_threads = ThreadPoolExecutor(at_once, thread_name_prefix="imagebus-batch")
        self._predicting: deque[tuple[Batch, Future[Answered]]] = deque()

    def put(self, messages: Sequence[Message]) -> bool:
        """Give the model a batch; returns whether the next one can be received meanwhile."""
        if not messages:
            return False
        batch = self._answering.read(messages)
        full = len(messages) >= self._max_batch_size > 1
        if full or self._predicting:
            answers = self._model_threads.submit(self._answering.predict, batch)
        else:  # nothing else is to be done meanwhile
            answers = Future()
            answers.set_result(self._answering.predict(batch))
        self._predicting.append((batch, answers))
        return full and len(self._predicting) == 1

    def take(self) -> _Outcomes | None:
        """The outcomes of the oldest batch, once the model has answered it; None without a batch."""
        if not self._predicting:
            return None
        batch, answers = self._predicting.popleft()
        return _Outcomes(batch, self._answering.outcomes(batch, answers.result()))

    def clear(self) -> None:
        """Forget them: they come again."""
        self._predicting.clear()

    def close(self) -> None:
        """Let no more batches into the model."""
        self._model_threads.shutdown(wait=False, cancel_futures=True)

    def __len__(self) -> int:
        return len(self._predicting)
