"""What the group is asked to remember of its partitions, and what the brokers answered.

A commit's result is read inside a later poll. The synchronous commit is not used: it may never return
when the coordinator dies with it in hand, and no other call of the same consumer goes on meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from imagebus.errors import TransportError
from imagebus.transports.kafka.clients import DENIED, Clients, translate
from imagebus.transports.kafka.delivery import Finish
from imagebus.transports.kafka.partitions import NOT_BEGUN, Partitions, Progress

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


class UnderWay:
    """A commit that was begun. Whoever is first ends it: its caller, or a rebalance that cannot wait for that."""

    def __init__(self, lock: threading.RLock, finish: Finish) -> None:
        self._lock = lock
        self._finish: Finish | None = finish
        self._error: TransportError | None = None

    def end(self) -> None:
        """See `Commit.result`; but an error is kept for that."""
        with self._lock:
            finish, self._finish = self._finish, None
            if finish is not None:
                try:
                    finish()
                except TransportError as error:
                    self._error = error

    def result(self) -> None:
        """See `Commit.result`."""
        self.end()
        if self._error is not None:
            raise self._error


class Commits:
    """Asks for commits by one consumer, under `lock`: of two the later one has to be the newer one.

    None of its methods raises: what is refused is asked for again with the next, or by `ask_again`.
    """

    def __init__(self, clients: Clients, partitions: Partitions) -> None:
        self.lock = threading.RLock()  # the keeper's rebalance may come while the caller commits
        self._clients = clients
        self._partitions = partitions
        self._topic = ""
        self._consumer: Consumer | None = None
        self._refused = False  # something has to be asked for again

    def attach(self, consumer: Consumer | None, topic: str) -> None:
        """Ask through this consumer from now on; through none, nothing is asked any more."""
        self._consumer, self._topic = consumer, topic

    def commit_answered(self, numbers: Iterable[int] | None = None, *, given_back: bool = False) -> None:
        """Commit where confirmed outcomes are ahead of what the group remembers: in all partitions, or in these.

        With `given_back`, also that they are in nobody's hands any more.
        """
        numbers = list(self._partitions.by_number) if numbers is None else numbers
        self.commit(self._partitions.ahead(numbers, given_back=given_back))

    def commit(self, wanted: Mapping[int, Progress]) -> None:
        """Have the group remember this; `heard` gets the answer. To be called under the lock."""
        consumer = self._consumer
        if not wanted or consumer is None:
            return
        self._partitions.ask(wanted)
        named = [TopicPartition(self._topic, number, *progress) for number, progress in wanted.items()]
        try:
            consumer.commit(offsets=named, asynchronous=True)
        except KafkaException as error:
            self.heard(error.args[0], named)

    def heard(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """The brokers' answer to a commit. If this raised, what the poll around it brought would be lost."""
        refusal = error
        for each in partitions:
            refusal = refusal or each.error
            progress = Progress(each.offset, each.metadata or NOT_BEGUN)
            self._partitions.settle(each.partition, progress, remembered=(each.error or error) is None)
        if refusal is None:
            return
        self._refused = True
        code = refusal.code()
        if code in DENIED or refusal.fatal():
            self._clients.note(translate(refusal, "committing offsets"))
        elif code not in _NOT_OURS:
            log.warning("offsets not committed yet: %s", refusal.str())

    def ask_again(self) -> None:
        """What the group refused is not left to the next batch, which may be far."""
        if self._refused:
            with self.lock:
                self._refused = False
                self.commit_answered()
