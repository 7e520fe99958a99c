"""A bus inside one process, with the whole contract: groups, redelivery, suspects, confirmed outputs.

For tests and experiments. Each `MemoryBus(broker)` is one connection; buses that talk to each other share a
`MemoryBroker`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from imagebus.errors import CommitFailed, PublishFailed, TooLarge, TransportError
from imagebus.transports.base import Bus, Commit, Inbox, Instead, Member, OnAssigned, OnDelivery, how_many
from imagebus.wire.message import Message, Position

FEW = 24  # messages tried together after a first death, as on Kafka
NEVER_TOO_LARGE = 2**63


@dataclass
class _Group:
    """A consumer group's progress in a topic."""

    position: int = 0  # the next offset never given out
    returned: list[int] = field(default_factory=list)  # given out, not committed, to be given out again
    deaths: Counter[int] = field(default_factory=Counter)  # of members, by the offsets that they held


class MemoryBroker:
    """Topics as lists.

    `fail_next_commits(n)` makes the next n commits fail, as a broker's absence does; `fail_for_good(error)`
    ends all connections, as a refused login does; `max_message_bytes` is the largest value that a topic takes.
    """

    def __init__(self) -> None:
        self.topics: defaultdict[str, list[Message]] = defaultdict(list)
        self.max_message_bytes: defaultdict[str, int] = defaultdict(lambda: NEVER_TOO_LARGE)
        self.changed = threading.Condition()
        self.groups: defaultdict[tuple[str, str], _Group] = defaultdict(_Group)
        self.failure: TransportError | None = None
        self._failures = 0

    def fail_for_good(self, error: TransportError) -> None:
        """Let each call on each connection raise `error` from now on."""
        with self.changed:
            self.failure = error
            self.changed.notify_all()

    def fail_next_commits(self, count: int) -> None:
        """Let the next `count` commits of any member raise `CommitFailed`."""
        self._failures = count

    def refuses_commit(self) -> bool:
        """Whether this commit is one of those that fail; counts it."""
        failing = self._failures > 0
        self._failures -= failing
        return failing

    def takes(self, message: Message) -> bool:
        """Whether the message is small enough for its topic."""
        return len(message.value) <= self.max_message_bytes[message.topic]

    def append(self, message: Message) -> Position:
        """Store a message; to be called with `changed` held."""
        log = self.topics[message.topic]
        position = Position(0, len(log), int(time.time() * 1000))
        log.append(message._replace(position=position))
        self.changed.notify_all()
        return position

    def message(self, topic: str, offset: int) -> Message:
        """A stored message; its receipt is its offset."""
        return self.topics[topic][offset]._replace(receipt=offset)


class MemoryBus(Bus):
    """One connection to a `MemoryBroker`, or to one of its own."""

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self.broker = broker or MemoryBroker()
        self._members: list[MemoryMember] = []
        self.closed = False

    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        with self.broker.changed:
            if self.closed:
                raise PublishFailed("the bus is closed")
            if self.broker.failure:
                raise self.broker.failure.with_traceback(None)
            if not self.broker.takes(message):
                raise TooLarge(f"a message of {len(message.value)} bytes to topic {message.topic!r}")
            position = self.broker.append(message)
        if on_delivery is not None:
            on_delivery(position)

    def inbox(self, topic: str) -> MemoryInbox:
        return MemoryInbox(self, topic)

    def join(
        self, topic: str, group: str, on_assigned: OnAssigned | None = None, *, bounded: bool = False
    ) -> MemoryMember:
        member = MemoryMember(self.broker, topic, group, on_assigned, bounded=bounded)
        self._members.append(member)
        return member

    def _left_behind(self, _: TransportError) -> None:
        self.broker, self._members = MemoryBroker(), []  # another thread may have held the lock of this one's

    def close(self) -> None:
        with self.broker.changed:
            self.closed = True
            self.broker.changed.notify_all()
            for member in self._members:
                member.leave()

    def die(self) -> None:
        """End as a killed process does: what its members hold becomes suspect."""
        with self.broker.changed:
            self.closed = True
            for member in self._members:
                member.die()


class MemoryInbox(Inbox):
    """Reads a topic from now on."""

    def __init__(self, bus: MemoryBus, topic: str) -> None:
        self._bus = bus
        self._broker = bus.broker
        self._topic = topic
        with self._broker.changed:
            self._next = len(self._broker.topics[topic])

    def receive(self, limit: int, timeout: float) -> list[Message]:
        with self._broker.changed:
            log = self._broker.topics[self._topic]
            self._broker.changed.wait_for(lambda: len(log) > self._next or self._has_ended(), timeout)
            if self._bus.closed:
                raise TransportError("the bus is closed")
            if self._broker.failure:
                raise self._broker.failure.with_traceback(None)
            offsets = range(self._next, min(len(log), self._next + limit))
            self._next = offsets.stop
            return [self._broker.message(self._topic, offset) for offset in offsets]

    def _has_ended(self) -> bool:
        return self._bus.closed or self._broker.failure is not None


class MemoryMember(Member):
    """A member of a group on the memory bus."""

    partitions = (0,)

    def __init__(
        self,
        broker: MemoryBroker,
        topic: str,
        group: str,
        on_assigned: OnAssigned | None = None,
        *,
        bounded: bool = False,
    ) -> None:
        self._bound = len(broker.topics[topic]) if bounded else None
        self._on_assigned = on_assigned  # until it was called
        self._broker = broker
        self._topic = topic
        self._group = broker.groups[topic, group]
        self._in_hand: set[int] = set()  # offsets given out and not committed
        self._left = False

    def receive(self, limit: int, timeout: float) -> list[Message]:
        if self._on_assigned is not None:
            self._on_assigned(self.partitions)
            self._on_assigned = None
        with self._broker.changed:
            self._check()
            self._broker.changed.wait_for(
                lambda: self._waiting() or self._left or self._broker.failure, timeout
            )
            self._check()
            offsets = self._take(limit)
            self._in_hand.update(offsets)
            return [
                self._broker.message(self._topic, offset)._replace(attempt=1 + self._group.deaths[offset])
                for offset in offsets
            ]

    def _check(self) -> None:
        if self._left:
            raise TransportError("the bus is closed")
        if self._broker.failure:
            raise self._broker.failure.with_traceback(None)

    def _waiting(self) -> bool:
        """Whether there is a message, even if it has to wait for what is in hand."""
        return bool(self._group.returned) or self._end() > self._group.position

    def _end(self) -> int:
        """The offset behind what may be given out."""
        end = len(self._broker.topics[self._topic])
        return end if self._bound is None else min(end, self._bound)

    @property
    def at_end(self) -> bool:
        with self._broker.changed:
            return not self._waiting()

    def _take(self, limit: int) -> list[int]:
        """The next offsets that may go together; none while a suspect is in hand, or is next behind others."""
        group, end = self._group, self._end()
        next_offsets = [*group.returned, *range(group.position, min(end, group.position + limit))]
        if not next_offsets or any(group.deaths[offset] for offset in self._in_hand):
            return []
        deaths = group.deaths[next_offsets[0]]
        if deaths and self._in_hand:
            return []
        taken = []
        for offset in next_offsets[: how_many(deaths, limit, FEW)]:
            if group.deaths[offset] != deaths:
                break
            taken.append(offset)
        group.returned = [offset for offset in group.returned if offset not in taken]
        group.position = max(group.position, taken[-1] + 1)
        return taken

    def commit(
        self, received: Sequence[Message], outgoing: Sequence[Message] = (), instead: Instead | None = None
    ) -> Commit:
        commit: Future[None] = Future()
        try:
            self._commit(received, outgoing, instead)
        except Exception as error:  # also what `instead` raises
            commit.set_exception(error)
        else:
            commit.set_result(None)
        return commit

    def _commit(
        self, received: Sequence[Message], outgoing: Sequence[Message], instead: Instead | None
    ) -> None:
        with self._broker.changed:
            self._check()
            if self._broker.refuses_commit():
                raise CommitFailed("the memory bus was told to fail this commit")
            fitting = [self._fitting(place, message, instead) for place, message in enumerate(outgoing)]
            for message in fitting:
                self._broker.append(message)
            for message in received:
                self._in_hand.discard(message.receipt)
                self._group.deaths.pop(message.receipt, None)

    def _fitting(self, place: int, message: Message, instead: Instead | None) -> Message:
        while not self._broker.takes(message):
            if instead is None:
                raise TooLarge(f"an outcome of {len(message.value)} bytes for topic {message.topic!r}")
            message = instead(place)
        return message

    def rewind(self) -> None:
        with self._broker.changed:
            self._give_back()

    def leave(self) -> None:
        """Give back what is in hand; to be called with the broker's `changed` held."""
        self._left = True
        self._give_back()

    def die(self) -> None:
        """Leave what is in hand under suspicion; to be called with the broker's `changed` held."""
        if not self._left:
            self._group.deaths.update(self._in_hand)
            self.leave()

    def _give_back(self) -> None:
        self._group.returned = sorted({*self._group.returned, *self._in_hand})
        self._in_hand.clear()
        self._broker.changed.notify_all()
