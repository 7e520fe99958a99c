"""One subscription, read in the background, and the calls that tell Pub/Sub what became of its messages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
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

log = logging.getLogger(__name__)

MAX_ACK_IDS = 1000  # in one request, which may have 512 KiB
STOP_SECONDS = 5.0  # for what is just coming when the bus is closed
LEAST_SECONDS = 0.1  # for one call whose time is over: an answer that is on its way is still heard


class Subscription:
    """A subscription that an inbox or a member reads.

    `changed` guards what its reader keeps of what came; `wait_for` waits for a change and raises what failed.
    What failed for good is raised by each call from then on: nothing comes any more. `raise_unsent` raises
    what the bus could not publish.
    """

    def __init__(
        self, clients: Clients, name: str, *, stream: bool, raise_unsent: Callable[[], None]
    ) -> None:
        self.name = name
        self.changed = threading.Condition()
        self._clients = clients
        self._stream = stream
        self._raise_unsent = raise_unsent
        self._metadata = [("x-goog-request-params", f"subscription={name}")]
        self._failure: TransportError | None = None
        self._source: Source
        self._intake: Intake

    def read(
        self,
        arrived: Callable[[Sequence[Any]], None],
        *,
        lease: Callable[[], int],
        in_hand: Callable[[], int],
    ) -> None:
        """Begin to read: `arrived` gets the `ReceivedMessage`s as they come, on a thread of its own.

        `lease` says for how many seconds they are wanted, `in_hand` how many there are already.
        """
        if self._stream:
            self._source = StreamingPull(self._clients, self.name, lease)
        else:
            self._source = UnaryPull(self._clients, self.name, in_hand)
        self._intake = Intake(self._source, arrived, self.fail, self.translate)

    def wait_for(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until it is so, with `changed` held, for so long at most. Raises `TransportError`."""
        self._raise_unsent()
        self.changed.wait_for(lambda: ready() or self._failure, timeout)
        if self._failure is not None:
            raise self._failure

    def fail(self, failure: TransportError) -> None:
        """Nothing comes any more; the first failure is the cause of the others."""
        with self.changed:
            self._failure = self._failure or failure
            self.changed.notify_all()

    def translate(self, error: Any) -> TransportError:
        """An error of gRPC as this project's."""
        return self._clients.translate(error, self.name, "pubsub.subscriptions.consume")

    def acknowledge_soon(self, ack_ids: list[str]) -> None:
        """For messages whose acknowledgement may be lost; called from inside `arrived`."""
        self._source.acknowledge(ack_ids)

    def acknowledge(self, ack_ids: Sequence[str], deadline: float) -> None:
        """Acknowledge and read the result, until then. Never raises: at worst the messages come again."""
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
                    if code_of(error) not in PASSING:
                        self.fail(failure)
                    break

    def set_leases(self, ack_ids: Sequence[str], seconds: int, deadline: float) -> bool:
        """Let at most `MAX_ACK_IDS` leases end so many seconds from now; whether Pub/Sub agreed."""
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
        """Take nothing more; waits so long at most for what is just coming."""
        self.fail(TransportError("the bus is closed"))
        self._intake.close(seconds)
