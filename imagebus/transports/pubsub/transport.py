"""Google Cloud Pub/Sub behind the six verbs, on google-cloud-pubsub.

The order of things is the delivery guarantee, as with Kafka: outcomes are confirmed before their requests
are acknowledged, and each acknowledgement's result is read. Where Kafka has partitions of one owner,
Pub/Sub has a lease on each message, which is extended for as long as the message is in hand.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from imagebus.errors import CommitFailed, PublishFailed, TooLarge, TransportError
from imagebus.service_account import ServiceAccount
from imagebus.transports.base import Commit, OnAssigned, OnDelivery, Transport
from imagebus.transports.pubsub.attributes import from_pubsub, to_pubsub
from imagebus.transports.pubsub.clients import (
    PASSING,
    PAUSE_SECONDS,
    AcknowledgeRequest,
    Clients,
    ModifyAckDeadlineRequest,
    code_of,
    in_parts,
)
from imagebus.transports.pubsub.intake import Intake, Questions, Source, Stream
from imagebus.transports.pubsub.leases import Leases, Taken
from imagebus.transports.pubsub.sender import CONFIRM_SECONDS, Sender, publish
from imagebus.transports.pubsub.suspects import FEW, Suspects
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

ACK_IDS = 1000  # in one request, which may have 512 KiB
ACK_SECONDS = 5.0  # for an acknowledgement, with all its tries
HURRY_SECONDS = 5.0  # for a batch at a stop, as with Kafka
CLOSE_SECONDS = 10.0


class PubSubTransport(Transport):
    """One replier's or requestor's connection to Pub/Sub.

    `topics` are created when missing; a group's subscription is `<topic>-<group>`. Messages of a topic have
    no order. A member counts as dead when it does not extend its leases, after 10 to 60 seconds.

    With `stream`, messages come on a stream, without it by one question after the other; by default as
    `intake.py` has it.

    Raises `ConfigError` for names that Pub/Sub does not take, `ConnectionFailed` when nothing answers or the
    login is refused, `AccessDenied` when a right is missing.
    """

    def __init__(
        self, account: ServiceAccount, *, topics: Sequence[str] = (), stream: bool | None = None
    ) -> None:
        self._stream = stream
        self._topics = frozenset(topics)
        self._clients = Clients(account)
        try:
            self._clients.create_topics(topics)
        except BaseException:
            self._clients.close()
            raise
        self._sender = Sender(self._clients)
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="imagebus-commit")
        self._topic = ""
        self._subscription = ""
        self._requestor: str | None = None  # of a private inbox: what its requests are marked with
        self._suspects: Suspects | None = None  # of a group
        self._leases = Leases()
        self._arrived = threading.Condition()
        self._waiting: deque[Message] = deque()
        self._in_hand: dict[str, Message] = {}  # returned by `receive` and not committed, in their order
        self._failure: TransportError | None = None
        self._closed = threading.Event()
        self._source: Source
        self._intake: Intake | None = None
        self._keeper: threading.Thread | None = None  # of a group's leases

    # --- receiving -----------------------------------------------------------------------------

    def subscribe(self, topic: str, group: str | None = None, on_assigned: OnAssigned | None = None) -> None:
        self._topic = topic
        if group is None:
            self._requestor = str(uuid.uuid4())
            self._subscription = self._clients.open_inbox(topic, self._requestor)
        else:
            dead_letter_topic = f"{topic}.dlt"
            self._subscription = self._clients.join(
                topic, group, dead_letter_topic if dead_letter_topic in self._topics else None
            )
            self._suspects = Suspects(
                self._clients.subscriber, self._subscription, self._clients.topic(topic)
            )
            self._keeper = threading.Thread(target=self._keep_leases, name="imagebus-leases", daemon=True)
            self._keeper.start()
        stream = not self._clients.is_emulator if self._stream is None else self._stream
        if stream:
            self._source = Stream(self._clients, self._subscription, self._leases.seconds)
        else:
            self._source = Questions(self._clients, self._subscription, lambda: len(self._leases))
        self._intake = Intake(self._source, self._arrive, self._note, self._translate)
        if on_assigned is not None:
            on_assigned([0])  # as one partition, which all members share

    def _translate(self, error: Any) -> TransportError:
        return self._clients.translate(error, self._subscription, "pubsub.subscriptions.consume")

    def receive(self, limit: int, timeout: float) -> list[Message]:
        if not self._subscription:
            raise TransportError("receive before subscribe")
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting or self._failure, timeout)
            self._raise_failure()
            messages = self._take(limit)
        if self._requestor is None:
            for place, message in enumerate(messages):
                if message.attempt > 2 and self._is_killer(message):
                    messages[place] = message._replace(attempt=message.attempt + 1)
            self._in_hand.update((message.receipt, message) for message in messages)
        return messages

    def _take(self, limit: int) -> list[Message]:
        """Messages that may be tried together: those that nobody died with, or a few, or one."""
        if not self._waiting:
            return []
        attempt = self._waiting[0].attempt
        allowed = limit if attempt == 1 else min(limit, FEW) if attempt == 2 else 1
        taken: list[Message] = []
        while self._waiting and len(taken) < allowed and self._waiting[0].attempt == attempt:
            message = self._waiting.popleft()
            # After a freeze or a cut it may be with another member.
            if self._requestor is not None or self._leases.keep(message.receipt):
                taken.append(message)
        return taken

    def _is_killer(self, message: Message) -> bool:
        assert self._suspects is not None
        return self._suspects.begin(message.receipt)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _note(self, failure: TransportError) -> None:
        """Keep a failure for the next call; the first one is the cause of the others."""
        with self._arrived:
            self._failure = self._failure or failure
            self._arrived.notify_all()

    def _arrive(self, received: Sequence[Any]) -> None:
        new: list[Message] = []
        done: list[str] = []  # ack ids
        for each in received:
            message = each.message
            if self._requestor is not None:
                done.append(each.ack_id)  # nobody else would answer it
                # As the subscription's filter has it: the service applies that, the emulator does not.
                if message.attributes.get("requestor", self._requestor) == self._requestor:
                    new.append(from_pubsub(message, self._topic, 1))
                continue
            taken = self._leases.take(message.message_id, each.ack_id)
            if taken is Taken.ANSWERED:
                self.failed_acknowledgements += 1
                done.append(each.ack_id)
            elif taken is Taken.NEW:
                attempt = min(max(1, each.delivery_attempt), 3)
                new.append(from_pubsub(message, self._topic, attempt))
        if new:
            with self._arrived:
                self._waiting.extend(new)
                self._arrived.notify_all()
        if done:
            self._source.acknowledge(done)

    def _keep_leases(self) -> None:
        """Extend the leases of all that is in hand, in good time before they end."""
        while not self._closed.wait(self._leases.seconds() / 3):
            for ack_ids in in_parts(self._leases.ack_ids(), ACK_IDS):
                seconds = self._leases.seconds()
                if self._modify_leases(ack_ids, seconds):
                    self._leases.extended(ack_ids, seconds)

    def _modify_leases(self, ack_ids: Sequence[str], seconds: int) -> bool:
        """Whether Pub/Sub agreed."""
        request = ModifyAckDeadlineRequest(
            subscription=self._subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds
        )
        try:
            self._clients.modify_ack_deadline(
                request,
                timeout=ACK_SECONDS,
                metadata=[("x-goog-request-params", f"subscription={self._subscription}")],
            )
        except grpc.RpcError as error:
            log.debug("%d leases were not changed: %s", len(ack_ids), error.details())
            return False
        except ValueError:  # the channel was closed meanwhile
            return False
        return True

    # --- sending -------------------------------------------------------------------------------

    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        with self._arrived:
            self._raise_failure()
        encoded = to_pubsub(message)
        if self._requestor is not None:
            encoded.attributes["requestor"] = self._requestor

        def delivered(error: TransportError | None) -> None:
            if on_delivery is not None:
                on_delivery(error)
            elif error is not None:
                self._note(error)

        self._sender.put(message.topic, encoded, delivered)

    def begin_commit(self, received: Sequence[Message], outgoing: Sequence[Message] = ()) -> Commit:
        return self._committer.submit(self._commit, received, outgoing)

    def _commit(self, received: Sequence[Message], outgoing: Sequence[Message]) -> None:
        """See `Transport.begin_commit`. Here it is done as follows.

        1. Publish the outcomes, by topic, and wait until each is confirmed.
        2. Note that the messages are answered: from here on one that comes again is only acknowledged.
        3. Acknowledge them. What fails here is counted, and comes again.
        """
        by_topic: defaultdict[str, list[Any]] = defaultdict(list)
        refused = []
        for place, message in enumerate(outgoing):
            try:
                by_topic[message.topic].append(to_pubsub(message))
            except TooLarge as error:
                log.debug("%s", error)
                refused.append(place)
        if refused:
            raise CommitFailed(f"{len(refused)} replies are larger than Pub/Sub takes", refused=refused)
        by_then = time.monotonic() + CONFIRM_SECONDS

        def deadline() -> float:
            hurried_at = self.hurried_at
            return by_then if hurried_at is None else min(by_then, hurried_at + HURRY_SECONDS)

        for topic, messages in by_topic.items():
            try:
                publish(self._clients, topic, messages, deadline)
            except PublishFailed as error:  # what no trying again will mend is raised as it is
                raise CommitFailed(str(error)) from error

        self._acknowledge(self._leases.answered(message.receipt for message in received))
        for message in received:
            self._in_hand.pop(message.receipt, None)
            if message.attempt > 2 and self._suspects is not None:
                self._suspects.end(message.receipt)

    def _acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Acknowledge and read the result. Never raises: at worst the messages come again."""
        deadline = time.monotonic() + ACK_SECONDS
        for part in in_parts(ack_ids, ACK_IDS):
            request = AcknowledgeRequest(subscription=self._subscription, ack_ids=part)
            while True:
                try:
                    self._clients.acknowledge(
                        request,
                        timeout=max(0.1, deadline - time.monotonic()),
                        metadata=[("x-goog-request-params", f"subscription={self._subscription}")],
                    )
                    break
                except grpc.RpcError as error:
                    if code_of(error) in PASSING and time.monotonic() + PAUSE_SECONDS[0] < deadline:
                        time.sleep(PAUSE_SECONDS[0])
                        continue
                    failure = self._translate(error)
                    log.warning("%d acknowledgements failed, the messages come again: %s", len(part), failure)
                    if code_of(error) not in PASSING:
                        self._note(failure)
                    break

    def rewind(self) -> None:
        """See `Transport.rewind`. The leases are still ours, so nothing is asked of Pub/Sub."""
        with self._arrived:
            self._waiting.extendleft(reversed(self._in_hand.values()))
            self._in_hand.clear()

    # --- closing -------------------------------------------------------------------------------

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        if self._intake is not None:
            self._intake.close(HURRY_SECONDS)
        if self._keeper is not None:
            self._keeper.join(HURRY_SECONDS)
        self._committer.shutdown()
        self._sender.close(CLOSE_SECONDS)
        for ack_ids in in_parts(self._leases.ack_ids(), ACK_IDS):
            self._modify_leases(ack_ids, 0)  # to the other members, now
        if self._requestor is not None:
            self._clients.delete_inbox(self._subscription)
        self._clients.close()
