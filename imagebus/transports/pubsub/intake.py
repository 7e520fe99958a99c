"""How messages come from a subscription: on a stream, or by pulling.

The service is read on a stream, without delay. The emulator (0.8.20) is polled instead, by pulls that return
at once. It does not notice when a stream is cut or its reader killed, and keeps giving that stream its share
of the messages, each of which is then late by a lease; a pull that waits is left behind in the same way. It
also looks for new messages for a stream only every 50 ms, while it answers a pull that does not wait in 2.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import grpc

from imagebus.backoff import Backoff
from imagebus.errors import TransportError
from imagebus.transports.pubsub.clients import (
    PASSING,
    RETRY_PAUSES,
    AcknowledgeRequest,
    Clients,
    PullRequest,
    StreamingPullRequest,
    code_of,
)

log = logging.getLogger(__name__)

# In hand of one member, waiting included: two batches for the model, one being confirmed, one on its way here.
# No more, since all of them are late by a lease when the member is killed.
MAX_IN_HAND = 512
MAX_IN_HAND_BYTES = 16_000_000
HEARTBEAT_SECONDS = 25.0  # on an idle stream; Pub/Sub ends one after 90
PULL_SECONDS = 10.0  # for an answer to one pull
PULL_PAUSE_SECONDS = 0.01  # between two pulls when there was nothing, or no room
WARNING_PAUSE_SECONDS = 30.0  # between two warnings that there is no answer


class Source(Protocol):
    """One of the two ways."""

    def receive(self) -> Iterable[Sequence[Any]]:
        """`ReceivedMessage`s as they come, until the connection breaks; raises `grpc.RpcError`."""
        ...

    def acknowledge(self, ack_ids: list[str]) -> None:
        """Acknowledge without a guarantee; called from inside `receive`."""
        ...

    def reopen(self) -> None:
        """Let `receive` end where it holds on to a subscription that was deleted. Any thread may call."""
        ...

    def stop(self) -> None:
        """Let `receive` end for good. Any thread may call, at any time."""
        ...


class StreamingPull:
    """Messages on a stream, with Pub/Sub's flow control."""

    def __init__(self, clients: Clients, subscription: str, lease: Callable[[], int]) -> None:
        self._clients = clients
        self._subscription = subscription
        self._lease = lease  # seconds
        self._outgoing: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._call: Any = None
        self._stopped = False

    def receive(self) -> Iterable[Sequence[Any]]:
        """See `Source.receive`."""
        self._outgoing = queue.SimpleQueue()
        if self._stopped:  # and its None went to the previous queue
            return
        metadata = [("x-goog-request-params", f"subscription={self._subscription}")]
        try:
            self._call = self._clients.streaming_pull(self._requests(self._outgoing), metadata=metadata)
            for response in self._call:
                yield response.received_messages
        finally:
            self._outgoing.put(None)

    def _requests(self, outgoing: queue.SimpleQueue[list[str] | None]) -> Iterator[Any]:
        """The first request, then acknowledgements and heartbeats."""
        yield StreamingPullRequest(
            subscription=self._subscription,
            stream_ack_deadline_seconds=self._lease(),
            max_outstanding_messages=MAX_IN_HAND,
            max_outstanding_bytes=MAX_IN_HAND_BYTES,
        )
        while True:
            try:
                ack_ids = outgoing.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                yield StreamingPullRequest()
                continue
            if ack_ids is None:
                return
            yield StreamingPullRequest(ack_ids=ack_ids)

    def acknowledge(self, ack_ids: list[str]) -> None:
        """See `Source.acknowledge`."""
        self._outgoing.put(ack_ids)

    def reopen(self) -> None:
        """See `Source.reopen`."""
        if self._call is not None:
            self._call.cancel()

    def stop(self) -> None:
        """See `Source.stop`. It ends our half of the stream; Pub/Sub then ends the other."""
        self._stopped = True
        self._outgoing.put(None)


class UnaryPull:
    """Messages by one pull after the other, while there is room for more."""

    def __init__(self, clients: Clients, subscription: str, in_hand: Callable[[], int]) -> None:
        self._clients = clients
        self._subscription = subscription
        self._in_hand = in_hand  # messages
        self._stopped = threading.Event()

    def receive(self) -> Iterable[Sequence[Any]]:
        """See `Source.receive`."""
        while not self._stopped.is_set():
            room = MAX_IN_HAND - self._in_hand()
            received: Sequence[Any] = ()
            if room > 0:
                request = PullRequest(
                    subscription=self._subscription, max_messages=room, return_immediately=True
                )
                received = self._clients.pull(request, timeout=PULL_SECONDS).received_messages
            if received:
                yield received
            else:
                self._stopped.wait(PULL_PAUSE_SECONDS)

    def acknowledge(self, ack_ids: list[str]) -> None:
        """See `Source.acknowledge`."""
        request = AcknowledgeRequest(subscription=self._subscription, ack_ids=ack_ids)
        try:
            self._clients.acknowledge(request, timeout=PULL_SECONDS)
        except grpc.RpcError as error:  # they come again, and the next pull meets what is wrong
            log.debug("%d messages were not acknowledged: %s", len(ack_ids), error.details())

    def reopen(self) -> None:
        """See `Source.reopen`: each pull is a new call."""

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stopped.set()


class Intake:
    """A thread that reads a source, and reopens it whenever it breaks.

    `arrived` gets the messages; `failed` gets an error that retrying cannot mend, once. `missing` is called when
    the subscription is not there: it may be created anew.
    """

    def __init__(
        self,
        source: Source,
        arrived: Callable[[Sequence[Any]], None],
        failed: Callable[[TransportError], None],
        translate: Callable[[Any], TransportError],
        missing: Callable[[], None],
    ) -> None:
        self._missing = missing
        self._source = source
        self._arrived = arrived
        self._failed = failed
        self._translate = translate
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="imagebus-intake", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pauses = Backoff(*RETRY_PAUSES)
        quiet_until = 0.0  # time.monotonic()
        while not self._closed.is_set():
            try:
                for received in self._source.receive():
                    pauses.reset()
                    self._hand_on(received)
            except grpc.RpcError as error:
                if self._closed.is_set():
                    return
                failure = self._translate(error)
                if code_of(error) == grpc.StatusCode.NOT_FOUND:
                    self._missing()
                elif code_of(error) not in PASSING:
                    self._failed(failure)
                    return
                if code_of(error) == grpc.StatusCode.UNAVAILABLE and time.monotonic() > quiet_until:
                    quiet_until = time.monotonic() + WARNING_PAUSE_SECONDS
                    log.warning("%s; trying again", failure)
            except ValueError:  # the channel was closed meanwhile
                return
            self._closed.wait(pauses.next())

    def _hand_on(self, received: Sequence[Any]) -> None:
        """A bug here ends the reading and is reported: an unreadable message would be leased for ever."""
        try:
            self._arrived(received)
        except Exception as error:
            log.exception("messages that came cannot be read")
            self._failed(TransportError(f"messages that came cannot be read: {error}"))
            self._closed.set()

    def close(self, seconds: float) -> None:
        """Stop reading; waits up to `seconds` for messages that are just arriving."""
        self._closed.set()
        self._source.stop()
        self._thread.join(seconds)
