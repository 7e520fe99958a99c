"""What was sent, confirmed and answered, as the caller saw it; and what the topics say afterwards."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Self

from confluent_kafka import Consumer, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it does export them

from ..buses import read_topic

SECONDS = 30.0  # for a question to the brokers
CLOCK_MS = 50  # records are stamped by their senders and samples by us: one clock, read a little apart


class Stored(NamedTuple):
    """One record of a topic."""

    partition: int
    offset: int
    timestamp: int  # Unix, milliseconds
    id: str
    value: bytes


def read_all(bootstrap: str, topic: str) -> list[Stored]:
    """Every committed record of a topic."""
    found = []
    for record in read_topic(bootstrap, topic):
        headers = dict(record.headers() or [])
        id = headers.get("correlation_id") or record.key() or b""
        text = id.decode(errors="replace") if isinstance(id, bytes) else id
        number, offset = record.partition(), record.offset()
        assert number is not None
        assert offset is not None
        found.append(Stored(number, offset, record.timestamp()[1], text, record.value() or b""))
    return found


@dataclass
class Ledger:
    """The caller's notes: times are `time.monotonic()`."""

    sent: dict[str, float] = field(default_factory=dict)
    confirmed: dict[str, float] = field(default_factory=dict)
    outcomes: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)  # ids of answers that the model would not give
    answered_at: list[float] = field(default_factory=list)
    committed: list[tuple[int, dict[int, int]]] = field(default_factory=list)  # Unix ms, offsets by partition
    lock: threading.Lock = field(default_factory=threading.Lock)

    def longest_gap(self) -> float:
        """Seconds, between two answers."""
        times = sorted(self.answered_at)
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


@dataclass(frozen=True)
class Verdict:
    """One row of the table."""

    fault: str
    sent: int
    confirmed: int
    answered: int
    lost: int
    repeats: int
    bound: int
    gap: float
    problems: list[str]

    def __str__(self) -> str:
        numbers = f"{self.sent:7} {self.confirmed:9} {self.answered:8} {self.lost:5} {self.repeats:7} {self.bound:6}"
        line = f"{self.fault:44} {numbers} {self.gap:7.1f}"
        return "\n".join([line, *(f"    BROKEN: {problem}" for problem in self.problems)])


HEADING = "fault".ljust(44) + "    sent confirmed answered  lost repeats  bound   gap s"


class Committed:
    """What a group has committed, asked by a consumer that never joins it.

    An AdminClient could be asked, but librdkafka 2.16 kills its process when the coordinator moves meanwhile.
    """

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
        self._topic = topic
        self._partitions: list[TopicPartition] = []

    def offsets(self) -> dict[int, int]:
        """By partition, of those where there is one. Raises `KafkaException`."""
        if not self._partitions:
            numbers = self._consumer.list_topics(self._topic, SECONDS).topics[self._topic].partitions
            self._partitions = [TopicPartition(self._topic, number) for number in numbers]
        found = self._consumer.committed(self._partitions, timeout=SECONDS)
        return {each.partition: each.offset for each in found if each.offset >= 0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()


def ends(admin: AdminClient, topic: str, partitions: Sequence[int], level: IsolationLevel) -> dict[int, int]:
    """The offset after the last record of each partition, at an isolation level."""
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # it has no annotations
    wanted = {TopicPartition(topic, number): latest for number in partitions}
    answers = admin.list_offsets(wanted, isolation_level=level)
    return {partition.partition: answer.result(SECONDS).offset for partition, answer in answers.items()}


def judge(
    fault: str, ledger: Ledger, bootstrap: str, requests: str, replies: str, group: str, bound: int
) -> Verdict:
    """Hold the caller's notes against the topics: the checks I1 to I8 of the promise."""
    asked = read_all(bootstrap, requests)
    answers = read_all(bootstrap, replies)
    letters = read_all(bootstrap, f"{requests}.dlt")
    problems: list[str] = []

    def check(name: str, found: Sequence[object]) -> None:
        if found:
            problems.append(f"{name}: {len(found)}, such as {found[0]}")

    times_asked = Counter(record.id for record in asked)
    times_answered = Counter(record.id for record in answers)
    ended = set(times_answered) | {record.id for record in letters}
    lost = [id for id in ledger.confirmed if id not in ended]
    check("I1 confirmed and without an outcome in the topics", lost)
    check(
        "I1 confirmed and without an outcome at the caller",
        [id for id in ledger.confirmed if not ledger.outcomes[id]],
    )
    check(
        "I1 confirmed and not answered with predictions",
        [f"{id}: {seen}" for id, seen in ledger.outcomes.items() if "answered" not in seen],
    )
    check(
        "I2 more than one outcome at the caller",
        [id for id, seen in ledger.outcomes.items() if len(seen) > 1],
    )
    repeats = sum(max(0, count - times_asked[id]) for id, count in times_answered.items())
    if repeats > bound:
        problems.append(f"I3 repeated replies: {repeats}, at most {bound} were in flight")
    check("I4 replies to ids never sent", [id for id in times_answered if id not in ledger.sent])
    check("I5 answers that the model would not give", ledger.wrong)
    check("I6 committed before there was an outcome", committed_too_early(ledger, asked, answers, letters))

    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for topic in (requests, replies):
        numbers = sorted(admin.list_topics(topic, SECONDS).topics[topic].partitions)
        stable = ends(admin, topic, numbers, IsolationLevel.READ_COMMITTED)
        high = ends(admin, topic, numbers, IsolationLevel.READ_UNCOMMITTED)
        check(
            f"I7 hanging transactions in {topic}",
            [number for number in numbers if stable[number] < high[number]],
        )
        if topic == requests:
            with Committed(bootstrap, group, topic) as committed:
                done = committed.offsets()
            check("I7 lag at the end", [n for n in numbers if done.get(n, 0) < high[n] and high[n] > 0])
    return Verdict(
        fault=fault,
        sent=len(ledger.sent),
        confirmed=len(ledger.confirmed),
        answered=sum("answered" in seen for seen in ledger.outcomes.values()),
        lost=len(lost),
        repeats=repeats,
        bound=bound,
        gap=ledger.longest_gap(),
        problems=problems,
    )


def committed_too_early(
    ledger: Ledger, asked: Sequence[Stored], answers: Sequence[Stored], letters: Sequence[Stored]
) -> list[str]:
    """Requests whose offset was committed at a sampled moment before their outcome existed."""
    first_outcome: dict[str, int] = {}
    for record in (*answers, *letters):
        first_outcome[record.id] = min(record.timestamp, first_outcome.get(record.id, record.timestamp))
    by_partition: defaultdict[int, dict[int, str]] = defaultdict(dict)
    for record in asked:
        by_partition[record.partition][record.offset] = record.id
    early, checked = [], Counter[int]()  # offsets below `checked` were judged by an earlier sample
    for moment, offsets in ledger.committed:
        for partition, committed in offsets.items():
            for offset in range(checked[partition], committed):
                id = by_partition[partition].get(offset)  # None for a transaction's marker
                outcome = first_outcome.get(id) if id else moment
                if outcome is None or outcome > moment + CLOCK_MS:
                    early.append(f"{id} at offset {offset} of partition {partition}")
            checked[partition] = max(checked[partition], committed)
    return early
