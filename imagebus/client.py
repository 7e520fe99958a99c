"""The requestor's role as futures: submit a package of images, get its predictions."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

from imagebus.errors import BadMessage, ImageBusError, RequestFailed, RequestTimeout, TransportError
from imagebus.messages import TOP, ErrorReply, Images, Prediction, Reply, decode_reply, encode_request
from imagebus.transports.base import Transport

log = logging.getLogger(__name__)

READ_SECONDS = 0.1  # the longest a timed-out request waits to be told so
READ_REPLIES = 100  # replies taken at once


@dataclass(slots=True)
class _Pending:
    future: Future[Reply]
    sha256: str
    images: int
    sent: float  # time.perf_counter()
    deadline: float  # time.monotonic()
    timeout: float  # seconds


class Client:
    """Sends packages of images to `requests` and matches what comes back on `replies`.

    `timeout` is in seconds, for each request. The replies are subscribed to before this returns, so the
    first one is not missed. Use it as a context manager; it owns `transport` and closes it.

    `ignored` counts replies that were dropped, by reason: `unknown` (another requestor's, late, or
    repeated), `malformed`, `hash` (not the bytes that were sent).
    """

    def __init__(
        self,
        transport: Transport,
        *,
        requests: str = "requests",
        replies: str = "replies",
        timeout: float = 30.0,
    ) -> None:
        self.ignored: Counter[str] = Counter()
        self._transport = transport
        self._requests = requests
        self._timeout = timeout
        self._pending: dict[str, _Pending] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failure: TransportError | None = None
        transport.subscribe(replies)
        self._reader = threading.Thread(target=self._read, name="imagebus-replies", daemon=True)
        self._reader.start()

    def submit(self, images: Images, *, timeout: float | None = None, top: int = TOP) -> Future[Reply]:
        """Send uint8 images (N, 28, 28) and return at once; the future holds the `Reply`.

        `timeout` in seconds, else the client's; `top` labels are listed for each image. The future raises
        `RequestFailed` when the replier answers with an error, `RequestTimeout` when no answer comes in
        time, `PublishFailed` when the bus did not take the request. Raises `ValueError` for other
        shapes or dtypes, `TransportError` when the client is closed or the bus has failed for good.
        """
        if self._closing.is_set() or self._failure:
            raise self._failure or TransportError("the client is closed")
        timeout = self._timeout if timeout is None else timeout
        id = str(uuid.uuid4())
        deadline = round((time.time() + timeout) * 1000)
        message = encode_request(images, self._requests, id=id, deadline=deadline, top=top)
        sha256 = dict(message.headers)["sha256"] or b""
        future: Future[Reply] = Future()
        future.set_running_or_notify_cancel()
        pending = _Pending(
            future, sha256.decode(), len(images), time.perf_counter(), time.monotonic() + timeout, timeout
        )
        with self._lock:
            self._pending[id] = pending

        def delivered(error: TransportError | None) -> None:
            if error is not None:
                self._finish(id, error)

        try:
            self._transport.publish(message, delivered)
        except TransportError:
            with self._lock:
                self._pending.pop(id, None)
            raise
        return future

    def predict(
        self, images: Images, *, timeout: float | None = None, top: int = TOP
    ) -> tuple[Prediction, ...]:
        """The predictions for uint8 images (N, 28, 28), one for each image; raises as `submit` does."""
        return self.submit(images, timeout=timeout, top=top).result().predictions

    def map(
        self, packages: Iterable[Images], *, timeout: float | None = None, in_flight: int = 100
    ) -> Iterator[Reply]:
        """The replies to many packages, in their order, with at most `in_flight` sent and unanswered.

        Raises the first failure when its turn comes, as `submit` and its future do.
        """
        waiting: deque[Future[Reply]] = deque()
        for images in packages:
            if len(waiting) >= in_flight:
                yield waiting.popleft().result()
            waiting.append(self.submit(images, timeout=timeout))
        while waiting:
            yield waiting.popleft().result()

    @property
    def in_flight(self) -> int:
        """How many requests are sent and neither answered nor timed out."""
        return len(self._pending)

    def close(self) -> None:
        """Stop reading, fail what is still pending, close the transport. Safe to call twice."""
        self._closing.set()
        self._reader.join()
        self._fail_all(TransportError("the client was closed before an answer came"))
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        """The reader thread: replies resolve futures, and time resolves the rest."""
        while not self._closing.is_set():
            try:
                messages = self._transport.receive(READ_REPLIES, READ_SECONDS)
            except TransportError as error:
                self._failure = error
                self._fail_all(error)
                return
            arrived = time.perf_counter()
            for message in messages:
                try:
                    self._resolve(decode_reply(message), arrived)
                except BadMessage:
                    self.ignored["malformed"] += 1
            self._time_out()

    def _resolve(self, reply: Reply | ErrorReply, arrived: float) -> None:
        pending = self._pending.get(reply.id)
        if pending is None:
            self.ignored["unknown"] += 1
        elif reply.sha256 != pending.sha256:
            self.ignored["hash"] += 1
        elif isinstance(reply, ErrorReply):
            self._finish(reply.id, RequestFailed(reply.code, reply.message, retryable=reply.retryable))
        elif len(reply.predictions) != pending.images:
            self.ignored["malformed"] += 1
        else:
            self._finish(reply.id, replace(reply, round_trip=arrived - pending.sent))

    def _time_out(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [(id, pending) for id, pending in self._pending.items() if pending.deadline <= now]
        for id, pending in late:
            self._finish(id, RequestTimeout(f"no reply to request {id} within {pending.timeout:g} s"))

    def _fail_all(self, error: TransportError) -> None:
        for id in list(self._pending):
            self._finish(id, error)

    def _finish(self, id: str, outcome: Reply | ImageBusError) -> None:
        """One outcome for each request: whoever comes second finds it gone."""
        with self._lock:
            pending = self._pending.pop(id, None)
        if pending is None:
            return
        if isinstance(outcome, Reply):
            pending.future.set_result(outcome)
        else:
            pending.future.set_exception(outcome)
