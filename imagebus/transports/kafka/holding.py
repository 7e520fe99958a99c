"""Partitions of which a member gives nothing out for a while, although they are its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, TopicPartition


class Holding:
    """Holds partitions of one topic up and lets them go on; `position` is where each one goes on."""

    def __init__(self, topic: str, position: Callable[[int], int | None]) -> None:
        self.numbers: set[int] = set()
        self._topic = topic
        self._position = position

    def change(self, consumer: Consumer, held_up: set[int]) -> set[int]:
        """Hold up these and no others; returns the new ones, of which the caller forgets what it has."""
        new, over = held_up - self.numbers, self.numbers - held_up
        self.numbers = set(held_up)
        with suppress(KafkaException):  # some may be gone
            consumer.pause(self._named(new))
        for number in over:
            self._go_on(consumer, number)
        return new

    def forget(self, numbers: Iterable[int]) -> None:
        """They are no longer this member's."""
        self.numbers.difference_update(numbers)

    def _go_on(self, consumer: Consumer, number: int) -> None:
        position = self._position(number)
        with suppress(KafkaException):  # it may be gone
            consumer.resume(self._named([number]))
            if position is not None:  # what came while it was held up was forgotten
                consumer.seek(TopicPartition(self._topic, number, position))

    def _named(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in numbers]
