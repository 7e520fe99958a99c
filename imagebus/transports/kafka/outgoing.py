"""The outcomes of one batch on their way to the brokers, and what became of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from confluent_kafka import KafkaError
from confluent_kafka import Message as Record

from imagebus.errors import CommitFailed, TooLarge
from imagebus.transports.kafka.errors import is_too_large, reason_of
from imagebus.transports.kafka.sender import OnRecord
from imagebus.wire.message import Message

Send = Callable[[Message, OnRecord], None]
Smaller = Callable[[Sequence[int]], Mapping[int, Message]]


class OutgoingBatch:
    """The outcomes of one batch by their places, each confirmed, failed, too large, or on its way.

    It keeps no producer: the producer holds its callbacks, so neither could ever be freed. Several threads may
    poll, and so call back.
    """

    def __init__(self) -> None:
        self.failures: dict[int, KafkaError] = {}
        self.too_large: list[int] = []  # their places
        self._count = 0  # and not the outcomes: a batch with some missing is kept, and may be large
        self._sent: dict[int, Message] = {}  # and not confirmed: these may have to be sent again
        self._on_their_way: dict[int, None] = {}

    def __len__(self) -> int:
        return self._count

    def send(self, send: Send, outgoing: Sequence[Message]) -> None:
        """Send them all; raises what `send` raises, `TooLarge` apart."""
        self._count = len(outgoing)
        for place, message in enumerate(outgoing):
            self._try(send, place, message)

    def _try(self, send: Send, place: int, message: Message) -> None:
        self._sent[place] = message
        self._on_their_way[place] = None
        try:
            send(message, partial(self._delivered, place))
        except TooLarge:
            self.too_large.append(place)
            del self._on_their_way[place]

    @property
    def unconfirmed(self) -> int:
        """How many are still on their way."""
        return len(self._on_their_way)

    def _delivered(self, place: int, error: KafkaError | None, _: Record | None) -> None:
        if error is None:
            self._sent.pop(place, None)
        elif is_too_large(error):
            self.too_large.append(place)
        else:
            self.failures[place] = error
        self._on_their_way.pop(place, None)  # last: who finds it gone finds its fate

    def missing(self) -> Mapping[int, Message]:
        """The outcomes that are not confirmed, by place, whatever the reason."""
        return dict(self._sent)

    def forget(self) -> None:
        """Nothing is missing any more: the requests of what is not confirmed come again, or are another member's."""
        self._sent = {}
        self.failures, self.too_large = {}, []

    def check(self) -> None:
        """Raise `CommitFailed` when some have failed."""
        if self.failures:
            count = self.unconfirmed + len(self.failures)
            reason = reason_of(next(iter(self.failures.values())))
            raise CommitFailed(f"{count} replies were not confirmed: {reason}")

    def send_instead(self, send: Send, smaller: Smaller) -> bool:
        """Send something smaller in place of what is too large; whether there was any."""
        too_large, self.too_large = self.too_large, []
        for place, message in smaller(too_large).items():
            self._try(send, place, message)
        return bool(too_large)

    def send_again(self, send: Send) -> None:
        """Send what has failed once more."""
        failed, self.failures = self.failures, {}
        for place in failed:
            self._try(send, place, self._sent[place])
