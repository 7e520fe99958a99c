"""The replier without its guarantee: replies are sent and offsets committed in the background, unwaited for.

    python -m bench.careless -f kafka.config -t1 requests -t2 replies ...

The same loop, model and checks as `replier.py`; only `commit` returns at once. What its guarantee costs
is the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka import Message as Record

import replier
from imagebus import cli
from imagebus.transports import kafka
from imagebus.transports.base import Commit
from imagebus.transports.kafka.sender import produce
from imagebus.wire.message import Message


class CarelessTransport(kafka.KafkaTransport):
    """Loses what is on its way when the process is killed."""

    def begin_commit(self, received: Sequence[Message], outgoing: Sequence[Message] = ()) -> Commit:
        for message in outgoing:
            produce(self._sender.producer, message, _unheard)
        self._sender.producer.poll(0)
        ends = self._partitions.ends(message.receipt for message in received)
        offsets = [TopicPartition(self._topic, number, end) for number, end in ends.items()]
        self._subscribed().commit(offsets=offsets, asynchronous=True)
        done: Future[None] = Future()
        done.set_result(None)
        return done


def _unheard(_error: KafkaError | None, _record: Record) -> None:
    pass


if __name__ == "__main__":
    kafka.KafkaTransport = CarelessTransport  # type: ignore[misc]  # `connect` takes it from there
    cli.run(replier.main)
