"""Sending to Pub/Sub: waiting messages share a request, and each gets its own result."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc

from imagebus.backoff import Backoff
from imagebus.errors import PublishFailed, TransportError
from imagebus.transports.base import OnDelivery
from imagebus.transports.pubsub.attributes import MAX_PUBLISH_BYTES, MAX_PUBLISH_MESSAGES, size
from imagebus.transports.pubsub.clients import PASSING, RETRY_PAUSES, Clients, PublishRequest, code_of

log = logging.getLogger(__name__)

CONFIRM_SECONDS = 30.0  # for a message, retries included
TRY_SECONDS = 10.0  # for one try
QUEUE_BYTES = 64_000_000  # waiting; `put` blocks then

Deadline = Callable[[], float]  # time.monotonic(), called before each try


def publish(clients: Clients, topic: str, messages: Sequence[Any], deadline: Deadline) -> None:
    """Send `PubsubMessage`s to a topic, all confirmed when this returns; raises `TransportError`.

    A request is retried when its answer is lost, so a message can arrive twice.
    """
    part: list[Any] = []
    room = MAX_PUBLISH_BYTES
    for message in messages:
        needed = size(message)
        if part and (needed > room or len(part) == MAX_PUBLISH_MESSAGES):
            _publish_part(clients, topic, part, deadline)
            part, room = [], MAX_PUBLISH_BYTES
        part.append(message)
        room -= needed
    if part:
        _publish_part(clients, topic, part, deadline)


def _publish_part(clients: Clients, topic: str, messages: Sequence[Any], deadline: Deadline) -> None:
    name = clients.topic(topic)
    request = PublishRequest(topic=name, messages=messages)
    pauses = Backoff(*RETRY_PAUSES)
    while True:
        try:
            left = min(TRY_SECONDS, max(0.1, deadline() - time.monotonic()))
            clients.publish(request, timeout=left, metadata=[("x-goog-request-params", f"topic={name}")])
            return
        except grpc.RpcError as error:
            failure = clients.translate(error, f"topic {topic!r}", "pubsub.topics.publish")
            if code_of(error) == grpc.StatusCode.NOT_FOUND:  # a topic that is being created again
                raise PublishFailed(str(failure)) from None
            if code_of(error) not in PASSING:
                raise failure from None
        pause = pauses.next()
        if time.monotonic() + pause > deadline():
            raise PublishFailed(f"{len(messages)} messages to topic {topic!r} were not confirmed: {failure}")
        time.sleep(pause)


class _Waiting(NamedTuple):
    topic: str
    message: Any
    on_delivery: OnDelivery | None
    deadline: float  # time.monotonic()


class Sender:
    """Sends in the background, in the order of `put`; under load, waiting messages go together.

    A failure without an `on_delivery` is kept for `raise_failure`.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._busy = False
        self._closed = False
        self._failure: TransportError | None = None
        self._thread = threading.Thread(target=self._run, name="imagebus-sender", daemon=True)
        self._thread.start()

    def put(self, topic: str, message: Any, on_delivery: OnDelivery | None) -> None:
        """Queue one message; blocks while the queue is full. Raises `PublishFailed` when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < QUEUE_BYTES or self._closed)
            if self._closed:
                raise PublishFailed("the bus is closed")
            self._bytes += size(message)
            self._waiting.append(_Waiting(topic, message, on_delivery, time.monotonic() + CONFIRM_SECONDS))
            self._changed.notify_all()

    def raise_failure(self) -> None:
        """Raise the kept failure, once."""
        with self._changed:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self, seconds: float) -> None:
        """Send what waits, for at most `seconds`. Safe to call twice."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._waiting and not self._busy, seconds):
                log.warning("%d messages were not confirmed before closing", len(self._waiting) or 1)
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._busy = True
                batch = self._take()
            self._send(batch)

    def _take(self) -> list[_Waiting]:
        """One request: the first message, and those behind it for the same topic, up to the size limit."""
        batch = [self._waiting.popleft()]
        room = MAX_PUBLISH_BYTES - size(batch[0].message)
        while (
            self._waiting and len(batch) < MAX_PUBLISH_MESSAGES and self._waiting[0].topic == batch[0].topic
        ):
            room -= size(self._waiting[0].message)
            if room < 0:
                break
            batch.append(self._waiting.popleft())
        self._bytes -= sum(size(each.message) for each in batch)
        return batch

    def _send(self, batch: Sequence[_Waiting]) -> None:
        failure: TransportError | None = None
        try:
            deadline = batch[0].deadline
            publish(self._clients, batch[0].topic, [each.message for each in batch], lambda: deadline)
        except TransportError as error:
            failure = error
        except ValueError:  # the channel was closed meanwhile
            failure = PublishFailed("the bus is closed")
        for each in batch:
            if each.on_delivery is not None:
                each.on_delivery(failure)
            elif failure is not None:
                with self._changed:  # the first one is the cause of the others
                    self._failure = self._failure or failure
