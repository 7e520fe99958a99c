"""A bus inside one process, with the whole contract: groups, redelivery, confirmed outputs.

For tests and for trying things out in a REPL. Each `MemoryTransport(bus)` is one client.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from imagebus.errors import CommitFailed, PublishFailed, TransportError
from imagebus.transports.base import Commit, OnAssigned, OnDelivery, Transport
from imagebus.wire.message import Message


@dataclass
class _Group:
    """What one consumer group still has to do with a topic."""

    position: int = 0  # the next offset never handed out
    returned: list[int] = field(default_factory=list)  # handed out, not committed, to come again


class MemoryBus:
    """Topics as lists. `fail_next_commits(n)` makes the next n commits fail, as a broker's absence does."""

    def __init__(self) -> None:
        self.topics: defaultdict[str, list[Message]] = defaultdict(list)
        self.changed = threading.Condition()
        self.groups: defaultdict[tuple[str, str], _Group] = defaultdict(_Group)
        self._failures = 0

    def fail_next_commits(self, count: int) -> None:
        """Let the next `count` commits of any client raise `CommitFailed`."""
        self._failures = count

    def refuses_commit(self) -> bool:
        """Whether this commit is one of those that fail; counts it."""
        failing = self._failures > 0
        self._failures -= failing
        return failing


class MemoryTransport(Transport):
    """One client of a `MemoryBus`."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._topic: str | None = None
        self._group: _Group | None = None
        self._inbox = 0  # the next offset of a private inbox
        self._open: set[int] = set()  # handed out by this client and not committed
        self._closed = False

    def subscribe(self, topic: str, group: str | None = None, on_assigned: OnAssigned | None = None) -> None:
        with self._bus.changed:
            self._topic = topic
            self._group = self._bus.groups[topic, group] if group is not None else None
            self._inbox = len(self._bus.topics[topic])
        if on_assigned is not None:
            on_assigned([0])

    def receive(self, limit: int, timeout: float) -> list[Message]:
        if self._topic is None:
            raise TransportError("receive before subscribe")
        deadline = time.monotonic() + timeout
        with self._bus.changed:
            while not (offsets := self._take(limit)):
                left = deadline - time.monotonic()
                if left <= 0:
                    return []
                self._bus.changed.wait(left)
            log = self._bus.topics[self._topic]
            return [log[offset]._replace(receipt=offset) for offset in offsets]

    def _take(self, limit: int) -> list[int]:
        assert self._topic is not None
        end = len(self._bus.topics[self._topic])
        if self._group is None:
            offsets = list(range(self._inbox, min(end, self._inbox + limit)))
            self._inbox += len(offsets)
            return offsets
        group = self._group
        offsets, group.returned = group.returned[:limit], group.returned[limit:]
        fresh = range(group.position, min(end, group.position + limit - len(offsets)))
        group.position += len(fresh)
        offsets += fresh
        self._open.update(offsets)
        return offsets

    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        with self._bus.changed:
            if self._closed:
                raise PublishFailed("the transport is closed")
            self._append(message)
        if on_delivery is not None:
            on_delivery(None)

    def begin_commit(self, received: Sequence[Message], outgoing: Sequence[Message] = ()) -> Commit:
        commit: Future[None] = Future()
        with self._bus.changed:
            if self._bus.refuses_commit():
                commit.set_exception(CommitFailed("the memory bus was told to fail this commit"))
                return commit
            for message in outgoing:
                self._append(message)
            self._open.difference_update(message.receipt for message in received)
        commit.set_result(None)
        return commit

    def rewind(self) -> None:
        with self._bus.changed:
            self._give_back()

    def close(self) -> None:
        with self._bus.changed:
            self._closed = True
            self._give_back()

    def _append(self, message: Message) -> None:
        self._bus.topics[message.topic].append(message)
        self._bus.changed.notify_all()

    def _give_back(self) -> None:
        if self._group is not None:
            self._group.returned = sorted({*self._group.returned, *self._open})
            self._bus.changed.notify_all()
        self._open.clear()
