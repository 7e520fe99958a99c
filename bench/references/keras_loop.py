"""The loop that most people write: poll one, Keras `predict`, produce, flush.

    python -m bench.references.keras_loop BOOTSTRAP REQUESTS REPLIES GROUP MODEL

Where people differ, it takes the faster way: offsets are committed by librdkafka in the background,
and the model is warm before it starts. It serves until it is killed.
"""

from __future__ import annotations

import json
import sys

import keras
import numpy as np
from confluent_kafka import Consumer, Producer

LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def main(bootstrap: str, requests: str, replies: str, group: str, path: str) -> None:
    model = keras.models.load_model(path)
    model.predict(np.zeros((5, 28, 28), np.uint8), verbose=0)
    producer = Producer({"bootstrap.servers": bootstrap})
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([requests], on_assign=lambda *_: print("ready:", group, file=sys.stderr, flush=True))
    while True:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        images = np.frombuffer(message.value() or b"", np.uint8).reshape(-1, 28, 28)
        probabilities = model.predict(images, verbose=0)
        predictions = [
            {"label": LABELS[int(row.argmax())], "probability": float(row.max())} for row in probabilities
        ]
        producer.produce(replies, json.dumps({"predictions": predictions}), message.key())
        producer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
