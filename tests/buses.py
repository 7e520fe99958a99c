"""Topics of a test's own on the real broker, the scripts on them, and what the topics hold afterwards."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka import Message as Record

from imagebus import Client, connect
from imagebus.broker import EmbeddedBroker

from .programs import SECONDS, Program, python


class Bus:
    """Two topics of a test's own, and the scripts on them."""

    def __init__(self, config: Path, cloud: str = "kafka") -> None:
        name = uuid.uuid4().hex[:8]
        self.config = config
        self.cloud = cloud
        self.requests, self.replies = f"requests-{name}", f"replies-{name}"
        # A group of its own too: other tests run at the same time, and members of one group wait for each other.
        self.group = f"repliers-{name}" if cloud == "kafka" else "repliers"
        self._programs: list[Program] = []

    def options(self) -> list[str | Path]:
        return ["-f", self.config, "-t1", self.requests, "-t2", self.replies, "-c", self.cloud]

    def serving(self) -> list[str | Path]:
        """The options of a replier."""
        return [*self.options(), "--group", self.group]

    def start(self, script: str, *options: str) -> Program:
        ours = self.serving() if script == "replier.py" else self.options()
        program = python(script, *ours, *options)
        self._programs.append(program)
        return program

    def replier(self, *options: str) -> Program:
        replier = self.start("replier.py", *options)
        replier.wait_for(" ready: ")
        return replier

    def client(self) -> Client:
        bus = connect(self.cloud, self.config, topics=[self.requests, self.replies])
        return Client(bus, requests=self.requests, replies=self.replies, timeout=120)

    def close(self) -> None:
        for program in self._programs:
            program.kill()


def read_topic(bootstrap: str, topic: str) -> list[Record]:
    """Every committed record of a topic, from its beginning to its end, without a group."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,  # offsets alone do not tell: transactions leave marks between records
            "enable.auto.commit": False,
        }
    )
    found = []
    try:
        numbers = consumer.list_topics(topic, SECONDS).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers])
        unfinished = set(numbers)
        deadline = time.monotonic() + SECONDS
        while unfinished:
            assert time.monotonic() < deadline, f"{topic}: {unfinished} could not be read to their end"
            for record in consumer.consume(1000, 0.2):
                if record.error() is None:
                    found.append(record)
                else:  # the end of a partition comes as one
                    unfinished.discard(record.partition() or 0)
    finally:
        consumer.close()
    return found


def records(broker: EmbeddedBroker, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """Key and value of every committed record of a topic."""
    return [(record.key(), record.value()) for record in read_topic(broker.bootstrap, topic)]
