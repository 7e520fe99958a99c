"""The requestor's role as futures: submit a package of images, get its predictions."""

from __future__ import annotations

import logging
import sys
import threading
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from imagebus import checks
from imagebus.deadlines import Deadlines
from imagebus.errors import (
    AccessDenied,
    BadMessage,
    ConfigError,
    ConnectionFailed,
    ErrorCode,
    ImageBusError,
    RequestFailed,
    TooLarge,
    TransportError,
)
from imagebus.forking import OfOneProcess
from imagebus.futures import Callbacks, ReplyFuture
from imagebus.observer import Observer
from imagebus.open_packages import OpenPackages, Package
from imagebus.pending import Pending
from imagebus.reading import READ_SECONDS, Reader
from imagebus.resends import Resends
from imagebus.streaming import Stream, in_order
from imagebus.transports.base import Bus
from imagebus.wire.envelope import TOP, with_deadline
from imagebus.wire.message import Message, Position, text_of
from imagebus.wire.pixels import Images, encode_request
from imagebus.wire.results import ErrorReply, Prediction, Reply, decode_reply

log = logging.getLogger(__name__)


class Client(OfOneProcess):
    """Sends packages of images to `requests` and matches the replies on `replies`.

    `timeout` is in seconds, for each request. The inbox is open before this returns, so the first
    reply is not missed. Use it as a context manager; it owns `bus` and closes it.

    A request without an answer is re-sent under the same id, with growing pauses, until its deadline, where it
    seems to be lost; `resent` counts those. `ignored` counts replies that were dropped, by reason: `unknown`
    (another requestor's, late, or repeated), `malformed`, `hash` (not the bytes that were sent), `expired` (an
    earlier copy's: this one is in time).
    """

    def __init__(
        self,
        bus: Bus,
        *,
        requests: str = "requests",
        replies: str = "replies",
        timeout: float = 30.0,
        observers: Sequence[Observer] = (),
    ) -> None:
        _refuse_green_threads()
        self.ignored: Counter[str] = Counter()
        self.resent = 0
        self._bus = bus
        self._observers = observers
        self._requests = requests
        self._timeout = checks.seconds(timeout, "timeout")
        self._pending: dict[str, Pending] = {}
        self._resends = Resends()
        self._deadlines = Deadlines()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failure: TransportError | None = None
        self._closed: TransportError | None = None  # what `close` left open was failed with this
        self._next_look = 0.0  # time.monotonic(), for overdue requests
        self._inbox = bus.inbox(replies)
        self._reader = Reader(self, bus, self._inbox)
        self._callbacks = Callbacks(self._reader)
        self._reader.start()

    def submit(
        self, images: Images, *, timeout: float | None = None, top: int = TOP, id: str | None = None
    ) -> ReplyFuture:
        """Send uint8 images (N, 28, 28) and return at once; the future holds the `Reply`.

        `timeout` in seconds, else the client's; `top` labels are listed for each image; `id` is the request
        id, else a new UUID4: reuse it for what an earlier process may have sent already.

        The future raises `RequestFailed` when the replier answers with an error, `RequestTimeout` when no
        answer comes in time, `PublishFailed` when the brokers do not confirm the request in that time.
        Raises `ValueError` for anything but such an array of 1 to 1,000 images, for a `timeout`, a `top` or an
        `id` that cannot be sent, and for an id that is open; `TransportError` when the client is closed or the
        bus has failed for good.
        """
        self._check_open()
        timeout = self._timeout if timeout is None else checks.seconds(timeout, "timeout")
        top = checks.labels(top)
        id = str(uuid.uuid4()) if id is None else checks.request_id(id)
        expires = self._deadlines.after(timeout)
        message = encode_request(images, self._requests, id=id, deadline=expires, top=top)
        if self._inbox.return_headers:
            message = message._replace(headers=[*message.headers, *self._inbox.return_headers])
        pending = Pending(
            ReplyFuture(self._callbacks),
            message,
            images=len(images),
            top=top,
            timeout=timeout,
            expires=expires,
        )
        with self._lock:
            self._check_open()  # again: from here on, the reader fails it when it ends
            if id in self._pending:
                raise ValueError(f"request {id} is open already")
            self._pending[id] = pending
            self._reader.needed = self
        try:
            self._send(id, pending)
        except TransportError:
            with self._lock:
                self._pending.pop(id, None)
            raise
        return pending.future

    def _check_open(self) -> None:
        if self._closing.is_set() or self._failure:
            raise self._failure or TransportError("the client is closed")

    def _send(self, id: str, pending: Pending) -> None:
        def delivered(fate: TransportError | Position | None) -> None:
            if not isinstance(fate, TransportError):
                pending.confirmed = True
                pending.place = self._resends.confirmed(fate)
            elif isinstance(fate, (TooLarge, AccessDenied, ConnectionFailed)):
                self._finish(id, fate)  # a retry would fail the same way
            else:
                pending.refusal = fate
                pending.resend_at = time.monotonic() + pending.retries.next()

        pending.place = None
        pending.copies += 1
        self._bus.publish(pending.message, delivered)

    def predict(
        self, images: Images, *, timeout: float | None = None, top: int = TOP
    ) -> tuple[Prediction, ...]:
        """The predictions for uint8 images (N, 28, 28), one for each image; raises as `submit` does."""
        return self.submit(images, timeout=timeout, top=top).result().predictions

    def map(
        self, packages: Iterable[Images], *, timeout: float | None = None, in_flight: int = 100
    ) -> Iterator[Reply]:
        """The replies to many packages, in their order, with at most `in_flight` sent and unanswered.

        Raises the first failure when its turn comes, as `submit` and its future do, and `ValueError` at once for
        an `in_flight` below 1.
        """
        return in_order(
            lambda images: self.submit(images, timeout=timeout),
            packages,
            checks.count(in_flight, "in_flight"),
        )

    def stream(
        self,
        packages: Iterable[Package],
        *,
        interval: float = 0.0,
        at_most: int = 1000,
        timeout: float | None = None,
        top: int = TOP,
        state: OpenPackages | None = None,
        on_silence: Callable[[], object] = lambda: None,
    ) -> Stream:
        """Send packages and iterate over their outcomes, each as soon as it is known, until all are in.

            for outcome in client.stream(Package(images) for images in camera):
                print(outcome.package.number, outcome.result)

        One package is sent every `interval` seconds, however long the replies take, but none while `at_most` are
        open: those are made up for later. A thread of its own reads `packages`, one ahead, and sends them, from the
        first `next` on; what `packages` raises is raised behind the outcomes of the sent ones. What `submit`'s future
        would raise is an outcome too. A bus that has failed for good ends the iteration with its `TransportError`;
        the packages that are open then have no outcome. `Stream.stop` ends it early. Raises `ValueError` for an
        `interval`, an `at_most`, a `timeout` or a `top` out of range.

        With `state`, each package is on disk from before it is sent until its outcome was handed out and the
        next one is requested; what an earlier process left there is sent first, at once, under the same ids.
        `on_silence` is called when packages are open and no outcome has come for two seconds, and not again
        until one has. `timeout` and `top` are as in `submit`.
        """
        if timeout is not None:
            checks.seconds(timeout, "timeout")
        checks.labels(top)

        def send(package: Package) -> ReplyFuture:
            return self.submit(package.images, timeout=timeout, top=top, id=package.id)

        return Stream(
            send,
            lambda: self._failure or self._closed,
            packages,
            interval=checks.pause(interval, "interval"),
            at_most=checks.count(at_most, "at_most"),
            state=state,
            on_silence=on_silence,
        )

    @property
    def failure(self) -> TransportError | None:
        """Why the bus failed for good, if it did: open requests raise this, and so does each `submit`."""
        return self._failure

    @property
    def in_flight(self) -> int:
        """How many requests are neither answered nor timed out."""
        return len(self._pending)

    def close(self) -> None:
        """Stop reading, fail the pending requests, close the bus, and wait for callbacks. Safe to call twice."""
        with self._lock:  # no request is added after this
            self._closing.set()
        if threading.current_thread() is not self._reader:  # it calls the observers
            self._reader.join()
        self._closed = self._closed or TransportError("the client was closed before an answer came")
        self._fail_all(self._closed)
        self._bus.close()
        self._callbacks.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_inbox", None) or self._closing.is_set():
            return  # it was never open, or is closed
        # Its reader notices, and closes the bus, unless that failed. No `source`: who keeps the warning would keep the
        # client.
        warnings.warn("a client was dropped without close()", ResourceWarning, stacklevel=2)
        if self._failure is not None and not self._reader.is_alive():
            with suppress(RuntimeError):  # at the end of the process no thread is started
                threading.Thread(target=self._bus.close, name="imagebus-closing", daemon=True).start()

    def _left_behind(self, error: TransportError) -> None:
        for pending in self._pending.values():
            pending.future.leave_behind(error)
        # For a `close` that was noted before the fork, as with `atexit`: it finds no lock held and nothing to wait for.
        self._failure, self._pending = error, {}
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._callbacks = Callbacks(self._reader)

    def _is_closing(self) -> bool:
        return self._closing.is_set()

    def _fail_for_good(self, error: TransportError) -> None:
        with self._lock:  # no request is added after this
            self._failure = error
        self._fail_all(error)

    def _take(self, messages: Sequence[Message], arrived: float) -> None:
        """Resolve futures by replies, and the others by time."""
        for message in messages:
            if not self._may_be_ours(message):
                self.ignored["unknown"] += 1
                continue
            try:
                self._resolve(message, decode_reply(message), arrived)
            except BadMessage:
                self.ignored["malformed"] += 1
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + READ_SECONDS
            self._look_after(now)
            with self._lock:
                if not self._pending:
                    self._reader.needed = None

    def _may_be_ours(self, message: Message) -> bool:
        """Whether key or header name an open request, or neither names any: others' replies are not parsed."""
        if message.key is not None and text_of(message.key) in self._pending:
            return True
        id = message.header("correlation_id")
        return id in self._pending if id is not None else message.key is None

    def _resolve(self, message: Message, reply: Reply | ErrorReply, arrived: float) -> None:
        pending = self._pending.get(reply.id)
        if pending is None:
            self.ignored["unknown"] += 1
        elif reply.sha256 != pending.sha256:
            self.ignored["hash"] += 1
        elif isinstance(reply, ErrorReply) and reply.code == ErrorCode.EXPIRED:
            self._expired(message, reply.id, pending)
        elif isinstance(reply, ErrorReply):
            self._finish(reply.id, RequestFailed(reply.code, reply.message, retryable=reply.retryable))
        elif not pending.is_answered_by(reply):
            self.ignored["malformed"] += 1
        else:
            self._finish(reply.id, replace(reply, round_trip=arrived - pending.sent))

    def _expired(self, message: Message, id: str, pending: Pending) -> None:
        """A copy came too late, says a replier. That decides nothing: the caller's clock tells what is in time.

        For an earlier copy, there is a later one. For the last one, the replier's clock is ahead of ours.
        """
        self.ignored["expired"] += 1
        left = pending.deadline - time.monotonic()
        if left > 0 and self._deadlines.learn(message, pending.expires):
            pending.expires = self._deadlines.after(left)
            pending.message = with_deadline(pending.message, pending.expires)
            self._send_again(id, pending)

    def _look_after(self, now: float) -> None:
        """Time out late requests, re-send those that seem to be lost."""
        self._resends.tick(now)
        topic = self._resends.topic
        with self._lock:
            late = [(id, pending) for id, pending in self._pending.items() if pending.deadline <= now]
            waiting = [
                (id, pending)
                for id, pending in self._pending.items()
                if now < pending.deadline
                and (pending.resend_at <= now or (pending.place is not None and pending.place.topic != topic))
            ]
        for id, pending in late:
            self._finish(id, pending.overdue(id))
        for id, pending in waiting:
            if pending.refusal or (pending.place is not None and self._resends.due(pending.place, now)):
                pending.resend_at = now + pending.resends.next()
                self._send_again(id, pending)
            else:
                pending.reconsider(now)

    def _send_again(self, id: str, pending: Pending) -> None:
        pending.refusal = None
        self.resent += 1
        self._send(id, pending)

    def _fail_all(self, error: TransportError) -> None:
        for id in list(self._pending):
            self._finish(id, error)

    def _finish(self, id: str, outcome: Reply | ImageBusError) -> None:
        """One outcome for each request: a second one finds it gone."""
        with self._lock:
            pending = self._pending.pop(id, None)
        if pending is None:
            return
        if isinstance(outcome, (Reply, RequestFailed)):
            self._resends.answered(pending.place if pending.copies == 1 else None, time.monotonic())
        if isinstance(outcome, Reply):
            pending.future.set_result(outcome)
        else:
            pending.future.set_exception(outcome)
        for observer in self._observers:
            try:
                observer.resolved(id, outcome)
            except Exception:  # the other requests have their outcomes all the same
                log.exception("an observer failed")


def _refuse_green_threads() -> None:
    """Raise `ConfigError` where gevent or eventlet took the place of threads.

    A reader that waits in a library of C would let no other of them go on.
    """
    for library, module, ask, name in (
        ("gevent", "gevent.monkey", "is_module_patched", "threading"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched", "thread"),
    ):
        is_patched = getattr(sys.modules.get(module), ask, None)
        if is_patched is not None and is_patched(name):
            raise ConfigError(
                f"a client needs threads of the system, and {library} has replaced them: patch with thread=False"
            )
