"""FastStream with its Confluent broker: batches in, batches out, offsets after the replies.

    python -m bench.peers.faststream_app BOOTSTRAP REQUESTS REPLIES GROUP MODEL

It follows the pages "Batch Subscriber", "Publishing in Batches" (`KafkaPublishMessage` for a key of
each) and "Consuming Acknowledgements" (`AckPolicy.ACK` for at-least-once) of its Confluent guide,
https://faststream.ag2.ai/latest/confluent/
"""

from __future__ import annotations

import asyncio
import logging
import sys

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaPublishMessage
from faststream.confluent.annotations import KafkaMessage

from bench.references.onnx_model import OnnxModel, encode_reply

BATCH = 100  # packages
POLL = 0.005  # seconds until a batch that is not full is served as well: the least that a lone request waits


def app(bootstrap: str, requests: str, replies: str, group: str, path: str) -> FastStream:
    model = OnnxModel(path)
    broker = KafkaBroker(bootstrap, allow_auto_create_topics=False, logger=None, config={"max.in.flight": 1})

    subscriber = broker.subscriber(
        requests,
        group_id=group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK,
        batch=True,
        max_records=BATCH,
        polling_interval=POLL,
        session_timeout_ms=6000,
        on_assign=lambda *_: print("ready:", file=sys.stderr, flush=True),
    )

    @subscriber  # type: ignore[untyped-decorator]  # FastStream is not installed where types are checked
    async def serve(packages: list[bytes], message: KafkaMessage) -> None:
        answers = zip(message.batch_headers, model.predict(packages), strict=True)
        made = [(headers["correlation_id"], predictions) for headers, predictions in answers]
        messages = (
            KafkaPublishMessage(encode_reply(id, predictions), key=id.encode()) for id, predictions in made
        )
        await broker.publish_batch(*messages, topic=replies)

    return FastStream(broker, logger=None)


if __name__ == "__main__":
    logging.disable()
    asyncio.run(app(*sys.argv[1:]).run())
