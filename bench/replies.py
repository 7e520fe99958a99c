"""A topic as the bench sees it: the number of its records and, afterwards, their content."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as Record

TIMEOUT = 10.0  # seconds for any answer of the broker
LOOK = 0.05  # seconds before a request is repeated
READ_AT_ONCE = 1000  # records


class Stored(Protocol):
    """What `check` needs of a record of confluent-kafka."""

    def key(self) -> bytes | None:
        """The number of the package it answers, in decimal."""
        ...

    def value(self) -> bytes | None:
        """JSON as this project or the Open Inference Protocol has it."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """Its kind, and when the broker stored it, in Unix milliseconds."""
        ...


@dataclass(frozen=True)
class Outcome:
    """The outcome of the requests. `last` is when the broker stored the last reply, Unix seconds."""

    distinct: int
    repeated: int
    wrong: int
    last: float


class Topic:
    """One topic, read without a group while the `with` block runs.

    `partitions` has the offset in each where counting and reading begin.
    """

    def __init__(self, bootstrap: str, name: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "bench",  # librdkafka requires one; nothing is committed
                "enable.auto.commit": False,
            }
        )
        partitions = self._consumer.list_topics(name, timeout=TIMEOUT).topics[name].partitions
        self.partitions = [TopicPartition(name, partition, 0) for partition in partitions]

    def skip(self) -> None:
        """Leave the present records out of all counts."""
        for partition, end in zip(self.partitions, self._ends(), strict=True):
            partition.offset = end

    def count(self) -> int:
        """Records so far, from offsets alone, so that counting costs the contenders nothing."""
        return sum(self._ends()) - sum(each.offset for each in self.partitions)

    def read(self) -> Iterator[Record]:
        """Every record that is there now, from the first on that is not skipped."""
        left = self.count()
        self._consumer.assign(self.partitions)
        while left:
            records = self._consumer.consume(min(left, READ_AT_ONCE), TIMEOUT)
            if not records:
                raise TimeoutError(f"{left} records did not come within {TIMEOUT:.0f} s")
            yield from records
            left -= len(records)

    def _ends(self) -> list[int]:
        return [self._end(each) for each in self.partitions]

    def _end(self, partition: TopicPartition) -> int:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return self._consumer.get_watermark_offsets(partition, timeout=TIMEOUT)[1]
            except KafkaException:  # a topic that was just made may have no leader yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()


def check(records: Iterable[Stored], is_correct: Callable[[int, list[str]], bool]) -> Outcome:
    """Count replies by request. Their keys are the numbers of the packages they answer."""
    answered: Counter[int] = Counter()
    wrong = last = 0
    for record in records:
        number = int(record.key() or b"-1")
        answered[number] += 1
        wrong += not is_correct(number, labels(record.value() or b"{}"))
        last = max(last, record.timestamp()[1])
    return Outcome(len(answered), answered.total() - len(answered), wrong, last / 1000)


def labels(value: bytes) -> list[str]:
    """The label of each image that a reply has, in this project's JSON or the Open Inference Protocol's."""
    body = orjson.loads(value)
    for output in body.get("outputs", []):
        if output["name"] == "labels":
            return list(output["data"])
    return [each["label"] for each in body.get("predictions", [])]
