"""What a member of a consumer group knows of its partitions: their assignment, and progress in them.

The progress of a partition stays in the broker, in the metadata text of its committed offset:

    attempt=1   a member has the records from there on
    attempt=2   a member died with them, and a few of them are being tried at once
    attempt=3   two died, and the record there is being tried alone
    (empty)     no owner: the last member gave the partition back

So a record that kills its reader is found without a database, and it costs nothing until one dies. From the second
try on, the number is committed when the try begins and taken back when the model is done: a member that is killed
while it has nothing to do, or waits for the brokers, leaves no record one death nearer to its end.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from imagebus.transports.base import how_many

NOT_BEGUN = ""
# Records tried together after a first death: the up to 384 that a dead member had in hand take 16 batches, and the
# few that include the killer 24 more, one by one.
FEW = 24
_ATTEMPT = re.compile(r"attempt=([0-9]{1,3})")


def begun(attempt: int) -> str:
    """The metadata for the `attempt`th try of the record at the committed offset."""
    return f"attempt={attempt}"


def attempts_in(metadata: str | None) -> int:
    """How often the record at the committed offset was begun; 0 for another program's metadata."""
    found = _ATTEMPT.fullmatch(metadata or NOT_BEGUN)
    return int(found[1]) if found else 0


class Receipt(NamedTuple):
    """The place of a received message, and the assignment of its partition under which it came."""

    partition: int
    offset: int
    assignment: int


class Progress(NamedTuple):
    """What a group has committed for a partition: the offset of its next record, and the attempt."""

    offset: int
    metadata: str


@dataclass(slots=True)
class Partition:
    """One assigned partition. Offsets are those of the next record, as Kafka has them."""

    assignment: int
    position: int | None = None  # to be received; None until the first record shows it
    answered: int | None = None  # confirmed outcomes reach up to here
    remembered: Progress | None = None  # committed, and confirmed
    asked: Progress | None = None  # committed last, and not refused
    suspects: range = range(0)  # a member died with the first of these in hand, or one of the next
    deaths: int = 0  # with the first
    open: dict[int, None] = field(default_factory=dict)  # offsets given out, still without an outcome
    done: int = 0  # the offset after the last one that was given out and has an outcome

    def end(self, answered: set[int]) -> int:
        """How far the answers reach without a gap, once these offsets have one too."""
        done = max(self.done, max(answered) + 1)
        first_open = next((offset for offset in self.open if offset not in answered), done)
        return min(done, first_open)


@dataclass(slots=True)
class Partitions:
    """All assigned partitions of one topic, by number."""

    by_number: dict[int, Partition] = field(default_factory=dict)
    _assignments: int = 0

    def add(
        self, number: int, committed: int | None, metadata: str | None, end: int, *, is_new: bool = False
    ) -> None:
        """A partition was assigned, to be read from `committed` on; None if that could not be determined.

        `end` is the offset after the last record it has now. `is_new`: the group has committed nothing there yet.
        """
        self._assignments += 1
        partition = Partition(self._assignments, position=committed, answered=committed)
        deaths = attempts_in(metadata)
        if committed is not None:
            # Another program's metadata says nothing about the work.
            known = metadata if metadata and deaths else NOT_BEGUN
            partition.asked = Progress(committed, known)
            partition.remembered = None if is_new else partition.asked
        if committed is not None and deaths:
            partition.suspects, partition.deaths = range(committed, max(committed, end)), deaths
        self.by_number[number] = partition

    def forget_receipts(self, number: int) -> None:
        """A partition's records come again: a commit by their old receipts marks nothing as done."""
        self._assignments += 1
        partition = self.by_number[number]
        partition.assignment, partition.done = self._assignments, 0
        partition.open.clear()

    def unclaimed(self) -> dict[int, Progress]:
        """The partitions without an owner in the group's commits, and what to commit for them."""
        return {
            number: Progress(partition.answered, begun(1))
            for number, partition in list(self.by_number.items())
            if partition.answered is not None
            and (partition.asked is None or partition.asked.metadata == NOT_BEGUN)
        }

    def ahead(self, numbers: Iterable[int], *, given_back: bool) -> dict[int, Progress]:
        """Those of `numbers` whose confirmed outcomes are ahead of their commits."""
        ahead = {}
        for number in numbers:
            partition = self.by_number.get(number)
            if partition is None or partition.answered is None:
                continue
            asked = partition.asked
            if given_back:
                left = Progress(partition.answered, self._left_behind(partition, partition.answered))
                if asked != left or partition.remembered is None:
                    ahead[number] = left
            elif asked is None or asked.offset != partition.answered:
                ahead[number] = Progress(partition.answered, begun(1))
        return ahead

    @staticmethod
    def _left_behind(partition: Partition, answered: int) -> str:
        """The metadata of a partition that is given back: a suspect without an outcome stays one.

        The first keeps its deaths; one behind it, which was not alone, has one death.
        """
        if answered not in partition.suspects:
            return NOT_BEGUN
        return begun(partition.deaths if answered == partition.suspects[0] else 1)

    def ask(self, wanted: Mapping[int, Progress]) -> None:
        """This is being committed."""
        for number, progress in wanted.items():
            if (partition := self.by_number.get(number)) is not None:
                partition.asked = progress

    def confirm(self, number: int, progress: Progress, *, remembered: bool) -> None:
        """The group's answer to a commit. A refused one has to be repeated."""
        partition = self.by_number.get(number)
        if partition is None:
            return
        if remembered:
            partition.remembered = progress
        elif partition.asked == progress:
            partition.asked = partition.remembered

    def is_settled(self, wanted: Mapping[int, Progress]) -> bool:
        """Whether the group has answered: each commit is confirmed, refused, or no longer ours."""
        return all(
            (partition := self.by_number.get(number)) is None
            or partition.asked != progress
            or partition.remembered == progress
            for number, progress in wanted.items()
        )

    def remove(self, numbers: Iterable[int]) -> None:
        """These partitions are no longer ours: what was received from them cannot be committed any more."""
        for number in numbers:
            self.by_number.pop(number, None)

    def receive(self, number: int, offset: int) -> Receipt:
        """Note a received record."""
        partition = self.by_number.get(number)
        if partition is None:  # revoked while the record was on its way
            return Receipt(number, offset, 0)
        if partition.position is not None and offset < partition.position:
            # The topic was deleted and made again: what came before is not of this one.
            self.forget_receipts(number)
            partition.answered, partition.suspects = offset, range(0)
        partition.position = offset + 1
        partition.open[offset] = None
        self.see(number, offset)
        return Receipt(number, offset, partition.assignment)

    def see(self, number: int, offset: int) -> None:
        """Note a record. If the start of its partition is unknown, it is this one."""
        partition = self.by_number.get(number)
        if partition is not None and partition.answered is None:
            partition.answered = offset
            partition.asked = Progress(offset, NOT_BEGUN)

    def is_ours(self, receipt: Receipt) -> bool:
        """Whether the partition has been ours since the message was received."""
        partition = self.by_number.get(receipt.partition)
        return partition is not None and partition.assignment == receipt.assignment

    def ends(self, receipts: Iterable[Receipt]) -> dict[int, int]:
        """How far each partition that is still ours is answered, once these records are.

        A record given out before them without an outcome yet is not passed over.
        """
        return {
            number: partition.end(offsets)
            for number, offsets in self._offsets(receipts).items()
            if (partition := self.by_number.get(number)) is not None
        }

    def _offsets(self, receipts: Iterable[Receipt]) -> dict[int, set[int]]:
        """The offsets of the received records, for each partition that is still ours."""
        offsets: defaultdict[int, set[int]] = defaultdict(set)
        for receipt in receipts:
            if self.is_ours(receipt):
                offsets[receipt.partition].add(receipt.offset)
        return offsets

    def mark_answered(self, receipts: Sequence[Receipt], *, committed: bool) -> None:
        """Their outcomes exist, and with `committed`, their offsets are stored. Lost partitions are skipped."""
        for number, offsets in self._offsets(receipts).items():
            partition = self.by_number.get(number)
            if partition is None:
                continue
            end = partition.answered = partition.end(offsets)
            partition.done = max(partition.done, max(offsets) + 1)
            for offset in offsets:
                partition.open.pop(offset, None)
            if committed:
                partition.remembered = partition.asked = Progress(end, begun(1))

    def have_suspects(self, limit: int) -> bool:
        """Whether there are suspects. `limit` is the size of a batch."""
        for partition in list(self.by_number.values()):
            if partition.suspects:
                # The dead member had two batches for the model and one on its way to the brokers; or a few suspects.
                first, last = partition.suspects[0], partition.suspects[-1]
                in_hand = 3 * limit if partition.deaths == 1 else FEW
                partition.suspects = range(first, min(last + 1, first + in_hand))
                if (partition.answered or 0) > partition.suspects[-1]:
                    partition.suspects = range(0)
        return any(partition.suspects for partition in list(self.by_number.values()))

    def go_together(self, received: Sequence[tuple[int | None, int | None]], limit: int) -> list[int]:
        """The places of the received (partition, offset) pairs that are tried next, together.

        Suspects are never tried with other records: a killer takes as few with it as possible, and no other
        record waits long because of it. After one death a few are tried, after two in the same place one: an
        innocent record behind the suspect costs little, and the killer is alone at its third try. The first
        record decides whether it is the suspects' turn. No record overtakes another of its partition.
        """
        deaths = [self.deaths(*each) for each in received]
        suspicious = bool(deaths and deaths[0])
        chosen: list[int] = []
        held_up: set[int | None] = set()
        for place, (number, _) in enumerate(received):
            if suspicious:
                limit = how_many(deaths[place], limit, FEW)
            if bool(deaths[place]) != suspicious or number in held_up or len(chosen) >= limit:
                held_up.add(number)
            else:
                chosen.append(place)
        return chosen

    def deaths(self, number: int | None, offset: int | None) -> int:
        """How many members died with this record in hand, as far as it may be to blame."""
        partition = None if number is None else self.by_number.get(number)
        return partition.deaths if partition is not None and offset in partition.suspects else 0

    def attempt(self, number: int, offset: int) -> int:
        """How often this record has been tried, this time included."""
        partition = self.by_number.get(number)
        if partition is None or offset not in partition.suspects:
            return 1
        # One behind the first may have been in the same hands, but not alone, so it counts no more than this.
        return 1 + (partition.deaths if offset == partition.suspects[0] else min(partition.deaths, 2))
