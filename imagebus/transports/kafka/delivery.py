"""How a batch's outcomes reach the brokers: the seam of the two guarantees, and at-least-once.

At least once: the messages are sent and confirmed here; the offsets are committed afterwards, by the
consumer. Exactly once (`transactions.py`): messages and offsets are one transaction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as Record

from imagebus.errors import CommitFailed, TooLarge
from imagebus.transports.base import Instead, earliest
from imagebus.transports.kafka.errors import is_too_large
from imagebus.transports.kafka.sender import OnRecord, Sender
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

CONFIRM_SECONDS = 35.0  # a little over message.timeout.ms: by then each message is confirmed or given up
FLUSH_SECONDS = 10.0  # for what is queued when the bus is closed
FLUSH_CHECK_SECONDS = 0.02  # between two looks at the batch, while others publish on the same connection

FinishBy = Callable[[], "float | None"]  # `Member.finish_by`, as it is now
Finish = Callable[[], None]
Send = Callable[[Message, OnRecord], None]


class Delivery(Protocol):
    """One of the guarantees."""

    commits_offsets: bool  # along with the messages

    def begin(
        self,
        outgoing: Sequence[Message],
        ends: Sequence[TopicPartition],
        consumer: Consumer,
        finish_by: FinishBy,
        instead: Instead | None,
        /,
    ) -> Finish:
        """Make `outgoing` exist; `ends` are the offsets that they answer up to.

        The returned function waits for that, until `finish_by` at most, and raises `CommitFailed` if it did not
        succeed. `instead` is that of `Member.commit`.
        """
        ...

    def close(self) -> None:
        """Close the connection, after a short wait for what is not confirmed yet."""
        ...


class OutgoingBatch:
    """The outcomes of one batch on their way, and what became of them.

    It keeps no producer: the producer holds its callbacks, so neither could ever be freed.
    """

    def __init__(self, send: Send, outgoing: Sequence[Message]) -> None:
        self.failures: list[KafkaError] = []
        self.too_large: list[int] = []  # their places
        self._sent = 0
        self._heard: list[int] = []  # the places whose fate is known; a list, since several threads may poll
        for place, message in enumerate(outgoing):
            self._try(send, place, message)

    def _try(self, send: Send, place: int, message: Message) -> None:
        try:
            send(message, partial(self._delivered, place))
            self._sent += 1
        except TooLarge:
            self.too_large.append(place)

    @property
    def unconfirmed(self) -> int:
        """How many are still on their way."""
        return self._sent - len(self._heard)

    def _delivered(self, place: int, error: KafkaError | None, _: Record) -> None:
        if error is not None and is_too_large(error):
            self.too_large.append(place)
        elif error is not None:
            self.failures.append(error)
        self._heard.append(place)

    def check(self) -> None:
        """Raise `CommitFailed` unless each message was confirmed, or is too large."""
        if self.failures or self.unconfirmed:
            count = self.unconfirmed + len(self.failures)
            reason = self.failures[0].str() if self.failures else "nothing was heard of them"
            raise CommitFailed(f"{count} replies were not confirmed: {reason}")

    def send_instead(self, send: Send, instead: Instead | None) -> bool:
        """Send something smaller in place of what is too large; whether there was any."""
        too_large, self.too_large = self.too_large, []
        for place, message in smaller(too_large, instead).items():
            self._try(send, place, message)
        return bool(too_large)


def smaller(too_large: Sequence[int], instead: Instead | None) -> dict[int, Message]:
    """What to send in place of each outcome that is too large; raises `TooLarge` without `instead`."""
    if not too_large:
        return {}
    problem = (
        f"{len(too_large)} replies are larger than max.message.bytes of the topic or "
        f"message.max.bytes of this client"
    )
    if instead is None:
        raise TooLarge(problem)
    log.warning("%s: errors are sent in their place", problem)
    return {place: instead(place) for place in too_large}


class AtLeastOnce:
    """Sends, and waits until the brokers have confirmed each message."""

    commits_offsets = False

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def begin(
        self,
        outgoing: Sequence[Message],
        _ends: Sequence[TopicPartition],
        _consumer: Consumer,
        finish_by: FinishBy,
        instead: Instead | None,
        /,
    ) -> Finish:
        """See `Delivery.begin`. librdkafka's threads send while the caller goes on."""
        if not outgoing:
            return nothing_left
        return partial(self._finish, OutgoingBatch(self._sender.send, outgoing), finish_by, instead)

    def _finish(self, batch: OutgoingBatch, finish_by: FinishBy, instead: Instead | None) -> None:
        deadline = time.monotonic() + CONFIRM_SECONDS
        while True:
            while batch.unconfirmed:
                self._sender.flush(FLUSH_CHECK_SECONDS)
                if time.monotonic() > earliest(deadline, finish_by()):
                    break
            if batch.unconfirmed:
                self._sender.purge()
            batch.check()
            if not batch.send_instead(self._sender.send, instead):
                return

    def close(self) -> None:
        """See `Delivery.close`."""
        left = self._sender.flush(FLUSH_SECONDS)
        if left:
            log.warning("%d messages were not confirmed before closing", left)


def nothing_left() -> None:
    """The end of a commit that was complete when it began."""
