"""How messages come from a subscription: on a stream, or by asking.

The service is read on a stream: what is sent is here at once. The emulator (0.8.20) is asked instead, for
what is there and no more. It does not notice when a stream is cut or its reader killed, and goes on giving
that stream its share of the messages, of which each is late by a lease then; a question that waits for its
answer is left behind in the same way. It also looks for new messages for a stream every 50 ms only, while a
question that does not wait is answered in 2.
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

# In hand of one member, waiting included: two batches for the model, one being confirmed and one on its way here;
# and no more, since all of it is late by a lease when the member is killed.
MAX_IN_HAND = 512
MAX_IN_HAND_BYTES = 16_000_000
HEARTBEAT_SECONDS = 25.0  # of a stream on which nothing is said; Pub/Sub ends one after 90
PULL_SECONDS = 10.0  # for an answer
PULL_PAUSE_SECONDS = 0.01  # between two questions when there was nothing, or no room
WARNING_PAUSE_SECONDS = 30.0  # between two lines that say that there is no answer


class Source(Protocol):
    """One of the two ways."""

    def receive(self) -> Iterable[Sequence[Any]]:
        """`ReceivedMessage`s as they come, until the connection breaks; raises `grpc.RpcError`."""
        ...

    def acknowledge(self, ack_ids: list[str]) -> None:
        """For a message whose acknowledgement may be lost; called from inside `receive`."""
        ...

    def stop(self) -> None:
        """Let `receive` end. Any thread may call, at any time."""
        ...


class StreamingPull:
    """Messages on a stream, whose flow Pub/Sub controls for us."""

    def __init__(self, clients: Clients, subscription: str, lease: Callable[[], int]) -> None:
        self._clients = clients
        self._subscription = subscription
        self._lease = lease  # seconds
        self._to_say: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._stopped = False

    def receive(self) -> Iterable[Sequence[Any]]:
        """See `Source.receive`."""
        self._to_say = queue.SimpleQueue()
        if self._stopped:  # and `stop` has told the stream before
            return
        metadata = [("x-goog-request-params", f"subscription={self._subscription}")]
        try:
            for response in self._clients.streaming_pull(self._say(self._to_say), metadata=metadata):
                yield response.received_messages
        finally:
            self._to_say.put(None)

    def _say(self, to_say: queue.SimpleQueue[list[str] | None]) -> Iterator[Any]:
        """What is wanted, then acknowledgements and signs of life."""
        yield StreamingPullRequest(
            subscription=self._subscription,
            stream_ack_deadline_seconds=self._lease(),
            max_outstanding_messages=MAX_IN_HAND,
            max_outstanding_bytes=MAX_IN_HAND_BYTES,
        )
        while True:
            try:
                ack_ids = to_say.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                yield StreamingPullRequest()
                continue
            if ack_ids is None:
                return
            yield StreamingPullRequest(ack_ids=ack_ids)

    def acknowledge(self, ack_ids: list[str]) -> None:
        """See `Source.acknowledge`."""
        self._to_say.put(ack_ids)

    def stop(self) -> None:
        """See `Source.stop`. It is the end of what we say; Pub/Sub then ends the stream."""
        self._stopped = True
        self._to_say.put(None)


class UnaryPull:
    """Messages by asking, again and again, while there is room for more."""

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
        self._clients.acknowledge(request, timeout=PULL_SECONDS)

    def stop(self) -> None:
        """See `Source.stop`."""
        self._stopped.set()


class Intake:
    """A thread that reads a source, and again whenever it breaks.

    `arrived` gets what comes; `failed` what no trying again will mend, once.
    """

    def __init__(
        self,
        source: Source,
        arrived: Callable[[Sequence[Any]], None],
        failed: Callable[[TransportError], None],
        translate: Callable[[Any], TransportError],
    ) -> None:
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
                if code_of(error) not in PASSING:
                    self._failed(failure)
                    return
                if code_of(error) == grpc.StatusCode.UNAVAILABLE and time.monotonic() > quiet_until:
                    quiet_until = time.monotonic() + WARNING_PAUSE_SECONDS
                    log.warning("%s; trying again", failure)
            except ValueError:  # the channel was closed meanwhile
                return
            self._closed.wait(pauses.next())

    def _hand_on(self, received: Sequence[Any]) -> None:
        """A fault of ours ends the reading, and is told: what cannot be read would be leased for ever."""
        try:
            self._arrived(received)
        except Exception as error:
            log.exception("messages that came cannot be read")
            self._failed(TransportError(f"messages that came cannot be read: {error}"))
            self._closed.set()

    def close(self, seconds: float) -> None:
        """Take nothing more; waits so long at most for what is just coming."""
        self._closed.set()
        self._source.stop()
        self._thread.join(seconds)
