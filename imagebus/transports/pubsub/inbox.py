"""A requestor's private reader of a topic: a subscription of its own, which ends with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from imagebus.transports.base import Inbox
from imagebus.transports.pubsub.attributes import from_pubsub
from imagebus.transports.pubsub.leases import SHORTEST_SECONDS
from imagebus.transports.pubsub.subscription import STOP_SECONDS, Subscription
from imagebus.wire.message import Message


class PubSubInbox(Inbox):
    """Reads a topic from now on, except messages marked as another requestor's.

    They are acknowledged at once, since the subscription has no other reader.
    """

    def __init__(self, topic: str, requestor: str, subscription: Subscription) -> None:
        self.return_headers = [("requestor", requestor.encode())]
        self.subscription = subscription
        self._topic = topic
        self._requestor = requestor
        self._waiting: deque[Message] = deque()
        subscription.read(self._arrive, lease=lambda: SHORTEST_SECONDS, in_hand=lambda: 0)

    def receive(self, limit: int, timeout: float) -> list[Message]:
        with self.subscription.changed:
            self.subscription.wait_for(lambda: bool(self._waiting), timeout)
            return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    def _arrive(self, received: Sequence[Any]) -> None:
        # The subscription's filter, which the service applies and the emulator does not.
        ours = [
            from_pubsub(each.message, self._topic, 1)
            for each in received
            if each.message.attributes.get("requestor", self._requestor) == self._requestor
        ]
        if ours:
            with self.subscription.changed:
                self._waiting.extend(ours)
                self.subscription.changed.notify_all()
        self.subscription.acknowledge_soon([each.ack_id for each in received])

    def stop(self) -> None:
        """Take nothing more."""
        self.subscription.stop(STOP_SECONDS)
