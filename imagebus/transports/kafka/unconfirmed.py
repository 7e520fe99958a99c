"""Outcomes that the brokers do not confirm for long, while other requests go on.

Some partition of `replies` takes no writes: it has no leader, or fewer replicas in sync than its topic requires. Its
outcomes wait here, and are sent again whenever librdkafka gives them up. The offsets of their requests stay
uncommitted, so nothing is lost with this process; what was answered behind them is answered once more then.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from imagebus.transports.kafka.outgoing import OutgoingBatch
from imagebus.transports.kafka.partitions import Partitions, Receipt
from imagebus.transports.kafka.sender import Sender

log = logging.getLogger(__name__)

MOST_BYTES = 8_000_000  # of outcomes kept, as many as of prefetched requests
RESEND_SECONDS = 1.0  # between two tries of what has failed at once
WARN_SECONDS = 30.0  # between two warnings, as of other waits


class Unconfirmed:
    """The outcomes of one member's requests that are not confirmed yet. One thread at a time calls it."""

    def __init__(self, sender: Sender, partitions: Partitions) -> None:
        self._sender = sender
        self._partitions = partitions
        self._kept: list[tuple[OutgoingBatch, dict[int, Receipt]]] = []
        self._bytes = 0
        self._send_at = 0.0  # time.monotonic()
        self._warn_at = math.inf  # the same

    def __len__(self) -> int:
        return sum(len(receipts) for _, receipts in self._kept)

    @property
    def _full(self) -> bool:
        return self._bytes > MOST_BYTES

    def keep(self, batch: OutgoingBatch, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Keep what is missing of a batch, the outcomes of `receipts`; returns the receipts of the others."""
        missing = batch.missing()
        if not self._kept:
            log.warning(
                "outcomes for topic %s are not confirmed: does one of its partitions take no writes? "
                "Other requests go on",
                " and ".join(sorted({message.topic for message in missing.values()})),
            )
            self._warn_at = time.monotonic() + WARN_SECONDS
        self._kept.append((batch, {place: receipts[place] for place in missing}))
        self._bytes += sum(len(message.value) for message in missing.values())
        return [receipt for place, receipt in enumerate(receipts) if place not in missing]

    def settle(self, *, send_again: bool) -> tuple[list[Receipt], set[int]]:
        """What was confirmed meanwhile, and the partitions of which an outcome turned out to be too large.

        With `send_again`, what has failed is sent once more.
        """
        if not self._kept:
            return [], set()
        confirmed: list[Receipt] = []
        too_large: set[int] = set()
        kept, self._kept, self._bytes = self._kept, [], 0
        send_again = send_again and time.monotonic() >= self._send_at
        for batch, receipts in kept:
            too_large.update(
                receipts[place].partition
                for place in batch.too_large
                if place in receipts and self._partitions.is_ours(receipts[place])  # it goes back once
            )
            missing = batch.missing()
            confirmed += [receipt for place, receipt in receipts.items() if place not in missing]
            left = {
                place: receipt
                for place, receipt in receipts.items()
                if place in missing and self._partitions.is_ours(receipt)
            }
            if not left:
                batch.forget()
            else:
                self._kept.append((batch, left))
                self._bytes += sum(len(missing[place].value) for place in left)
                if batch.failures and send_again:
                    self._send_at = time.monotonic() + RESEND_SECONDS
                    batch.send_again(self._sender.send)
        if not self._kept:
            log.info("all outcomes are confirmed")
        elif time.monotonic() > self._warn_at:
            self._warn_at = time.monotonic() + WARN_SECONDS
            log.warning(
                "%d outcomes are still not confirmed%s",
                len(self),
                ": nothing new is read" if self._full else "",
            )
        return confirmed, too_large

    def held_up(self) -> set[int]:
        """The partitions of which nothing more may be given out for now.

        All that have missing outcomes, when there are too many. One with suspects, in any case: its committed offset,
        which would tell of the next try, stays at an outcome that is missing.
        """
        by_number = self._partitions.by_number
        return {
            number
            for number in {receipt.partition for _, receipts in self._kept for receipt in receipts.values()}
            if self._full or ((found := by_number.get(number)) is not None and found.suspects)
        }

    def give_up(self) -> None:
        """Forget them, and do not send them any more: their requests come again."""
        if self._kept:
            self._sender.purge()
            for batch, _ in self._kept:
                batch.forget()
            self._kept, self._bytes = [], 0
