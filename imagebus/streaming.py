"""Many packages through one client: each sent when due, each outcome handed out when it comes."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from imagebus.errors import ConfigError, ImageBusError, TooLarge, TransportError
from imagebus.forking import OfOneProcess
from imagebus.futures import ReplyFuture
from imagebus.open_packages import OpenPackages, Package
from imagebus.wire.pixels import Images
from imagebus.wire.results import Reply

SILENCE_SECONDS = 2.0  # a replier answers in milliseconds, so there is probably none
LISTEN_SECONDS = 0.5  # between two checks of the clock while nothing comes


@dataclass(frozen=True)
class Outcome:
    """What became of a package: its reply, or the error that took the reply's place."""

    package: Package
    result: Reply | ImageBusError


def in_order(
    submit: Callable[[Images], ReplyFuture], packages: Iterable[Images], in_flight: int
) -> Iterator[Reply]:
    """The replies to packages in their order, with at most `in_flight` sent and unanswered: `Client.map`."""
    waiting: deque[ReplyFuture] = deque()
    for images in packages:
        if len(waiting) >= in_flight:
            yield waiting.popleft().result()
        waiting.append(submit(images))
    while waiting:
        yield waiting.popleft().result()


class _End:
    """Nothing more is sent: there are no more packages, or `error` came in their place."""

    def __init__(self, error: BaseException | None = None, *, at_once: bool = False) -> None:
        self.error = error
        self.at_once = at_once  # raise it before the outcomes of what is open: they may never come


class Stream(OfOneProcess, Iterator[Outcome]):
    """The outcomes of many packages, in the order in which they become known. `Client.stream` makes it.

    Packages are read and sent on a thread of their own, from the first `next` on. So a slow source, such as a camera,
    holds up no outcome, and a slow reader of outcomes holds up no sending. That thread ends with the iteration: after
    the last outcome, with `stop`, or when nobody has the stream any more, as after a `break`.
    """

    def __init__(
        self,
        submit: Callable[[Package], ReplyFuture],
        failure: Callable[[], TransportError | None],
        packages: Iterable[Package],
        *,
        interval: float,
        at_most: int,
        state: OpenPackages | None,
        on_silence: Callable[[], object],
    ) -> None:
        self._sender = _Sender(submit, packages, interval=interval, at_most=at_most, state=state)
        self._failure = failure
        self._state = state
        self._on_silence = on_silence
        self._last: Outcome | None = None  # handed out, and perhaps not done with
        self._end: _End | None = None
        self._ended = False

    @property
    def sent(self) -> int:
        """How many packages were sent."""
        return self._sender.sent

    @property
    def open(self) -> int:
        """How many packages were sent and have no outcome that was handed out and is done with."""
        return self._sender.open

    def stop(self) -> None:
        """End the iteration behind the outcomes that are known; the rest stays open.

        Safe to call from a signal handler, and from another thread.
        """
        self._sender.stop()

    def keep_last(self) -> None:
        """Leave the package of the last outcome in `state`: the outcome could not be shown."""
        last, self._last = self._last, None
        if last is not None:
            self._sender.one_is_done()

    def __next__(self) -> Outcome:
        self._sender.start()
        self._finish_last()
        if self._ended:
            raise StopIteration
        try:
            self._last = self._next_outcome()
        except BaseException:
            self._finish()
            raise
        if self._last is not None:
            return self._last
        self._finish()
        if self._end is not None and self._end.error is not None:
            raise self._end.error
        raise StopIteration

    def _next_outcome(self) -> Outcome | None:
        """The next outcome, or None where there will be none."""
        silent_since = time.monotonic()
        reported = False
        while self._end is None or self.open:
            try:
                event = self._sender.events.get(timeout=LISTEN_SECONDS)
            except queue.Empty:
                now = time.monotonic()
                if not self.open:
                    silent_since = now
                elif not reported and now - silent_since > SILENCE_SECONDS:
                    self._on_silence()
                    reported = True
                continue
            if isinstance(event, _End):
                self._end = event
                if event.at_once:
                    return None
            elif event is None:
                return None
            else:
                failure = self._failure()
                if failure is not None and event.result is failure:
                    raise failure  # it is no outcome of this package, which stays open
                return event
        return None

    def _finish_last(self) -> None:
        """The outcome that was handed out last is done with: the next one is requested."""
        last, self._last = self._last, None
        if last is not None:
            if self._state:
                self._state.remove(last.package.id)
            self._sender.one_is_done()

    def _finish(self) -> None:
        self._ended = True
        self._sender.stop()
        with self._sender.sending:  # what is just being sent is counted
            pass

    def __del__(self) -> None:
        self._sender.stop()


class _Sender:
    """Reads packages and sends each when due, on a thread of its own, which keeps no `Stream` alive."""

    def __init__(
        self,
        submit: Callable[[Package], ReplyFuture],
        packages: Iterable[Package],
        *,
        interval: float,
        at_most: int,
        state: OpenPackages | None,
    ) -> None:
        self.sent = 0  # packages
        self.done = 0  # of those, with an outcome that is done with
        self.events: queue.SimpleQueue[Outcome | _End | None] = queue.SimpleQueue()  # None: stop
        self.sending = threading.Lock()
        self._submit = submit
        self._packages = packages
        self._interval = interval
        self._at_most = at_most
        self._state = state
        # Wakes the thread. A queue, since a signal handler may put into it.
        self._go_on: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_full = False
        self._started = False
        self._stopped = False

    @property
    def open(self) -> int:
        return self.sent - self.done

    def start(self) -> None:
        """Begin to send, where that was not done before."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="imagebus-stream", daemon=True).start()

    def stop(self) -> None:
        """Send nothing more; a signal handler may call it."""
        self._stopped = True
        self._go_on.put(None)
        self.events.put(None)

    def one_is_done(self) -> None:
        """Another one may be open."""
        self.done += 1
        if self._is_full:
            self._go_on.put(None)

    def _run(self) -> None:
        try:
            for package in self._state.load() if self._state else []:
                if not self._stopped:
                    self._send(package)
            self.events.put(_End(self._send_in_time()))
        except Exception as error:
            self.events.put(_End(error, at_once=True))

    def _send_in_time(self) -> BaseException | None:
        """Send each package when due, to the end of them; what their source raised, if it did."""
        next_send = time.monotonic()
        packages = iter(self._packages)
        while True:
            try:
                package = next(packages)
            except StopIteration:
                return None
            except BaseException as error:  # an exit is for the thread that iterates
                return error
            if not isinstance(package, Package):
                return ValueError(
                    f"the stream got a {type(package).__name__}, expected a Package, as Package(images)"
                )
            if not self._wait_until(next_send):
                return None
            with self.sending:
                if self._stopped:
                    return None
                if self._state:
                    try:
                        self._state.add(package)
                    except ConfigError as error:  # a full disk: what was sent before is still answered
                        return error
                try:
                    self._send(package)
                except ValueError as error:  # no images: an error of the source as well
                    self.sent -= 1
                    if self._state:
                        self._state.remove(package.id)
                    return error
            next_send += self._interval

    def _wait_until(self, moment: float) -> bool:
        """Wait for the moment, and until fewer than `at_most` are open; False when it was stopped."""
        while not self._stopped:
            self._is_full = self.open >= self._at_most
            left = moment - time.monotonic()
            if left <= 0 and self.open < self._at_most:
                return True
            with suppress(queue.Empty):
                self._go_on.get(timeout=None if left <= 0 else left)
        return False

    def _send(self, package: Package) -> None:
        self.sent += 1
        try:
            reply = self._submit(package)
        except TooLarge as error:  # the next one may fit; any other error is of the bus
            self.events.put(Outcome(package, error))
        else:
            reply.call_at_once(partial(self._keep, package))

    def _keep(self, package: Package, reply: Future[Reply]) -> None:
        """Called on the client's thread, or at once."""
        try:
            self.events.put(Outcome(package, reply.result()))
        except ImageBusError as error:
            self.events.put(Outcome(package, error))
