"""The seam between this project and a message bus: five verbs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from imagebus.errors import TransportError
from imagebus.messages import Message

OnAssigned = Callable[[Sequence[int]], None]
OnDelivery = Callable[[TransportError | None], None]


class Transport(ABC):
    """One client's connection to a bus: a replier's or a requestor's.

    Threads: `receive` is called from one thread at a time, `commit` likewise, `publish` from any
    number; the three may be different threads. `close` is called when no other call is running.
    Callbacks are called from inside `receive` or `publish`, must be quick and must not raise.

    Errors: every failure of the bus is a `TransportError` from the call that noticed it, or from the
    next call where it was noticed in between. None is swallowed.
    """

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
        empty list after `timeout`. Messages of one partition come in order.
        """

    @abstractmethod
    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        """Queue one message and return; blocks only while the queue is full.

        `on_delivery` is called once, with None when the bus confirmed the message, else with the error.
        Without it, a failed delivery is kept and raised by the next call.
        """

    @abstractmethod
    def commit(self, received: Sequence[Message], outgoing: Sequence[Message] = ()) -> None:
        """Make `outgoing` exist, then mark `received` as done; blocks until both are true.

        1. publish every message of `outgoing` and wait until the bus confirmed each;
        2. only then record that `received` need not come again.

        Raises `CommitFailed` when 1. did not succeed in time: nothing is marked, and everything received
        and not yet committed comes again. Whatever was marked done stays done.
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
