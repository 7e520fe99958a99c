"""A member of a group: a replier's share of a subscription, and the commit of what is done.

The order of steps is the delivery guarantee, as on Kafka: outcomes are confirmed before their requests are
acknowledged, and each acknowledgement's result is read. Where Kafka gives a partition one owner, Pub/Sub
leases each message, and the lease is extended while the message is in hand.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from imagebus.errors import CommitFailed, PublishFailed, TooLarge, TransportError
from imagebus.transports.base import Commit, Instead, Member, OnAssigned, earliest, how_many
from imagebus.transports.pubsub.attributes import from_pubsub, to_pubsub
from imagebus.transports.pubsub.clients import Clients, in_parts
from imagebus.transports.pubsub.leases import Leases, Taken
from imagebus.transports.pubsub.sender import CONFIRM_SECONDS, publish
from imagebus.transports.pubsub.subscription import MAX_ACK_IDS, STOP_SECONDS, Subscription
from imagebus.transports.pubsub.suspects import ALONE, FEW, Suspects
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

ACKNOWLEDGE_SECONDS = 5.0  # for a batch, retries included
LEASE_SECONDS = 5.0  # for the call that changes leases


class PubSubMember(Member):
    """A member of a group, whose members share one subscription."""

    partitions = (0,)  # there are none: all members share one

    def __init__(
        self, clients: Clients, topic: str, subscription: Subscription, on_assigned: OnAssigned | None
    ) -> None:
        self._on_assigned = on_assigned  # until it was called
        self._clients = clients
        self._topic = topic
        self._subscription = subscription
        self._changed = subscription.changed
        self._waiting: deque[Message] = deque()
        self._in_hand: dict[str, Message] = {}  # returned by `receive` and not committed, in their order
        self._leases = Leases()  # of both
        self._suspects = Suspects(clients.subscriber, subscription.name, clients.topic(topic))
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="imagebus-commit")
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep_leases, name="imagebus-leases", daemon=True)
        self._keeper.start()
        subscription.read(self._arrive, lease=self._leases.seconds, in_hand=lambda: len(self._leases))

    # --- receiving -----------------------------------------------------------------------------

    def receive(self, limit: int, timeout: float) -> list[Message]:
        if self._on_assigned is not None:
            self._on_assigned(self.partitions)
            self._on_assigned = None
        with self._changed:
            self._subscription.wait_for(lambda: self._has_suspect() or self._is_next_ours(), timeout)
            messages = self._take(limit)
        return [self._accuse(message) if message.attempt == ALONE else message for message in messages]

    @property
    def at_end(self) -> bool | None:
        """See `Member.at_end`. All that is known: more may come where the topic was created again."""
        return False if self._subscription.is_being_renewed else None

    def _has_suspect(self) -> bool:
        """Whether a suspect is in hand: either all messages there are suspects, or none is."""
        first = next(iter(self._in_hand.values()), None)
        return first is not None and first.attempt > 1

    def _is_next_ours(self) -> bool:
        """Whether a message of ours waits; after a freeze or a cut, another member may have an expired one."""
        while self._waiting and not self._leases.keep(self._waiting[0].receipt):
            self._waiting.popleft()
        return bool(self._waiting)

    def _take(self, limit: int) -> list[Message]:
        """Messages that may be tried together: a batch without suspects, a few suspects, or one.

        None while a suspect is in hand, and no suspect while anything is: so a death has a known cause.
        """
        if not self._waiting or self._has_suspect():
            return []
        attempt = self._waiting[0].attempt
        if attempt > 1 and self._in_hand:
            return []
        taken: list[Message] = []
        while (
            len(taken) < how_many(attempt - 1, limit, FEW)
            and self._is_next_ours()
            and self._waiting[0].attempt == attempt
        ):
            taken.append(self._waiting.popleft())
        self._in_hand.update((message.receipt, message) for message in taken)
        return taken

    def _accuse(self, message: Message) -> Message:
        """Raise a suspect's flag before it is tried alone; if a dead reader had raised it, that was its last try."""
        if not self._suspects.begin(message.receipt):
            return message
        killer = message._replace(attempt=ALONE + 1)
        with self._changed:
            self._in_hand[message.receipt] = killer
        return killer

    def _arrive(self, received: Sequence[Any]) -> None:
        new: list[Message] = []
        answered: list[str] = []  # ack ids
        for each in received:
            taken = self._leases.take(each.message.message_id, each.ack_id)
            if taken is Taken.ANSWERED:
                self.redelivered += 1
                answered.append(each.ack_id)
            elif taken is Taken.NEW:
                attempt = min(max(1, each.delivery_attempt), ALONE)
                new.append(from_pubsub(each.message, self._topic, attempt))
        if new:
            with self._changed:
                self._waiting.extend(new)
                self._changed.notify_all()
        if answered:
            self._subscription.acknowledge_soon(answered)

    def _keep_leases(self) -> None:
        """Extend all our leases in good time."""
        while not self._closed.wait(self._leases.seconds() / 3):
            for ack_ids in in_parts(self._leases.ack_ids(), MAX_ACK_IDS):
                seconds = self._leases.seconds()
                if self._subscription.set_leases(ack_ids, seconds, self._within(LEASE_SECONDS)):
                    self._leases.extended(ack_ids, seconds)

    # --- committing ----------------------------------------------------------------------------

    def commit(
        self, received: Sequence[Message], outgoing: Sequence[Message] = (), instead: Instead | None = None
    ) -> Commit:
        """See `Member.commit`. On a thread of its own:

        1. Publish the outcomes, by topic, and wait until each is confirmed.
        2. Note that the messages are answered: from here on a redelivered one is only acknowledged.
        3. Acknowledge them. A message whose acknowledgement fails is redelivered, and counted.
        """
        if self._closed.is_set():
            raise TransportError("the bus is closed")
        return self._committer.submit(self._commit, received, outgoing, instead)

    def _commit(
        self, received: Sequence[Message], outgoing: Sequence[Message], instead: Instead | None
    ) -> None:
        by_topic: defaultdict[str, list[Any]] = defaultdict(list)
        for place, message in enumerate(outgoing):
            topic, fitting = _fitting(place, message, instead)
            by_topic[topic].append(fitting)
        by_then = time.monotonic() + CONFIRM_SECONDS
        for topic, messages in by_topic.items():
            try:
                publish(self._clients, topic, messages, lambda: earliest(by_then, self.finish_by))
            except PublishFailed as error:  # any other error is for good, and raised as it is
                raise CommitFailed(str(error)) from error

        ack_ids = self._leases.answered(message.receipt for message in received)
        self._subscription.acknowledge(ack_ids, self._within(ACKNOWLEDGE_SECONDS))
        with self._changed:
            for message in received:
                self._in_hand.pop(message.receipt, None)
        for message in received:
            if message.attempt >= ALONE:
                self._suspects.end(message.receipt)

    def rewind(self) -> None:
        """See `Member.rewind`. The leases are still ours, so Pub/Sub is not involved."""
        with self._changed:
            self._waiting.extendleft(reversed(self._in_hand.values()))
            self._in_hand.clear()

    # --- the end -------------------------------------------------------------------------------

    def _within(self, seconds: float) -> float:
        return earliest(time.monotonic() + seconds, self.finish_by)

    def stop(self) -> None:
        """Stop receiving, and end the commit in progress."""
        self._closed.set()
        self._subscription.stop(self._left(STOP_SECONDS))
        self._keeper.join(self._left(STOP_SECONDS))
        self._committer.shutdown()

    def give_back(self) -> None:
        """Release what is still ours to the other members, now."""
        for ack_ids in in_parts(self._leases.ack_ids(), MAX_ACK_IDS):
            self._subscription.set_leases(ack_ids, 0, self._within(LEASE_SECONDS))

    def _left(self, seconds: float) -> float:
        return max(0.0, self._within(seconds) - time.monotonic())


def _fitting(place: int, message: Message, instead: Instead | None) -> tuple[str, Any]:
    """The topic and the `PubsubMessage` of an outcome, or of its replacement if it is too large."""
    while True:
        try:
            return message.topic, to_pubsub(message)
        except TooLarge as error:
            if instead is None:
                raise
            log.debug("%s", error)
            message = instead(place)
