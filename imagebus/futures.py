"""The futures that a client gives out, and the thread that calls back.

A `concurrent.futures.Future` calls its callbacks on the thread that completes it. Here that is the reader of all
replies: a callback that waits, as one that asks for another prediction, would wait for itself.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from imagebus.wire.results import Reply

log = logging.getLogger(__name__)

IDLE_SECONDS = 10.0  # then the thread ends, until it is needed again

Callback = Callable[[Future[Reply]], object]


class Callbacks:
    """Calls back, one after the other, on a thread of its own, which runs only while it is needed.

    `reader` is the thread that completes the futures, so nothing may wait for one there.
    """

    def __init__(self, reader: threading.Thread) -> None:
        self.reader = reader
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, call: Callable[[], object]) -> None:
        """Let the thread call it, behind those before."""
        with self._lock:
            self._waiting.put(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="imagebus-callbacks", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait for the callbacks that are due; from one of them, return at once, and they go on."""
        with self._lock:
            thread = self._thread
            self._waiting.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                call = self._waiting.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                call = None
            if call is None:
                with self._lock:
                    if self._waiting.empty():
                        self._thread = None
                        return
                continue
            try:
                call()
            except BaseException:  # an exit too: it is one callback's, and this thread is everyone's
                log.exception("a callback of a future failed")


class ReplyFuture(Future[Reply]):
    """The reply to one request, some time. It cannot be cancelled: the request is sent."""

    def __init__(self, callbacks: Callbacks) -> None:
        super().__init__()
        self._callbacks = callbacks
        self.set_running_or_notify_cancel()

    def add_done_callback(self, fn: Callable[[Future[Reply]], Any]) -> None:
        """Call `fn` with this future once it is done: at once, if it is, else on the thread of the callbacks."""
        super().add_done_callback(fn if self.done() else partial(self._hand_over, fn))

    def call_at_once(self, fn: Callable[[Future[Reply]], Any]) -> None:
        """Call `fn` on the thread that completes this future. It must be quick, and wait for nothing."""
        super().add_done_callback(fn)

    def _hand_over(self, fn: Callback, _: Future[Reply]) -> None:
        self._callbacks.put(partial(fn, self))

    def result(self, timeout: float | None = None) -> Reply:
        """As `Future.result`; raises `RuntimeError` on the thread that reads the replies, as an observer's."""
        self._check_thread()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `Future.exception`; raises as `result` does."""
        self._check_thread()
        return super().exception(timeout)

    def _check_thread(self) -> None:
        if threading.current_thread() is self._callbacks.reader and not self.done():
            raise RuntimeError(
                "this thread reads the replies, so it cannot wait for one: an observer has to return first"
            )

    def leave_behind(self, error: Exception) -> None:
        """In a forked child, where nobody will complete it: fail, with locks of its own and no callbacks."""
        Future.__init__(self)
        self.set_exception(error)
