"""The replier without its guarantee: it sends replies and commits offsets in the background, without waiting.

    python -m bench.references.careless -f kafka.config -t1 requests -t2 replies ...

The same loop, model and checks as `replier.py`; only `commit` returns at once. The difference is the
cost of the guarantee.
"""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as Record

import replier
from imagebus import cli
from imagebus.transports.base import Instead
from imagebus.transports.kafka import bus
from imagebus.transports.kafka.delivery import AtLeastOnce, Finish, FinishBy, nothing_left
from imagebus.transports.kafka.sender import produce
from imagebus.wire.message import Message


class Careless(AtLeastOnce):
    """Loses unconfirmed messages when the process is killed."""

    def begin(
        self,
        outgoing: Sequence[Message],
        _ends: Sequence[TopicPartition],
        _consumer: Consumer,
        _finish_by: FinishBy,
        _instead: Instead | None,
        /,
    ) -> Finish:
        for message in outgoing:
            produce(self._sender.producer, message, _unheard)
        self._sender.producer.poll(0)
        return nothing_left


def _unheard(_error: KafkaError | None, _record: Record | None) -> None:
    pass


if __name__ == "__main__":
    vars(bus)["AtLeastOnce"] = Careless  # `KafkaBus` takes it from there
    cli.run(replier.main)
