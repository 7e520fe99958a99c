"""The leases of a member on its messages, which it extends until the work is done.

Pub/Sub leases a message to one member and then to another, unless it is acknowledged. It may also redeliver
it to the same one under a new ack id; the message's own id identifies it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

SHORTEST_SECONDS = 10  # of a lease: the least that Pub/Sub gives
# Of the longest lease requested: a killed member's messages go to another after so long. For a slower model the
# leases are extended.
LONGEST_SECONDS = 60
REMEMBERED = 10_000  # answered messages, in case one is redelivered
_FORGETTING = 0.9  # decay of the longest time in hand, per message that took less


class Taken(Enum):
    """The kinds of message that Pub/Sub delivers."""

    NEW = auto()
    KNOWN = auto()  # in hand already: the new lease replaces the old one
    ANSWERED = auto()  # its outcome exists: only the acknowledgement was lost


@dataclass(slots=True)
class _Lease:
    """Times are `time.monotonic()`."""

    ack_id: str
    since: float  # when the message came for the first time
    until: float


class Leases:
    """The messages in hand by their ids. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Lease] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._in_hand = 0.0  # seconds, about the longest of late

    def take(self, id: str, ack_id: str) -> Taken:
        """Note a message that arrived."""
        with self._lock:
            if id in self._answered:
                return Taken.ANSWERED
            now = time.monotonic()
            lease = self._held.get(id)
            if lease is not None:
                lease.ack_id, lease.until = ack_id, now + SHORTEST_SECONDS
                return Taken.KNOWN
            self._held[id] = _Lease(ack_id, now, now + SHORTEST_SECONDS)
            return Taken.NEW

    def keep(self, id: str) -> bool:
        """Whether a waiting message is still ours; else it is forgotten, as another member may have it."""
        with self._lock:
            lease = self._held.get(id)
            if lease is not None and time.monotonic() < lease.until:
                return True
            self._held.pop(id, None)
            return False

    def extended(self, ack_ids: Iterable[str], seconds: float) -> None:
        """Pub/Sub agreed to extend these leases to `seconds` from now, or a little more."""
        until = time.monotonic() + seconds
        extended = set(ack_ids)
        with self._lock:
            for lease in self._held.values():
                if lease.ack_id in extended:
                    lease.until = until

    def answered(self, ids: Iterable[str]) -> list[str]:
        """Their outcomes exist: the ack ids to acknowledge."""
        ack_ids = []
        now = time.monotonic()
        with self._lock:
            for id in ids:
                self._answered[id] = None
                lease = self._held.pop(id, None)
                if lease is not None:
                    self._in_hand = max(self._in_hand * _FORGETTING, now - lease.since)
                    ack_ids.append(lease.ack_id)
            while len(self._answered) > REMEMBERED:
                self._answered.popitem(last=False)
        return ack_ids

    def __len__(self) -> int:
        return len(self._held)

    def ack_ids(self) -> list[str]:
        """The ack ids of all messages in hand."""
        with self._lock:
            return [lease.ack_id for lease in self._held.values()]

    def seconds(self) -> int:
        """The length of a lease to request: twice the time that messages were in hand of late."""
        return round(min(max(SHORTEST_SECONDS, 2 * self._in_hand), LONGEST_SECONDS))
