"""A hook for the life of requests: counts, traces, a live page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagebus.errors import BadMessage, CommitFailed, ImageBusError
    from imagebus.wire.message import Message
    from imagebus.wire.results import Reply


class Observer:
    """Override the methods of interest; here, each does nothing.

    A worker calls all but the last, a client calls `resolved`. They run on the threads that do the work, must
    be quick and must not raise.
    """

    def received(self, messages: Sequence[Message]) -> None:
        """A batch is in hand."""

    def predicted(self, images: int, seconds: float) -> None:
        """The model has answered a batch; `images` counts those that it could predict."""

    def refused(self, message: Message, error: BadMessage) -> None:
        """A request gets an error instead of predictions; without `error.envelope`, it is a dead letter."""

    def committed(self, messages: Sequence[Message]) -> None:
        """A batch has its outcomes, and is done."""

    def commit_failed(self, error: CommitFailed) -> None:
        """Everything in hand comes again."""

    def resolved(self, id: str, outcome: Reply | ImageBusError) -> None:
        """A caller's request has its one outcome."""
