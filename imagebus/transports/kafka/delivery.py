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

from confluent_kafka import Consumer, TopicPartition

from imagebus.errors import CommitFailed, TooLarge
from imagebus.transports.base import Instead, earliest
from imagebus.transports.kafka.outgoing import OutgoingBatch
from imagebus.transports.kafka.sender import Sender
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

CONFIRM_SECONDS = 35.0  # a little over message.timeout.ms: by then each message is confirmed or given up
FLUSH_SECONDS = 10.0  # for what is queued when the bus is closed
FLUSH_CHECK_SECONDS = 0.02  # between two looks at the batch, while others publish on the same connection
# Without a confirmation of any outcome, the next batch goes on: what is missing is for a partition that takes no
# writes. Healthy brokers confirm in milliseconds. Not sooner where that is known: what is too large is refused twice
# before it is judged, and a batch that has ended by then goes back, with all that is behind it.
STUCK_SECONDS = 1.0

FinishBy = Callable[[], "float | None"]  # `Member.finish_by`, as it is now
Finish = Callable[[], "OutgoingBatch | None"]


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
        succeed. It may return the batch while some of it is not confirmed: the requests of those stay
        uncommitted, and the others go on. `instead` is that of `Member.commit`.
        """
        ...

    def close(self) -> None:
        """Close the connection, after a short wait for what is not confirmed yet."""
        ...


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
    """Sends, and waits until the brokers have confirmed each message.

    A partition that takes no writes holds up only its own: where `patient` is false, a batch ends without what
    is not confirmed for a while.
    """

    commits_offsets = False

    def __init__(self, sender: Sender, *, patient: bool = False) -> None:
        self._sender = sender
        self._patient = patient
        self._stuck: list[OutgoingBatch] = []  # ended before all of it was confirmed

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
        batch = OutgoingBatch()
        batch.send(self._sender.send, outgoing)
        return partial(self._finish, batch, finish_by, instead)

    def _finish(
        self, batch: OutgoingBatch, finish_by: FinishBy, instead: Instead | None
    ) -> OutgoingBatch | None:
        while True:
            self._wait(batch, finish_by)
            if batch.unconfirmed and (self._patient or batch.failures or finish_by() is not None):
                self._sender.purge()
                self._sender.poll()
            if batch.unconfirmed and self._patient:
                raise CommitFailed(
                    f"{batch.unconfirmed} messages were not confirmed: nothing was heard of them"
                )
            if finish_by() is None or not batch.missing():
                batch.check()
            if not batch.send_instead(self._sender.send, partial(smaller, instead=instead)):
                break
        missing = batch.missing()
        if not missing:
            return None
        self._stuck.append(batch)
        return batch

    def _wait(self, batch: OutgoingBatch, finish_by: FinishBy) -> None:
        """Until all is confirmed, or nothing more is for so long."""
        self._stuck = [each for each in self._stuck if each.missing()]
        deadline = time.monotonic() + CONFIRM_SECONDS
        left, since = batch.unconfirmed, time.monotonic()
        while batch.unconfirmed:
            if self._stuck:  # a flush would wait for those too
                self._sender.poll(FLUSH_CHECK_SECONDS)
            else:
                self._sender.flush(FLUSH_CHECK_SECONDS)
            now = time.monotonic()
            if batch.unconfirmed < left:
                left, since = batch.unconfirmed, now
            if now > earliest(deadline, finish_by()):
                return
            if now - since > STUCK_SECONDS and not self._patient and finish_by() is None:
                return

    def close(self) -> None:
        """See `Delivery.close`. The requests of what is stuck come again: it is not waited for."""
        if any(batch.missing() for batch in self._stuck):
            self._sender.purge()
        left = self._sender.flush(FLUSH_SECONDS)
        if left:
            log.warning("%d messages were not confirmed before closing", left)


def nothing_left() -> None:
    """The end of a commit that was complete when it began."""
