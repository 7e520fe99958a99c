"""Quix Streams: a StreamingDataFrame that applies the model to each message and sends the result on.

    python -m bench.peers.quix_app BOOTSTRAP REQUESTS REPLIES GROUP MODEL

It follows the pages "Processing & Transforming Data", "Serialization" (`bytes`, its fastest) and
"Configuration" of https://quix.io/docs/quix-streams/ . Its guarantee, at-least-once by a checkpoint now
and then, is the default. It has batches for sinks and windows, but none between two topics.
"""

from __future__ import annotations

import sys
from typing import Any

from confluent_kafka import TopicPartition
from quixstreams import Application

from bench.references.onnx_model import OnnxModel, encode_reply


class AnnouncedApplication(Application):  # type: ignore[misc]  # not installed where types are checked
    """Says when it has its partitions, for which Quix Streams has no callback."""

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        super()._on_assign(consumer, partitions)
        print("ready:", file=sys.stderr, flush=True)


def main(bootstrap: str, requests: str, replies: str, group: str, path: str) -> None:
    model = OnnxModel(path)

    def answer(package: bytes, key: bytes, _timestamp: int, _headers: Any) -> bytes:
        return encode_reply(key.decode(), model.predict([package])[0])

    application = AnnouncedApplication(
        bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        consumer_extra_config={"session.timeout.ms": 6000},
        producer_extra_config={"linger.ms": 1},
        loglevel="ERROR",
    )
    source = application.topic(requests, value_deserializer="bytes")
    sink = application.topic(replies, value_serializer="bytes")
    application.dataframe(source).apply(answer, metadata=True).to_topic(sink)
    application.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
