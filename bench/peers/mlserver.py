"""MLServer with its Kafka server: the folder it is started on, its requests, and when it is ready.

It follows "Serving models through Kafka", "Adaptive Batching" and "MLServer Settings" of
https://docs.seldon.ai/mlserver . Its requests are the Open Inference Protocol's JSON, whose least costly
way to carry pixels is base64. It has no consumer group: it reads only requests sent after it is ready, and
does not report when that is. So it gets requests until it answers.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Sequence

from confluent_kafka import Producer

from bench.ground import Ground
from bench.program import BenchFailed, Program
from bench.replies import Topic
from imagebus.wire.envelope import V2_JSON
from imagebus.wire.message import Message
from imagebus.wire.pixels import Images

MODEL = "fashion"
READY_LIMIT = 60.0  # seconds
ASK = 0.25  # seconds for the answers to one request per partition, before they are re-sent
BATCH = {"max_batch_size": 100, "max_batch_time": 0.001}  # packages, seconds: its fastest
QUIET = {"version": 1, "loggers": {"mlserver": {"level": "WARNING"}, "mlserver.kafka": {"level": "WARNING"}}}


def arguments(ground: Ground, requests: str, replies: str, _group: str) -> Sequence[str]:
    """Write the folder that MLServer is started on, and give the interpreter's arguments."""
    folder = ground.config.parent / f"mlserver-{replies}"
    folder.mkdir(exist_ok=True)
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": free_port(),
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,  # in its own process: for one small model faster than in another
        "logging_settings": QUIET,
        "kafka_enabled": True,
        "kafka_servers": ground.bootstrap,
        "kafka_topic_input": requests,
        "kafka_topic_output": replies,
    }
    model = {
        "name": MODEL,
        "implementation": "bench.peers.mlserver_model.Classifier",
        "parameters": {"uri": str(ground.model)},
        **BATCH,
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return ["-c", "from mlserver.cli import main; main()", "start", str(folder)]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def encode_request(images: Images, topic: str, *, id: str) -> Message:
    """A package as the Open Inference Protocol's JSON; the record's key is the request id."""
    data = base64.b64encode(images.tobytes()).decode()
    package = {"name": "images", "shape": [1, images.nbytes], "datatype": "BYTES", "data": [data]}
    headers = [("correlation_id", id.encode()), ("mlserver-model", MODEL.encode())]
    headers.append(("content-type", V2_JSON.encode()))
    return Message(topic, json.dumps({"inputs": [package]}).encode(), key=id.encode(), headers=headers)


def wait_until_ready(program: Program, ground: Ground, requests: str, replies: str) -> float:
    """Send requests to each partition of `requests` until all are answered; returns the time of the last answer."""
    producer = Producer({"bootstrap.servers": ground.bootstrap, "linger.ms": 0})
    partitions = producer.list_topics(requests, timeout=10).topics[requests].partitions
    deadline = time.monotonic() + READY_LIMIT
    with Topic(ground.bootstrap, replies) as topic:
        while time.monotonic() < deadline:
            topic.skip()
            question = encode_request(ground.package(0), requests, id="-1")
            headers: list[tuple[str, str | bytes | None]] = list(question.headers)
            for partition in partitions:
                producer.produce(requests, question.value, question.key, partition, headers=headers)
            producer.flush(10)
            asked = time.monotonic()
            while time.monotonic() < asked + ASK:
                program.check()
                if topic.count() >= len(partitions):
                    return time.time()
                time.sleep(0.01)
    raise BenchFailed(f"MLServer answered nothing in {READY_LIMIT:.0f} s")
