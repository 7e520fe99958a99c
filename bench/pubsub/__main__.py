"""Measure the replier on Google's Pub/Sub emulator, beside the emulator's own ceiling and beside Kafka.

    python -m bench.pubsub [--rounds 3] [--packages 20000] [--singles 300]

The same packages, model and machine for all; one runs at a time, beside its warm bus.
"""

from __future__ import annotations

import argparse
import http.client
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

import orjson

from bench import contenders
from bench.contenders import BACKLOG_LIMIT, LOOK, READY_LIMIT, Figures
from bench.ground import PACKAGE, Ground, lay_ground
from bench.program import ROOT, BenchFailed, Program
from bench.table import cell, markdown
from imagebus import Message, cli, connect
from imagebus.broker import EmbeddedBroker, stop_on_signals
from imagebus.transports.pubsub.clients import EMULATOR
from imagebus.wire.pixels import encode_request
from tools.pubsub_emulator import PubSubEmulator, write_account

log = logging.getLogger("bench")

METRICS_PORT = 9464
WARM_UPS = 3  # backlogs that do not count
QUIET_SECONDS = 2.0  # without another reply: that was the last
_COUNT = re.compile(r"^imagebus_requests_total ([0-9.e+]+)$", re.M)


@dataclass(frozen=True)
class Cloud:
    """The emulator, and the ground that Kafka's contenders stand on as well."""

    ground: Ground
    account: Path

    def topics(self, *names: str) -> None:
        """Create topics before anything is timed."""
        connect("google", self.account, topics=names).close()

    def fill(self, topic: str) -> None:
        """The backlog, in a topic of its own: the emulator has no offsets to start anew from."""
        with connect("google", self.account, topics=[topic]) as bus:
            for number in range(self.ground.packages):
                images = self.ground.package(number)
                bus.publish(encode_request(images, topic, id=str(number)))

    def read(self, topic: str) -> list[Message]:
        """All that was sent to a topic."""
        found: list[Message] = []
        with connect("google", self.account, topics=[topic]) as bus:
            member = bus.join(topic, "bench")
            while received := member.receive(1000, QUIET_SECONDS):
                member.commit(received).result()
                found += received
        return found

    def command(self, requests: str, replies: str, program: str) -> list[str]:
        """The replier as a user types it, or the echo."""
        if program == "bench.pubsub.echo":
            return ["-m", program, str(self.account), requests, replies]
        bus = ["-f", str(self.account), "-t1", requests, "-t2", replies, "-c", "google"]
        return [program, *bus, "--model", str(self.ground.model), "--metrics-port", str(METRICS_PORT)]


def backlog(program: str, cloud: Cloud, number: int) -> Figures:
    """Images a second, from when the program is ready to when the emulator has the last reply."""
    requests, replies = f"{program}-{number}-requests", f"{program}-{number}-replies"
    cloud.fill(requests)
    cloud.topics(replies, f"{requests}.dlt")
    with Program(*cloud.command(requests, replies, program)) as running:
        ready_at, _ = running.wait_for("ready:", READY_LIMIT)
        deadline = time.monotonic() + BACKLOG_LIMIT
        while answered(running, program) < cloud.ground.packages:
            if time.monotonic() > deadline:
                raise BenchFailed(f"{program} did not answer the backlog in {BACKLOG_LIMIT:.0f} s")
            running.check()
            time.sleep(LOOK)
        resident, _ = running.resident_mb()
    found = cloud.read(replies)
    ids = {message.header("correlation_id") for message in found}
    last = max(message.position.timestamp for message in found if message.position) / 1000
    wrong = sum(not is_correct(cloud.ground, message) for message in found) if program == "replier.py" else 0
    return {
        "images_per_s": len(ids) * PACKAGE / (last - ready_at),
        "resident_mb": resident,
        "lost": cloud.ground.packages - len(ids),
        "repeated": len(found) - len(ids),
        "wrong": wrong,
    }


def warm_up(cloud: Cloud) -> None:
    """Let the emulator's JVM compile itself: its first 10,000 messages cost five times as much as later ones."""
    log.info("warming up the emulator")
    for number in range(-WARM_UPS, 0):
        backlog("bench.pubsub.echo", cloud, number)


def answered(running: Program, program: str) -> int:
    """How many requests were answered so far, at next to no cost for the machine."""
    try:
        if program != "replier.py":
            return int(running.wait_for("answered:", LOOK)[1])
        connection = http.client.HTTPConnection("127.0.0.1", METRICS_PORT, timeout=5)
        connection.request("GET", "/metrics")
    except (BenchFailed, ConnectionRefusedError):  # the replier is ready before its metrics are served
        return 0
    found = _COUNT.search(connection.getresponse().read().decode())
    return int(float(found[1])) if found else 0


def is_correct(ground: Ground, message: Message) -> bool:
    predictions = orjson.loads(message.value).get("predictions", [])
    number = int(message.header("correlation_id") or -1)
    return ground.is_correct(number, [each["label"] for each in predictions])


def alone(program: str, cloud: Cloud, number: int) -> Figures:
    """One package at a time."""
    requests, replies = f"{program}-alone-{number}-requests", f"{program}-alone-{number}-replies"
    cloud.topics(requests, replies, f"{requests}.dlt")
    with Program(*cloud.command(requests, replies, program)) as running:
        running.wait_for("ready:", READY_LIMIT)
        return contenders.one_at_a_time(cloud.ground, requests, replies, "google", cloud.account)


def on_kafka(contender: contenders.Contender, cloud: Cloud, number: int) -> Figures:
    return contender(cloud.ground, number)


BARE = "ONNX Runtime alone, batches of 100"
bare = partial(on_kafka, partial(contenders.bare, 100))
# Before and behind what is compared with it: the machine is not equally fast all the time.
CONTENDERS: dict[str, tuple[str, Callable[[Cloud, int], Figures]]] = {
    "kafka": ("replier.py on Kafka", partial(on_kafka, contenders.CONTENDERS["replier"])),
    "kafka-alone": ("replier.py on Kafka", partial(on_kafka, contenders.replier_alone)),
    "ceiling": ("the emulator without a model", partial(backlog, "bench.pubsub.echo")),
    "ceiling-alone": ("the emulator without a model", partial(alone, "bench.pubsub.echo")),
    "bare": (BARE, bare),
    "pubsub": ("**replier.py on the emulator**", partial(backlog, "replier.py")),
    "bare-again": (BARE, bare),
    "pubsub-alone": ("**replier.py on the emulator**", partial(alone, "replier.py")),
}


def render(rounds: dict[str, list[Figures]]) -> str:
    for name in ("bare", "bare-again", "kafka", "pubsub"):
        for ours, theirs in zip(rounds[name], rounds["ceiling"], strict=True):
            ours["of_ceiling"] = ours["images_per_s"] / theirs["images_per_s"]
    for ours, before, after in zip(rounds["pubsub"], rounds["bare"], rounds["bare-again"], strict=True):
        ours["of_bare"] = ours["images_per_s"] / mean((before["images_per_s"], after["images_per_s"]))
    titles = dict.fromkeys(title for title, _ in CONTENDERS.values())
    figures = (
        ("images_per_s", ",.0f"),
        ("of_ceiling", ".2f"),
        ("of_bare", ".2f"),
        ("p50_ms", ".1f"),
        ("p99_ms", ".1f"),
    )
    rows = []
    for title in titles:
        measured: list[Sequence[Figures]] = [
            rounds[n] for n, (each, _) in CONTENDERS.items() if each == title
        ]
        rows.append([title, *(cell(measured, figure, form) for figure, form in figures)])
    head = ["", "images/s", "of the emulator's", "of bare", "p50 ms", "p99 ms"]
    counts = {each: int(sum(r[each] for r in rounds["pubsub"])) for each in ("lost", "repeated", "wrong")}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    return "\n".join([*markdown(head, rows), "", f"- of the replier's replies on the emulator {said}"])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.pubsub", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=cli.positive, default=3, metavar="N")
    parser.add_argument("--packages", type=cli.positive, default=20_000, metavar="N", help="in the backlog")
    parser.add_argument("--singles", type=cli.positive, default=300, metavar="N", help="one at a time")
    args = parser.parse_args()
    cli.configure_logging(verbose=False)
    logging.getLogger("imagebus.transports").setLevel(logging.WARNING)  # not its lines about created topics
    broker = EmbeddedBroker(config={"log.message.timestamp.type": "LogAppendTime"})
    stop_on_signals(broker)
    log.info("starting Apache Kafka and the Pub/Sub emulator")
    with (
        broker,
        PubSubEmulator() as emulator,
        tempfile.TemporaryDirectory(prefix="imagebus-bench-") as folder,
    ):
        os.environ[EMULATOR] = emulator.host
        account = Path(folder) / "google.json"
        write_account(account, emulator.project)
        model = ROOT / "models" / "fashion.onnx"
        ground = lay_ground(
            broker.bootstrap,
            Path(folder),
            model,
            packages=args.packages,
            singles=args.singles,
            keras_seconds=0,
        )
        cloud = Cloud(ground, account)
        warm_up(cloud)
        rounds: dict[str, list[Figures]] = {name: [] for name in CONTENDERS}
        for number in range(1, args.rounds + 1):
            for name, (_, contender) in CONTENDERS.items():
                rounds[name].append(contender(cloud, number))
                shown = ", ".join(f"{figure} {value:,.4g}" for figure, value in rounds[name][-1].items())
                log.info(f"round {number} of {args.rounds}, {name}: {shown}")
    print(render(rounds))
    return 0


if __name__ == "__main__":
    cli.run(main)
