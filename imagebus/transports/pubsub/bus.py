"""A connection to Google Cloud Pub/Sub: topics, publishing, and the readers."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence

from google.api_core.exceptions import GoogleAPICallError

from imagebus.errors import TransportError
from imagebus.transports.base import Bus, OnAssigned, OnDelivery, earliest
from imagebus.transports.pubsub.account import ServiceAccount
from imagebus.transports.pubsub.attributes import to_pubsub
from imagebus.transports.pubsub.clients import Clients
from imagebus.transports.pubsub.inbox import PubSubInbox
from imagebus.transports.pubsub.member import PubSubMember
from imagebus.transports.pubsub.opening import Plan, create, create_topics, delete, join, private, shared
from imagebus.transports.pubsub.sender import Sender
from imagebus.transports.pubsub.subscription import Subscription
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

FLUSH_SECONDS = 10.0  # for what is queued when the bus is closed


class PubSubBus(Bus):
    """One replier's or requestor's connection to Pub/Sub.

    `topics` are created when missing; a group's subscription is `<topic>-<group>`. Messages of a topic have
    no order. A member counts as dead when it does not extend its leases, after 10 to 60 seconds.

    With `stream`, messages come on a stream, without it by one pull after the other; the default is
    `intake.py`'s.

    Raises `ConfigError` for names that Pub/Sub does not take, `ConnectionFailed` when nothing answers or the
    login is refused, `AccessDenied` when a right is missing.
    """

    def __init__(
        self, account: ServiceAccount, *, topics: Sequence[str] = (), stream: bool | None = None
    ) -> None:
        self._topics = frozenset(topics)
        self._clients = Clients(account)
        self._stream = not self._clients.is_emulator if stream is None else stream
        try:
            create_topics(self._clients, topics)
        except BaseException:
            self._clients.close()
            raise
        self._sender = Sender(self._clients)
        self._inboxes: list[PubSubInbox] = []
        self._members: list[PubSubMember] = []
        self._closed = False

    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        self._sender.raise_failure()
        self._sender.put(message.topic, to_pubsub(message), on_delivery)

    def inbox(self, topic: str) -> PubSubInbox:
        requestor = str(uuid.uuid4())
        plan = private(self._clients, topic, requestor)
        create(self._clients, plan, None)
        inbox = PubSubInbox(topic, requestor, self._subscription(plan, private=True))
        self._inboxes.append(inbox)
        return inbox

    def join(
        self,
        topic: str,
        group: str,
        on_assigned: OnAssigned | None = None,
        *,
        bounded: bool = False,  # noqa: ARG002  # nobody knows where a subscription ends
    ) -> PubSubMember:
        dead_letter_topic = f"{topic}.dlt"
        plan = shared(
            self._clients, topic, group, dead_letter_topic if dead_letter_topic in self._topics else None
        )
        join(self._clients, plan)
        member = PubSubMember(self._clients, topic, self._subscription(plan, private=False), on_assigned)
        self._members.append(member)
        return member

    def _subscription(self, plan: Plan, *, private: bool) -> Subscription:
        return Subscription(
            self._clients,
            plan,
            stream=self._stream,
            private=private,
            raise_unsent=self._sender.raise_failure,
        )

    def _left_behind(self, _: TransportError) -> None:
        self._closed = True

    def close(self) -> None:
        """See `Bus.close`. Messages in hand go to the other members at once: their leases are given back."""
        if self._closed:
            return
        self._closed = True
        for inbox in self._inboxes:
            inbox.stop()
        for member in self._members:
            member.stop()
        by_then = time.monotonic() + FLUSH_SECONDS
        for member in self._members:
            by_then = earliest(by_then, member.finish_by)
        self._sender.close(max(0.0, by_then - time.monotonic()))
        for member in self._members:
            member.give_back()
        for inbox in self._inboxes:
            try:
                delete(self._clients, inbox.subscription.name)
            except GoogleAPICallError as error:
                log.debug("a subscription stays for a day: %s", error.message)
        self._clients.close()
