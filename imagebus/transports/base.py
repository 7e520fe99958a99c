"""The seam between this project and a message bus: six verbs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from imagebus.errors import TransportError
from imagebus.wire.message import Message

OnAssigned = Callable[[Sequence[int]], None]
OnDelivery = Callable[[TransportError | None], None]


class Commit(Protocol):
    """A commit that was begun."""

    def result(self) -> None:
        """Wait for its end; raises what came of it. Called once."""


class Transport(ABC):
    """One client's connection to a bus: a replier's or a requestor's.

    Threads: `publish` is called from any number of threads, all else from one. Callbacks are called from
    inside `receive` or `publish`, must be quick and must not raise.

    `lost` counts messages that the bus deleted (retention) before this group had committed them,
    `failed_acknowledgements` those that came again although they were committed, and were told by their ids.

    Errors: every failure of the bus is a `TransportError` from the call that noticed it, or from the
    next call where it was noticed in between. None is swallowed.
    """

    lost: int = 0
    failed_acknowledgements: int = 0
    hurried_at: float | None = None  # time.monotonic(): from then on `commit` waits a few seconds at most

    @abstractmethod
    def subscribe(self, topic: str, group: str | None = None, on_assigned: OnAssigned | None = None) -> None:
        """Choose what `receive` reads; called once, before it.

        With a `group`, the topic's messages are shared among its members, and the group's position is
        remembered: a new group starts at the oldest message. `on_assigned` is told the partitions of
        this member whenever they change. Without a group this is a private inbox: everything sent to
        the topic from now on, where now is before this call returns.
        """

    @abstractmethod
    def receive(self, limit: int, timeout: float) -> list[Message]:
        """Up to `limit` messages, each with its receipt; blocks until there is one, at most `timeout` s.

        Takes what is already there and does not wait for more, so it may return fewer than `limit`; an
        empty list after `timeout`. Messages of one partition come in order. A message whose `attempt` is
        above 1 was in the hands of a member that died; such messages come a few at a time, or alone, and never
        with others: commit what is in hand before trying them, and them before receiving more, so that one
        which kills its reader can be told from its neighbours.
        """

    @abstractmethod
    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        """Queue one message and return; blocks only while the queue is full.

        `on_delivery` is called once, with None when the bus confirmed the message, else with the error.
        Without it, a failed delivery is kept and raised by the next call.
        """

    @abstractmethod
    def begin_commit(self, received: Sequence[Message], outgoing: Sequence[Message] = ()) -> Commit:
        """Make `outgoing` exist, then mark `received` as done; `result()` blocks until that is so.

        `outgoing` is empty, or has the outcome of each received message in its place. The outcomes of
        messages that went to another member meanwhile are not sent.

        1. publish every message of `outgoing` and wait until the bus confirmed each;
        2. only then record that `received` need not come again.

        `result()` raises `CommitFailed` when 1. did not succeed in time: nothing is marked, and the caller
        goes back with `rewind`. Whatever was marked done stays done. One commit is ended before the next
        is begun, so that they are in order.
        """

    def commit(self, received: Sequence[Message], outgoing: Sequence[Message] = ()) -> None:
        """`begin_commit`, and wait for its end."""
        self.begin_commit(received, outgoing).result()

    @abstractmethod
    def rewind(self) -> None:
        """Let everything that was received and not committed come again, in order.

        After a `CommitFailed`, while no commit is under way. What was received later is forgotten too:
        its outcomes must not be committed any more.
        """

    @abstractmethod
    def close(self) -> None:
        """Send what is queued, leave the group, let go of the connection. Safe to call twice.

        Received messages that were not committed go to the other members, or come again later.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
