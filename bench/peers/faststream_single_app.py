"""FastStream with its Confluent broker, message by message, as its first pages show.

    python -m bench.peers.faststream_single_app BOOTSTRAP REQUESTS REPLIES GROUP MODEL

It follows "Publishing", "Using a Partition Key" and "Consuming Acknowledgements" (`AckPolicy.ACK`: the
offset of each message is committed after its reply) of https://faststream.ag2.ai/latest/confluent/ ; the
faster way, in batches, is in `faststream_app.py`.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker
from faststream.confluent.annotations import KafkaMessage

from bench.references.onnx_model import OnnxModel, encode_reply


def app(bootstrap: str, requests: str, replies: str, group: str, path: str) -> FastStream:
    model = OnnxModel(path)
    broker = KafkaBroker(bootstrap, allow_auto_create_topics=False, logger=None)
    publisher = broker.publisher(replies)
    subscriber = broker.subscriber(
        requests,
        group_id=group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK,
        session_timeout_ms=6000,
        on_assign=lambda *_: print("ready:", file=sys.stderr, flush=True),
    )

    @subscriber  # type: ignore[untyped-decorator]  # FastStream is not installed where types are checked
    async def serve(package: bytes, message: KafkaMessage) -> None:
        id = message.correlation_id
        await publisher.publish(encode_reply(id, model.predict([package])[0]), key=id.encode())

    return FastStream(broker, logger=None)


if __name__ == "__main__":
    logging.disable()
    asyncio.run(app(*sys.argv[1:]).run())
