"""Many packages through one client: each sent when due, each outcome handed out when it comes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from imagebus.errors import ImageBusError, TooLarge, TransportError
from imagebus.open_packages import OpenPackages, Package
from imagebus.wire.results import Reply

SILENCE_SECONDS = 2.0  # a replier answers in milliseconds, so there is probably none
LISTEN_SECONDS = 0.5  # between two checks of the clock while nothing comes


@dataclass(frozen=True)
class Outcome:
    """What became of a package: its reply, or the error that took the reply's place."""

    package: Package
    result: Reply | ImageBusError


class _End:
    """Nothing more is sent: there are no more packages, or `error` came in their place."""

    def __init__(self, error: Exception | None = None, *, at_once: bool = False) -> None:
        self.error = error
        self.at_once = at_once  # raise it before the outcomes of what is open: they may never come


class Stream(Iterator[Outcome]):
    """The outcomes of many packages, in the order in which they become known. `Client.stream` makes it.

    Packages are read and sent on a thread of their own, from the first `next` on. So a slow source, such as a camera,
    holds up no outcome, and a slow reader of outcomes holds up no sending.
    """

    def __init__(
        self,
        submit: Callable[[Package], Future[Reply]],
        failure: Callable[[], TransportError | None],
        packages: Iterable[Package],
        *,
        interval: float,
        at_most: int,
        state: OpenPackages | None,
        on_silence: Callable[[], object],
    ) -> None:
        self.sent = 0  # packages
        self._done = 0  # of those, with an outcome that was handed out and is done with
        self._submit = submit
        self._failure = failure
        self._packages = packages
        self._interval = interval
        self._at_most = at_most
        self._state = state
        self._on_silence = on_silence
        self._events: queue.SimpleQueue[Outcome | _End | None] = queue.SimpleQueue()  # None: stop
        # Wakes the sending thread. A queue, since a signal handler may put into it.
        self._go_on: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_full = False
        self._stopped = False
        self._sending = threading.Lock()
        self._outcomes = self._hand_out()

    @property
    def open(self) -> int:
        """How many packages were sent and have no such outcome yet."""
        return self.sent - self._done

    def __next__(self) -> Outcome:
        return next(self._outcomes)

    def stop(self) -> None:
        """End the iteration after the known outcomes; the other packages stay open.

        Safe to call from a signal handler, and from another thread.
        """
        self._stopped = True
        self._go_on.put(None)
        self._events.put(None)

    # --- on the reader's thread ----------------------------------------------------------------

    def _hand_out(self) -> Iterator[Outcome]:
        threading.Thread(target=self._send_all, name="imagebus-stream", daemon=True).start()
        try:
            yield from self._until_the_end()
        finally:
            self.stop()
            with self._sending:  # what is just being sent is counted
                pass

    def _until_the_end(self) -> Iterator[Outcome]:
        end: _End | None = None
        silent_since = time.monotonic()
        reported = False  # and nothing has come since
        while end is None or self.open:
            try:
                event = self._events.get(timeout=LISTEN_SECONDS)
            except queue.Empty:
                now = time.monotonic()
                if not self.open:
                    silent_since = now
                elif not reported and now - silent_since > SILENCE_SECONDS:
                    self._on_silence()
                    reported = True
                continue
            if event is None:
                break
            if isinstance(event, _End):
                end = event
                if end.at_once:
                    break
                continue
            failure = self._failure()
            if failure is not None and event.result is failure:
                raise failure  # not this package's outcome: it stays open
            yield event
            if self._state:
                self._state.remove(event.package.id)
            silent_since, reported = time.monotonic(), False
            self._done += 1
            if self._is_full:
                self._go_on.put(None)
        if end is not None and end.error is not None:
            raise end.error

    # --- on the sending thread -----------------------------------------------------------------

    def _send_all(self) -> None:
        try:
            for package in self._state.load() if self._state else []:
                self._send(package)
            self._events.put(_End(self._send_in_time()))
        except Exception as error:
            self._events.put(_End(error, at_once=True))

    def _send_in_time(self) -> Exception | None:
        """Send each package when due, until they end; returns what their source raised, if anything."""
        packages = iter(self._packages)
        next_send = time.monotonic()
        while True:
            try:
                package = next(packages, None)
            except Exception as error:
                return error
            if package is None or not self._wait_until(next_send):
                return None
            with self._sending:
                if self._stopped:
                    return None
                if self._state:
                    self._state.add(package)
                self._send(package)
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
        except TooLarge as error:  # the next one may fit; any other error is the bus's
            self._events.put(Outcome(package, error))
        else:
            reply.add_done_callback(partial(self._keep, package))

    def _keep(self, package: Package, reply: Future[Reply]) -> None:
        """Called on the client's thread, or at once."""
        try:
            self._events.put(Outcome(package, reply.result()))
        except ImageBusError as error:
            self._events.put(Outcome(package, error))
