"""A member's book of its partitions: what was received and answered, and what the group was asked to remember.

Commits begin and end, and partitions are given back, behind one lock: a rebalance comes on whichever thread polls,
perhaps while the caller commits. Partitions are added and lost without it, and the brokers' answers to commits are
noted without it: whoever has the lock may be waiting for the rebalance, or hold it for long.

A commit's result is read inside a later poll. The synchronous commit is not used: it may never return
when the coordinator dies with it in hand, and no other call of the same consumer goes on meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from imagebus.transports.kafka.connecting import Connection
from imagebus.transports.kafka.delivery import Finish
from imagebus.transports.kafka.errors import DENIED, translate
from imagebus.transports.kafka.partitions import NOT_BEGUN, Partitions, Progress, Receipt, begun
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

# The group moved on without us: whoever has the partition now starts from the last commit.
_NOT_OURS = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError._NO_OFFSET,
        KafkaError._STATE,
    }
)

# Begins to deliver the outcomes at these places of a batch, with the offsets that they answer up to.
Deliver = Callable[[Sequence[int], Sequence[TopicPartition]], Finish]


class PendingCommit:
    """A commit that was begun. Whoever is first ends it: its caller, or a rebalance that cannot wait for that."""

    def __init__(self, lock: threading.RLock, finish: Finish, done: Callable[[], None]) -> None:
        self._lock = lock
        self._finish: Finish | None = finish
        self._done = done
        self._error: Exception | None = None

    def end(self) -> None:
        """See `Commit.result`; but an error is kept for that."""
        with self._lock:
            finish, self._finish = self._finish, None
            if finish is not None:
                try:
                    finish()
                # Also what `instead` raises: `result` raises it.
                except Exception as error:
                    self._error = error

    def result(self) -> None:
        """See `Commit.result`. Where it succeeded, `done` is called, on the caller's thread."""
        self.end()
        if self._error is not None:
            raise self._error
        self._done()


class Ledger:
    """What one member knows of its partitions, and asks its group to remember, through `attach`ed consumers.

    With `commits_offsets` they are committed by the delivery. Nothing here raises because of what the
    brokers answer: what is refused is asked for again with the next commit, or by `ask_again`.
    """

    def __init__(self, connection: Connection, topic: str, *, commits_offsets: bool) -> None:
        self._lock = threading.RLock()
        self._connection = connection
        self._topic = topic
        self._commits_offsets = commits_offsets
        self._partitions = Partitions()
        self._pending: PendingCommit | None = None  # the last commit that was begun
        self._consumer: Consumer | None = None
        self._commit_refused = False  # and not asked for again yet

    def attach(self, consumer: Consumer | None) -> None:
        """Ask through this consumer from now on; through none, nothing is asked any more."""
        self._consumer = consumer

    # --- partitions come and go ----------------------------------------------------------------

    def add(self, number: int, committed: int | None, metadata: str | None, end: int) -> None:
        """A partition was assigned: see `Partitions.add`. Without the lock, as `lost`."""
        self._partitions.add(number, committed, metadata, end)

    def knows(self, number: int) -> bool:
        """Whether this partition is ours."""
        return number in self._partitions.by_number

    def numbers(self) -> list[int]:
        """Which partitions are ours."""
        return sorted(self._partitions.by_number)

    def position(self, number: int) -> int | None:
        """The offset of the next record to be received; None where only the first one tells."""
        partition = self._partitions.by_number.get(number)
        return None if partition is None else partition.position

    def given_back(self, numbers: Sequence[int]) -> None:
        """End what is under way, and have the group remember that these partitions are in nobody's hands.

        They are ours until this returns: what is answered is committed, so that it is not repeated.
        """
        with self._lock:
            if self._pending is not None:
                self._pending.end()
            self._ask(self._partitions.ahead(numbers, given_back=True))
            self._partitions.remove(numbers)

    def close(self) -> None:
        """The same of all partitions, of what is answered by now; nothing is asked any more after `attach(None)`."""
        with self._lock:
            self._ask(self._partitions.ahead(self.numbers(), given_back=True))

    def lost(self, numbers: Sequence[int]) -> None:
        """They went to another member without our saying so: nothing is committed any more.

        Without the lock: who has it may be asking librdkafka for a commit, which waits until the rebalance that
        this is called from is over, and that for us.
        """
        self._partitions.remove(numbers)

    # --- records come --------------------------------------------------------------------------

    def receive(self, number: int, offset: int) -> tuple[Receipt, int]:
        """Note a received record; its receipt, and how often it is tried now."""
        return self._partitions.receive(number, offset), self._partitions.attempt(number, offset)

    def see(self, number: int, offset: int) -> None:
        """A record came that is not given out yet: see `Partitions.see`."""
        self._partitions.see(number, offset)

    def have_suspects(self, batch_size: int) -> bool:
        """Whether there is anything that a member died with."""
        return self._partitions.have_suspects(batch_size)

    def is_suspect(self, number: int | None, offset: int | None) -> bool:
        """Whether a member died with this record in its hands, perhaps because of it."""
        return self._partitions.deaths(number, offset) > 0

    def go_together(self, received: Sequence[tuple[int | None, int | None]], limit: int) -> list[int]:
        """What may be tried next: see `Partitions.go_together`."""
        return self._partitions.go_together(received, limit)

    # --- what the group is asked to remember ---------------------------------------------------

    def claim(self) -> Mapping[int, Progress]:
        """Ask for it to be remembered, before the first record of a new partition is tried, that somebody has it."""
        with self._lock:
            unclaimed = self._partitions.unclaimed()
            self._ask(unclaimed)
        return unclaimed

    def begin_suspects(self, messages: Iterable[Message]) -> Mapping[int, Progress]:
        """The same, before suspects are tried, of those; the next member reads it if we die of one."""
        begins: dict[int, Progress] = {}
        with self._lock:
            for message in messages:
                receipt: Receipt = message.receipt
                partition = self._partitions.by_number.get(receipt.partition)
                if partition is None or receipt.partition in begins or not self._partitions.is_ours(receipt):
                    continue  # of a partition the first one counts
                # Between the last answer and it there may be offsets without a record: a transaction's marker, or
                # what was compacted away. Noted in front of those, its deaths would never be counted.
                partition.answered = receipt.offset
                begins[receipt.partition] = Progress(receipt.offset, begun(message.attempt))
            self._ask(begins)
        return begins

    def is_settled(self, wanted: Mapping[int, Progress]) -> bool:
        """Whether the group has answered: see `Partitions.is_settled`."""
        return self._partitions.is_settled(wanted)

    def commit(
        self, receipts: Sequence[Receipt], deliver: Deliver, done: Callable[[], None]
    ) -> PendingCommit:
        """Begin a commit; `done` is called by its `result` where it succeeded.

        1. Leave out what is no longer ours: whoever has its partition now answers it.
        2. Deliver the outcomes; for exactly-once, the offsets with them.
        3. Note the next offset of each partition, and ask for the commit of those offsets. Where the group
           moved on or the coordinator is away they are asked for again: the outcomes exist, so at worst
           they are repeated, never lost.
        """
        with self._lock:
            ours = [place for place, receipt in enumerate(receipts) if self._partitions.is_ours(receipt)]
            answered = [receipts[place] for place in ours]
            ends = [
                TopicPartition(self._topic, number, end, begun(1))
                for number, end in self._partitions.ends(answered).items()
            ]
            end = partial(self._end_commit, answered, deliver(ours, ends))
            self._pending = PendingCommit(self._lock, end, done)
            return self._pending

    def _end_commit(self, answered: Sequence[Receipt], finish: Finish) -> None:
        finish()
        self._partitions.mark_answered(answered, committed=self._commits_offsets)
        self._ask(self._partitions.ahead(self.numbers(), given_back=False))

    def rewind(self, seek: Callable[[int, int], None]) -> None:
        """Go back in each partition to the first record without an outcome: `seek` gets its number and offset."""
        with self._lock:
            for number, partition in list(self._partitions.by_number.items()):
                if partition.answered is not None:
                    self._partitions.forget_receipts(number)
                    partition.position = partition.answered
                    seek(number, partition.answered)

    def correct(self, committed: Iterable[TopicPartition]) -> None:
        """What the brokers say is committed; after a transaction in doubt only they know how far it got."""
        with self._lock:
            for each in committed:
                partition = self._partitions.by_number.get(each.partition)
                if each.offset >= 0 and partition is not None:
                    partition.answered = each.offset
                    partition.remembered = partition.asked = Progress(each.offset, begun(1))

    def _ask(self, wanted: Mapping[int, Progress]) -> None:
        """Have the group remember this; `on_commit_result` gets the answer. To be called under the lock."""
        consumer = self._consumer
        if not wanted or consumer is None:
            return
        self._partitions.ask(wanted)
        named = [TopicPartition(self._topic, number, *progress) for number, progress in wanted.items()]
        try:
            consumer.commit(offsets=named, asynchronous=True)
        except KafkaException as error:
            self.on_commit_result(error.args[0], named)

    def on_commit_result(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """The brokers' answer to a commit. If this raised, what the poll around it brought would be lost."""
        refusal = error
        for each in partitions:
            refusal = refusal or each.error
            progress = Progress(each.offset, each.metadata or NOT_BEGUN)
            self._partitions.confirm(each.partition, progress, remembered=(each.error or error) is None)
        if refusal is None:
            return
        self._commit_refused = True
        code = refusal.code()
        if code in DENIED or refusal.fatal():
            self._connection.keep_failure(translate(refusal, "committing offsets"))
        elif code not in _NOT_OURS:
            log.warning("offsets not committed yet: %s", refusal.str())

    def ask_again(self) -> None:
        """What the group refused is not left to the next batch, which may be far."""
        if self._commit_refused:
            with self._lock:
                self._commit_refused = False
                self._ask(self._partitions.ahead(self.numbers(), given_back=False))
