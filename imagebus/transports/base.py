"""The seam between this project and a message bus: a bus, inboxes on it, and members of its groups.

    bus = connect("kafka", "kafka.config", topics=["requests", "replies"])
    bus.publish(message)
    inbox = bus.inbox("replies")                       # a requestor's: everything from now on
    member = bus.join("requests", group="repliers")    # a replier's: its share of the work
    batch = member.receive(limit=128, timeout=0.2)
    member.commit(batch, outgoing).result()
    bus.close()

Errors: every failure of the bus is a `TransportError`, raised by the call that noticed it or, where it was
noticed between calls, by the next one. None is swallowed. One that no retry can mend is kept, and raised by
each call on what failed: a thread that sends must not take it from the thread that reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from imagebus.errors import TransportError
from imagebus.forking import OfOneProcess
from imagebus.wire.message import Message, Position

OnAssigned = Callable[[Sequence[int]], None]
OnDelivery = Callable[[TransportError | Position | None], None]
Instead = Callable[[int], Message]


class Commit(Protocol):
    """A commit in progress."""

    def result(self) -> None:
        """Wait for its end; raises its error. Called once."""


class Bus(OfOneProcess, ABC):
    """A connection to a message bus.

    Threads: `publish` is called from any number of threads, all else from one. Callbacks are called on any
    thread, `on_assigned` first when the member is used; they must be quick and must not raise.
    """

    @abstractmethod
    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        """Queue one message and return; blocks only while the queue is full.

        `on_delivery` is called once: with the place of the message when the bus confirmed it (None where a bus has
        no positions), else with the error.
        Without it, a failed delivery is kept and raised by the next call.
        """

    @abstractmethod
    def inbox(self, topic: str) -> Inbox:
        """A private reader: everything sent to the topic from now on, where now is before this call returns."""

    @abstractmethod
    def join(
        self, topic: str, group: str, on_assigned: OnAssigned | None = None, *, bounded: bool = False
    ) -> Member:
        """A new member of a group, among whose members the topic's messages are shared.

        The group's position is remembered: a new group starts at the oldest message. `on_assigned` gets
        the partitions of this member whenever they change. A bounded member gives
        out what its partitions have when it comes to their ends, and nothing behind that.
        """

    @abstractmethod
    def close(self) -> None:
        """Send what is queued, leave the groups, let go of the connection. Safe to call twice.

        Messages that a member received and did not commit go to the others of its group, or come again later.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Inbox(OfOneProcess, ABC):
    """Reads what is sent to one topic. One thread calls it.

    `return_headers` are those that a request carries so that its reply comes to this inbox and no other, on
    a bus that can do that.
    """

    return_headers: Sequence[tuple[str, bytes]] = ()

    @abstractmethod
    def receive(self, limit: int, timeout: float) -> list[Message]:
        """Up to `limit` messages; blocks until there is one, at most `timeout` s, then an empty list.

        Takes what is already there and does not wait for more, so it may return fewer than `limit`.
        """


class Member(OfOneProcess, ABC):
    """A member of a consumer group: receives its share of a topic, and commits what is done.

    One thread calls it. A message whose `attempt` is above 1 is a suspect: a member died with it in hand. To
    tell the one that kills its reader from its neighbours, suspects are given out a few at a time or alone,
    never together with other messages, and never while anything else is uncommitted; nor is anything else
    while a suspect is. The member sees to that itself, so that no caller can break it.

    `partitions` is None until the first assignment, and (0,) where a bus has none. `lost` counts
    messages that the bus deleted (retention) before this group had committed them,
    `redelivered` messages redelivered although already committed, recognised by id. `unconfirmed` outcomes are sent on
    since a part of the bus takes nothing: see `commit`.
    """

    partitions: tuple[int, ...] | None = None
    lost: int = 0
    redelivered: int = 0
    unconfirmed: int = 0
    finish_by: float | None = None  # time.monotonic(): from then on no commit is waited for

    @abstractmethod
    def receive(self, limit: int, timeout: float) -> list[Message]:
        """Up to `limit` messages, each with its receipt; blocks until there is one, at most `timeout` s.

        Takes what is already there and does not wait for more, so it may return fewer than `limit`; an
        empty list after `timeout`, or at once where something has to be committed before more can come.
        Messages of one partition come in order.
        """

    @property
    def at_end(self) -> bool | None:
        """Whether a bounded member has received all that it will; None where the bus cannot tell."""
        return None

    @abstractmethod
    def commit(
        self, received: Sequence[Message], outgoing: Sequence[Message] = (), instead: Instead | None = None
    ) -> Commit:
        """Begin to make `outgoing` exist, then to mark `received` as done; `result()` blocks until that is so.

        `outgoing` is empty, or has the outcome of each received message in its place. Where the bus can
        tell, the outcomes of messages that meanwhile went to another member are not sent.

        1. publish every message of `outgoing` and wait until the bus has confirmed each;
        2. only then record that `received` need not come again.

        An outcome that is larger than the bus takes is replaced by `instead(place)`, which is called again
        if that is too large too, on any thread; what it raises, `result()` raises. Without `instead`, that is
        a `TooLarge`, and nothing is marked.

        Where a part of the bus takes nothing for long, its outcomes do not hold up the others: `result()` returns
        without them, the member goes on sending them, and their messages are marked once they exist.

        `result()` raises `CommitFailed` when 1. did not succeed in time: nothing is marked, and the caller
        goes back with `rewind`. What is marked as done stays done. One commit ends before the next begins, so
        they are in order.
        """

    @abstractmethod
    def rewind(self) -> None:
        """Let everything that was received and not committed come again, in order.

        After a failed commit, while none is in progress. What was received later is forgotten too: its
        outcomes must no longer be committed.
        """


def earliest(deadline: float, finish_by: float | None) -> float:
    """The moment until which to wait: a deadline, or `Member.finish_by` where that is sooner."""
    return deadline if finish_by is None else min(deadline, finish_by)


def how_many(deaths: int, limit: int, few: int) -> int:
    """How many messages that `deaths` members died with are tried together, of `limit` that may be: a few, then one."""
    return limit if not deaths else min(limit, few) if deaths == 1 else 1
