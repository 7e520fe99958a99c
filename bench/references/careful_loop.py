"""The baseline, written by a careful person in an afternoon: batches, confirmed replies, offsets after them.

    python -m bench.references.careful_loop BOOTSTRAP REQUESTS REPLIES GROUP MODEL

As safe as the replier against a kill: a batch's offsets are committed once the broker has confirmed its replies,
while the model works on the next batch. It does nothing else: it checks no request, answers no broken one,
survives no failure of a broker, creates no topic, measures and logs nothing.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from bench.references.onnx_model import OnnxModel, encode_reply

BATCH = 100  # packages


def delivered(error: KafkaError | None, _: Message) -> None:
    if error:
        raise KafkaException(error)  # out of the flush


def main(bootstrap: str, requests: str, replies: str, group: str, path: str) -> None:
    model = OnnxModel(path)
    # No message waits for others, and those that come during a send go together in the next.
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 0, "max.in.flight": 1, "on_delivery": delivered}
    )
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "fetch.queue.backoff.ms": 20,  # else a full queue starves the loop for a second
        }
    )
    consumer.subscribe([requests], on_assign=lambda *_: print("ready:", file=sys.stderr, flush=True))

    def settle(batch: list[Message]) -> None:
        if producer.flush(30):
            raise TimeoutError("the broker did not confirm the replies")
        ends = {message.partition() or 0: (message.offset() or 0) + 1 for message in batch}
        offsets = [TopicPartition(requests, number, end) for number, end in ends.items()]
        consumer.commit(offsets=offsets, asynchronous=False)

    with ThreadPoolExecutor(1) as settler:
        settled: Future[None] | None = None
        while True:
            first = consumer.poll(1.0)
            batch = [first, *consumer.consume(BATCH - 1, 0)] if first else []
            batch = [message for message in batch if not message.error()]
            answers = model.predict([message.value() or b"" for message in batch]) if batch else []
            if settled:
                settled.result()  # raises its error
            for message, predictions in zip(batch, answers, strict=True):
                key = message.key() or b""
                producer.produce(replies, encode_reply(key.decode(), predictions), key)
            settled = settler.submit(settle, batch) if batch else None


if __name__ == "__main__":
    main(*sys.argv[1:])
