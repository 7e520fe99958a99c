"""The thread that reads a client's replies, for as long as somebody has the client or waits for its replies."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Protocol

from imagebus.errors import TransportError
from imagebus.transports.base import Bus, Inbox
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

READ_SECONDS = 0.1  # how late a time-out may be noticed, and that nobody has the client any more
READ_REPLIES = 100  # replies taken at once


class Owner(Protocol):
    """The client, as its reader sees it."""

    def _is_closing(self) -> bool:
        """Whether nothing more is to be read."""

    def _take(self, messages: Sequence[Message], arrived: float) -> None:
        """Take what came at `arrived`, `time.perf_counter()`; also when that is nothing."""

    def _fail_for_good(self, error: TransportError) -> None:
        """Nothing more can be read."""


class Reader(threading.Thread):
    """Reads `inbox` and hands what comes to the client that made it.

    A client that nobody has any more is not kept alive by this thread, unless `needed` is that client: while it has
    open requests. Then the bus is closed here, as `close` would have done.
    """

    def __init__(self, owner: Owner, bus: Bus, inbox: Inbox) -> None:
        super().__init__(name="imagebus-replies", daemon=True)
        self.needed: Owner | None = None
        self._owner = weakref.ref(owner)
        self._bus = bus
        self._inbox = inbox

    def run(self) -> None:
        """A bus that fails for good fails the open requests."""
        try:
            while self._goes_on():
                messages = self._inbox.receive(READ_REPLIES, READ_SECONDS)
                self._hand_over(messages, time.perf_counter())
        except TransportError as error:
            self._fail(error)
        except Exception as error:  # no future may wait for a dead thread
            log.exception("the reader of replies failed")
            self._fail(TransportError(f"the reader of replies failed: {error}"))
        self.needed = None
        if self._owner() is None:
            self._bus.close()

    def _goes_on(self) -> bool:
        owner = self._owner()
        return owner is not None and not owner._is_closing()

    def _hand_over(self, messages: Sequence[Message], arrived: float) -> None:
        owner = self._owner()
        if owner is not None:
            owner._take(messages, arrived)

    def _fail(self, error: TransportError) -> None:
        owner = self._owner()
        if owner is not None:
            owner._fail_for_good(error)
