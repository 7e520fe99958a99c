"""One subscription, read in the background, and the calls on its messages: acknowledgements and leases."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc

from imagebus.errors import TransportError
from imagebus.transports.pubsub.clients import (
    PASSING,
    RETRY_PAUSES,
    AcknowledgeRequest,
    Clients,
    ModifyAckDeadlineRequest,
    code_of,
    in_parts,
)
from imagebus.transports.pubsub.intake import Intake, Source, StreamingPull, UnaryPull
from imagebus.transports.pubsub.opening import Place, Plan
from imagebus.transports.pubsub.watch import Watch

log = logging.getLogger(__name__)

MAX_ACK_IDS = 1000  # in one request, which may have 512 KiB
# What a subscription answers to ack ids of one that was deleted, whose name it has.
OF_ANOTHER = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT})
QUIET_SECONDS = (
    2.0  # without a message from a subscription that gets no new ones, beyond the leases of others
)
STOP_SECONDS = 5.0  # for messages that are just arriving when the bus is closed
LEAST_SECONDS = 0.1  # for a call whose time is over: an answer on its way still counts


class Subscription:
    """A subscription that an inbox or a member reads.

    `changed` guards its reader's waiting messages; `wait_for` waits for a change and raises a failure. A
    permanent failure is raised by each call from then on, as no more messages come. `raise_unsent` raises
    the bus's failure to publish. One that is `private` has no other reader.
    """

    def __init__(
        self,
        clients: Clients,
        plan: Plan,
        *,
        stream: bool,
        private: bool,
        raise_unsent: Callable[[], None],
    ) -> None:
        self.name = name = plan.name
        self._plan = plan
        self._private = private
        self.changed = threading.Condition()
        self._clients = clients
        self._stream = stream
        self._raise_unsent = raise_unsent
        self._metadata = [("x-goog-request-params", f"subscription={name}")]
        self._failure: TransportError | None = None
        self._last = time.monotonic()  # when messages came
        self._newest: datetime | None = None  # when the newest of them was sent
        self._arrived: Callable[[Sequence[Any]], None]
        self._source: Source
        self._intake: Intake
        self._watch: Watch

    def read(
        self,
        arrived: Callable[[Sequence[Any]], None],
        *,
        lease: Callable[[], int],
        in_hand: Callable[[], int],
    ) -> None:
        """Begin to read: `arrived` gets the `ReceivedMessage`s as they come, on a thread of its own.

        `lease` gives the length of their leases in seconds, `in_hand` the number of messages in hand.
        """
        if self._stream:
            self._source = StreamingPull(self._clients, self.name, lease)
        else:
            self._source = UnaryPull(self._clients, self.name, in_hand)
        self._arrived = arrived

        def is_drained() -> bool:
            # Another member that died may have had some, until its leases expired.
            silence = QUIET_SECONDS if self._private else lease() + QUIET_SECONDS
            return not in_hand() and time.monotonic() - self._last > silence

        self._watch = Watch(
            self._clients,
            self._plan,
            private=self._private,
            is_drained=is_drained,
            newest=lambda: self._newest,
            renewed=self._source.reopen,
            failed=self.fail,
        )
        self._intake = Intake(self._source, self._arrive, self.fail, self.translate, self._watch.look_soon)

    def _arrive(self, received: Sequence[Any]) -> None:
        if not received:  # a stream may say nothing
            return
        self._last = time.monotonic()
        newest = max(each.message.publish_time.ToDatetime(UTC) for each in received)
        self._newest = newest if self._newest is None else max(self._newest, newest)
        self._arrived(received)

    @property
    def is_being_renewed(self) -> bool:
        """Whether its topic was deleted, so that more may come than it has."""
        return self._watch.place is Place.ORPHANED

    def wait_for(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until `ready`, with `changed` held, for at most `timeout` s. Raises `TransportError`."""
        self._raise_unsent()
        self.changed.wait_for(lambda: ready() or self._failure, timeout)
        if self._failure is not None:
            raise self._failure.with_traceback(None)  # which would grow with each raise

    def fail(self, failure: TransportError) -> None:
        """No more messages come; the first failure is the cause of the others."""
        with self.changed:
            self._failure = self._failure or failure
            self.changed.notify_all()

    def translate(self, error: Any) -> TransportError:
        """An error of gRPC as this project's."""
        return self._clients.translate(error, self.name, "pubsub.subscriptions.consume")

    def acknowledge_soon(self, ack_ids: list[str]) -> None:
        """Acknowledge without a guarantee; called from inside `arrived`."""
        self._source.acknowledge(ack_ids)

    def acknowledge(self, ack_ids: Sequence[str], deadline: float) -> None:
        """Acknowledge and read the result, until `deadline`. Never raises: at worst, messages are redelivered."""
        for part in in_parts(ack_ids, MAX_ACK_IDS):
            request = AcknowledgeRequest(subscription=self.name, ack_ids=part)
            while True:
                try:
                    self._clients.acknowledge(
                        request,
                        timeout=max(LEAST_SECONDS, deadline - time.monotonic()),
                        metadata=self._metadata,
                    )
                    break
                except grpc.RpcError as error:
                    if code_of(error) in PASSING and time.monotonic() + RETRY_PAUSES[0] < deadline:
                        time.sleep(RETRY_PAUSES[0])
                        continue
                    failure = self.translate(error)
                    log.warning("%d acknowledgements failed, the messages come again: %s", len(part), failure)
                    if code_of(error) in OF_ANOTHER:
                        self._watch.look_soon()
                    elif code_of(error) not in PASSING:
                        self.fail(failure)
                    break

    def set_leases(self, ack_ids: Sequence[str], seconds: int, deadline: float) -> bool:
        """Let at most `MAX_ACK_IDS` leases end in `seconds`; returns whether Pub/Sub agreed."""
        request = ModifyAckDeadlineRequest(
            subscription=self.name, ack_ids=ack_ids, ack_deadline_seconds=seconds
        )
        try:
            self._clients.modify_ack_deadline(
                request, timeout=max(LEAST_SECONDS, deadline - time.monotonic()), metadata=self._metadata
            )
        except grpc.RpcError as error:
            log.debug("%d leases were not changed: %s", len(ack_ids), error.details())
            return False
        except ValueError:  # the channel was closed meanwhile
            return False
        return True

    def stop(self, seconds: float) -> None:
        """Stop reading; waits up to `seconds` for messages that are just arriving."""
        self.fail(TransportError("the bus is closed"))
        self._watch.close(seconds)
        self._intake.close(seconds)
