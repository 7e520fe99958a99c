"""Many packages through one client: each sent when its time has come, each outcome handed out when it comes."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from imagebus.errors import ImageBusError, TooLarge, TransportError
from imagebus.open_packages import OpenPackages, Package
from imagebus.wire.results import Reply

SILENCE_SECONDS = 2.0  # a replier answers in milliseconds, so after this there is probably none
LISTEN_SECONDS = 0.5  # between two looks at the clock while nothing comes


@dataclass(frozen=True)
class Outcome:
    """What became of a package: its reply, or the error that took the reply's place."""

    package: Package
    result: Reply | ImageBusError


class Stream(Iterator[Outcome]):
    """The outcomes of many packages, in the order in which they become known. `Client.stream` makes it.

    Packages are sent while the next outcome is waited for, on the thread that asks for it.
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
        self.open = 0  # of those, without an outcome that was handed out
        self._submit = submit
        self._failure = failure
        self._packages = packages
        self._interval = interval
        self._at_most = at_most
        self._state = state
        self._on_silence = on_silence
        self._finished: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()  # None: stop
        self._stopped = False
        self._outcomes = self._run()

    def __next__(self) -> Outcome:
        return next(self._outcomes)

    def stop(self) -> None:
        """End the iteration behind the outcomes that are known; the rest stays open.

        Safe to call from a signal handler, and from another thread.
        """
        self._stopped = True
        self._finished.put(None)

    def _run(self) -> Iterator[Outcome]:
        for package in self._state.load() if self._state else []:
            self._send(package)
        packages = iter(self._packages)
        upcoming = next(packages, None)  # one ahead, so that the end is known when the last outcome is
        next_send = silent_since = time.monotonic()
        waiting = False  # that was reported, and nothing has come since
        while upcoming is not None or self.open:
            now = time.monotonic()
            wait = _until(next_send, now)
            if upcoming is not None and not self._stopped and now >= next_send and self.open < self._at_most:
                if not self.open:
                    silent_since = now
                if self._state:
                    self._state.add(upcoming)
                self._send(upcoming)
                upcoming = next(packages, None)
                next_send += self._interval
                wait = 0.0  # another may be due, but what is known by now is handed out first
            if self.open and not waiting and now - silent_since > SILENCE_SECONDS:
                self._on_silence()
                waiting = True
            try:
                outcome = self._finished.get(timeout=wait)
            except queue.Empty:
                continue
            if outcome is None:
                return
            failure = self._failure()
            if failure is not None and outcome.result is failure:
                raise failure  # it is no outcome of this package, which stays open
            self.open -= 1
            silent_since, waiting = time.monotonic(), False
            yield outcome
            if self._state:
                self._state.remove(outcome.package.id)

    def _send(self, package: Package) -> None:
        self.sent += 1
        self.open += 1
        try:
            reply = self._submit(package)
        except TooLarge as error:  # the next one may fit; any other error is of the bus
            self._finished.put(Outcome(package, error))
        else:
            reply.add_done_callback(partial(self._keep, package))

    def _keep(self, package: Package, reply: Future[Reply]) -> None:
        """Called on the client's thread, or at once."""
        try:
            self._finished.put(Outcome(package, reply.result()))
        except ImageBusError as error:
            self._finished.put(Outcome(package, error))


def _until(moment: float, now: float) -> float:
    """The seconds until then, at most as long as one listens; as long where the moment has passed."""
    return min(moment - now, LISTEN_SECONDS) if moment > now else LISTEN_SECONDS
