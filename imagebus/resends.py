"""When a request without an answer is sent again.

A request that the brokers confirmed is safe with them, and each copy of it is work for a replier: after an outage,
copies of everything would keep a busy service from ever catching up. So it is re-sent only on a sign that it, or its
reply, is lost:

    another topic   offsets went down: the topic was deleted and made again
    passed          a later request of its partition was answered some time ago
    silence         none of its partition was answered for long

The first is proof. The others may also come from a slow reply or from an outage, so they are paid from a budget that
answers fill, as in gRPC's retry throttling (gRFC A6, "Throttling Retry Attempts and Hedged RPCs"). While anything is
answered, one now and then is free: a caller with no other requests gets all of its lost ones answered too.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from imagebus.wire.message import Position

SILENCE_SECONDS = 20.0  # a killed replier is replaced within 6 to 13 s
# A reply may come that much after one to a later request: it has another partition, whose leader may be replaced.
# Reports of deliveries come less out of order than that.
SETTLED_SECONDS = 10.0
ANSWERS_EACH = 10  # that a re-send takes: a service at 90 % of its capacity still catches up
BUDGET = 10  # re-sends without an answer in between
# While answers come, one re-send in so many seconds costs nothing, whenever it is that a request is looked at: the
# answer to the last re-send may be the only one.
REFILL_SECONDS = 0.5
ANSWERING_SECONDS = 5.0  # since the last answer
NO_PARTITION = -1  # on a bus without positions, requests are numbered in the order of their confirmations


class Place(NamedTuple):
    """Where the bus stored a request. `topic` counts the topics that had the name."""

    topic: int
    partition: int
    offset: int


@dataclass(slots=True)
class _HighWater:
    """The highest offset of some kind: so far, and as it was a while ago."""

    now: int = -1
    before: int = -1  # at least `SETTLED_SECONDS` ago
    _between: int = -1

    def reach(self, offset: int) -> None:
        self.now = max(self.now, offset)

    def age(self) -> None:
        """`SETTLED_SECONDS` have passed."""
        self.before, self._between = self._between, self.now


class Resends:
    """Decides which requests of one client are re-sent. Times are those of `time.monotonic()`; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers = BUDGET * ANSWERS_EACH  # not spent yet
        self._topic = 0
        self._numbers = itertools.count()
        self._confirmed: defaultdict[int, _HighWater] = defaultdict(_HighWater)
        self._answered: defaultdict[int, _HighWater] = defaultdict(_HighWater)
        self._last_answer: dict[int, float] = {}
        self._aged = 0.0
        self._refill_at = 0.0
        self._answered_at = -ANSWERING_SECONDS  # any of them

    def confirmed(self, position: Position | None) -> Place:
        """The bus stored a request there; None on a bus that has no positions."""
        with self._lock:
            if position is None:
                return Place(self._topic, NO_PARTITION, next(self._numbers))
            number, offset = position.partition, position.offset
            if offset <= self._confirmed[number].before:
                self._topic += 1
                self._confirmed.clear()
                self._answered.clear()
            self._confirmed[number].reach(offset)
            return Place(self._topic, number, offset)

    def answered(self, place: Place | None, now: float) -> None:
        """A request was answered; None for its place when it is not known, or has several."""
        with self._lock:
            self._answered_at = now
            self._answers = min(self._answers + 1, BUDGET * ANSWERS_EACH)
            if place is not None and place.topic == self._topic:
                self._answered[place.partition].reach(place.offset)
                self._last_answer[place.partition] = now

    @property
    def topic(self) -> int:
        """How often the topic was made again; requests of an earlier one are due at once."""
        return self._topic

    def due(self, place: Place, now: float) -> bool:
        """Whether a request that waits there is to be re-sent, its turn having come. Yes is paid for."""
        with self._lock:
            if place.topic != self._topic:
                return True
            is_free = now >= self._refill_at and now - self._answered_at < ANSWERING_SECONDS
            if not is_free and self._answers < ANSWERS_EACH:
                return False
            passed = place.offset < self._answered[place.partition].before
            last_answer = self._last_answer.get(place.partition, now - SILENCE_SECONDS)
            if passed or now - last_answer >= SILENCE_SECONDS:
                if is_free:
                    self._refill_at = now + REFILL_SECONDS
                else:
                    self._answers -= ANSWERS_EACH
                return True
            return False

    def tick(self, now: float) -> None:
        """Let time pass; to be called several times in `SETTLED_SECONDS`."""
        if now - self._aged >= SETTLED_SECONDS:
            with self._lock:
                self._aged = now
                for high_water in (*self._confirmed.values(), *self._answered.values()):
                    high_water.age()
