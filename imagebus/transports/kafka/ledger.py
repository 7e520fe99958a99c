"""A member's book of its partitions: what was received, answered and committed.

Commits and giving partitions back take one lock, because a rebalance runs on any thread that polls, perhaps while the
caller commits. Adding and losing partitions, and the brokers' answers to commits, do not take it: its holder may be
waiting for the rebalance, or hold it for long.

A commit's result arrives in a later poll. The synchronous commit is not used: it may never return if the
coordinator dies during the call, and blocks every other call of the same consumer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from imagebus.transports.kafka.connecting import Connection
from imagebus.transports.kafka.delivery import Finish
from imagebus.transports.kafka.errors import DENIED, translate
from imagebus.transports.kafka.partitions import NOT_BEGUN, Partitions, Progress, Receipt, begun
from imagebus.transports.kafka.sender import Sender
from imagebus.transports.kafka.unconfirmed import Unconfirmed
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

# The group moved on without us: the partition's new owner starts from the last commit.
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

# Begins to deliver the outcomes at these places of a batch, with the offsets they answer up to.
Deliver = Callable[[Sequence[int], Sequence[TopicPartition]], Finish]


class PendingCommit:
    """A commit in progress. Its caller ends it, or a rebalance, which cannot wait for the caller."""

    def __init__(self, lock: threading.RLock, finish: Finish, done: Callable[[], None]) -> None:
        self._lock = lock
        self._finish: Finish | None = finish
        self._done = done
        self._error: Exception | None = None

    def end(self) -> None:
        """As `Commit.result`, but keeps an error for it."""
        with self._lock:
            finish, self._finish = self._finish, None
            if finish is not None:
                try:
                    finish()
                # Also what `instead` raises: `result` raises it.
                except Exception as error:
                    self._error = error

    def result(self) -> None:
        """See `Commit.result`. On success, calls `done` on the caller's thread."""
        self.end()
        if self._error is not None:
            raise self._error
        self._done()


class Ledger:
    """What one member knows of its partitions and commits, through `attach`ed consumers.

    With `commits_offsets`, the delivery commits the offsets. Nothing here raises because of the brokers'
    answers: what they refuse is committed again with the next batch, or by `ask_again`.
    """

    def __init__(self, connection: Connection, sender: Sender, topic: str, *, commits_offsets: bool) -> None:
        self._lock = threading.RLock()
        self._connection = connection
        self._topic = topic
        self._commits_offsets = commits_offsets
        self._partitions = Partitions()
        self._unconfirmed = Unconfirmed(sender, self._partitions)
        self._pending: PendingCommit | None = None  # the last one
        self._consumer: Consumer | None = None
        # A transaction failed: only the brokers know how far it got, and an offset of ours could go behind that.
        self._in_doubt = False
        self._commit_refused = False  # and not repeated yet

    def attach(self, consumer: Consumer | None) -> None:
        """Commit through this consumer from now on; without one, nothing is committed any more."""
        self._consumer = consumer

    # --- partitions come and go ----------------------------------------------------------------

    def add(
        self, number: int, committed: int | None, metadata: str | None, end: int, *, is_new: bool = False
    ) -> None:
        """A partition was assigned: see `Partitions.add`. Without the lock, as `lost`."""
        self._partitions.add(number, committed, metadata, end, is_new=is_new)

    def unknown(self) -> list[int]:
        """Those of our partitions whose committed offset was not known when they were assigned."""
        return [number for number in self.numbers() if self._partitions.by_number[number].answered is None]

    def remembered(self) -> list[int]:
        """Those of our partitions for which the group has a committed offset."""
        by_number = self._partitions.by_number
        return [number for number in self.numbers() if by_number[number].remembered is not None]

    def numbers(self) -> list[int]:
        """Which partitions are ours."""
        return sorted(self._partitions.by_number)

    def position(self, number: int) -> int | None:
        """The offset of the next record to be received; None until the first one shows it."""
        partition = self._partitions.by_number.get(number)
        return None if partition is None else partition.position

    def given_back(self, numbers: Sequence[int]) -> None:
        """End the commit in progress, and commit that these partitions have no owner.

        They are ours until this returns: what is answered is committed, so that it is not repeated.
        """
        with self._lock:
            if self._pending is not None:
                self._pending.end()
            self._settle(send_again=False)
            self._ask(self._partitions.ahead(numbers, given_back=True))
            self._partitions.remove(numbers)

    def close(self) -> Mapping[int, Progress]:
        """The same for all partitions, as far as they are answered; `attach(None)` ends it for good.

        Returns what is being committed, nothing once all is. In a rebalance the group refuses it: then call this again.
        """
        with self._lock:
            if self._pending is not None and self._commits_offsets:  # it is complete, or in doubt
                self._pending.end()
            self._settle(send_again=False)
            left = self._partitions.ahead(self.numbers(), given_back=True)
            self._ask(left)
            return {} if self._in_doubt else left

    def lost(self, numbers: Sequence[int]) -> None:
        """They went to another member without being given back: nothing is committed any more.

        Without the lock: its holder may be in a commit that waits for the end of the rebalance that calls this.
        """
        self._partitions.remove(numbers)

    # --- records come --------------------------------------------------------------------------

    def receive(self, number: int, offset: int) -> tuple[Receipt, int]:
        """Note a received record; returns its receipt and its attempt."""
        return self._partitions.receive(number, offset), self._partitions.attempt(number, offset)

    def see(self, number: int, offset: int) -> None:
        """Note a record that is not given out yet: see `Partitions.see`."""
        self._partitions.see(number, offset)

    def have_suspects(self, batch_size: int) -> bool:
        """Whether there are suspects."""
        return self._partitions.have_suspects(batch_size)

    def is_suspect(self, number: int | None, offset: int | None) -> bool:
        """Whether a member died with this record in hand, perhaps because of it."""
        return self._partitions.deaths(number, offset) > 0

    def go_together(self, received: Sequence[tuple[int | None, int | None]], limit: int) -> list[int]:
        """The places that may be tried next: see `Partitions.go_together`."""
        return self._partitions.go_together(received, limit)

    # --- committing ----------------------------------------------------------------------------

    def claim(self) -> Mapping[int, Progress]:
        """Commit that new partitions have an owner, before their first record is tried."""
        with self._lock:
            unclaimed = self._partitions.unclaimed()
            self._ask(unclaimed)
        return unclaimed

    def begin_suspects(self, messages: Iterable[Message]) -> Mapping[int, Progress]:
        """The same for suspects, before they are tried; if one kills us, the next member reads it."""
        begins: dict[int, Progress] = {}
        with self._lock:
            for message in messages:
                receipt: Receipt = message.receipt
                partition = self._partitions.by_number.get(receipt.partition)
                if partition is None or receipt.partition in begins or not self._partitions.is_ours(receipt):
                    continue  # the first one of a partition counts
                # Offsets without a record may lie before it: a transaction's marker, or compacted records. Noted in
                # front of those, its deaths would never be counted.
                partition.answered = receipt.offset
                begins[receipt.partition] = Progress(receipt.offset, begun(message.attempt))
            self._ask(begins)
        return begins

    def end_suspects(self, messages: Iterable[Message]) -> Mapping[int, Progress]:
        """They survived: the model is done with them. Whoever dies from here on did not die of them."""
        ends: dict[int, Progress] = {}
        with self._lock:
            for message in messages:
                receipt: Receipt = message.receipt
                if receipt.partition not in ends and self._partitions.is_ours(receipt):
                    ends[receipt.partition] = Progress(receipt.offset, begun(message.attempt - 1))
            self._ask(ends)
        return ends

    def is_settled(self, wanted: Mapping[int, Progress]) -> bool:
        """Whether the group has answered: see `Partitions.is_settled`."""
        return self._partitions.is_settled(wanted)

    def commit(
        self, receipts: Sequence[Receipt], deliver: Deliver, done: Callable[[], None]
    ) -> PendingCommit:
        """Begin a commit; its `result` calls `done` on success.

        1. Leave out what is no longer ours: the partition's new owner answers it.
        2. Deliver the outcomes; for exactly-once, the offsets with them.
        3. Note the next offset of each partition, and commit those offsets. Where the group moved on or the
           coordinator is away, they are committed later: the outcomes exist, so at worst they are repeated,
           never lost.
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
        self._in_doubt = self._commits_offsets
        left = finish()
        self._in_doubt = False
        if left is not None:
            answered = self._unconfirmed.keep(left, answered)
        self._partitions.mark_answered(answered, committed=self._commits_offsets)
        self._ask(self._partitions.ahead(self.numbers(), given_back=False))

    @property
    def unconfirmed(self) -> int:
        """How many outcomes are kept since the brokers do not confirm them."""
        return len(self._unconfirmed)

    def settle(self) -> set[int]:
        """Commit what was confirmed behind its batch; returns the partitions that have to go back: see `rewind`."""
        with self._lock:
            return self._settle(send_again=True)

    def _settle(self, *, send_again: bool) -> set[int]:
        confirmed, back = self._unconfirmed.settle(send_again=send_again)
        if confirmed:
            self._partitions.mark_answered(confirmed, committed=False)
            self._ask(self._partitions.ahead(self.numbers(), given_back=False))
        return back

    def held_up(self) -> set[int]:
        """The partitions of which nothing more may be given out for now: see `Unconfirmed.held_up`."""
        with self._lock:
            return self._unconfirmed.held_up()

    def rewind(self, seek: Callable[[int, int], None], only: Container[int] | None = None) -> None:
        """Go back in each partition to the first record without an outcome: `seek` gets its number and offset.

        In all of them, or in `only` these.
        """
        with self._lock:
            if only is None:
                self._unconfirmed.give_up()
            for number, partition in list(self._partitions.by_number.items()):
                if partition.answered is not None and (only is None or number in only):
                    self._partitions.forget_receipts(number)
                    partition.position = partition.answered
                    seek(number, partition.answered)

    def correct(self, committed: Iterable[TopicPartition]) -> None:
        """Take over what the brokers have committed; after a transaction in doubt, only they know."""
        with self._lock:
            self._in_doubt = False
            for each in committed:
                partition = self._partitions.by_number.get(each.partition)
                if each.offset >= 0 and partition is not None:
                    partition.answered = each.offset
                    partition.remembered = partition.asked = Progress(each.offset, begun(1))

    def _ask(self, wanted: Mapping[int, Progress]) -> None:
        """Commit this; `on_commit_result` gets the answer. To be called under the lock."""
        consumer = self._consumer
        if not wanted or consumer is None or self._in_doubt:
            return
        self._partitions.ask(wanted)
        named = [TopicPartition(self._topic, number, *progress) for number, progress in wanted.items()]
        try:
            consumer.commit(offsets=named, asynchronous=True)
        except KafkaException as error:
            self.on_commit_result(error.args[0], named)

    def on_commit_result(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """The brokers' answer to a commit. Must not raise: the poll around it would lose its record."""
        refusal = error
        for each in partitions:
            refusal = refusal or each.error
            progress = Progress(each.offset, each.metadata or NOT_BEGUN)
            self._partitions.confirm(each.partition, progress, remembered=(each.error or error) is None)
        if refusal is None:
            return
        self._commit_refused = True
        code = refusal.code()
        if code == KafkaError._FATAL:
            return  # a poll has the cause
        if code in DENIED or refusal.fatal():
            self._connection.keep_failure(translate(refusal, "committing offsets"))
        elif code not in _NOT_OURS:
            log.warning("offsets not committed yet: %s", refusal.str())

    def ask_again(self) -> None:
        """Repeat a refused commit now: the next batch may be far off."""
        if self._commit_refused:
            with self._lock:
                self._commit_refused = False
                self._ask(self._partitions.ahead(self.numbers(), given_back=False))
