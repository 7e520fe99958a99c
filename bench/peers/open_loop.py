"""Open-loop load: packages leave at scheduled times, whether or not the server keeps up.

    python -m bench.peers.open_loop BOOTSTRAP REQUESTS REPLIES FORMAT RATE SECONDS
    python -m bench.peers.open_loop BOOTSTRAP REQUESTS REPLIES FORMAT alone COUNT

Send times come from a Poisson process, as of independent callers, and latency counts from the scheduled
time, not from the actual one: a server that stalls is charged for the packages that wait. With `alone`, the
next package leaves when the last one was answered.

It is a process of its own on plain confluent-kafka, apart from the measured ones. `late_p99_ms` says how far
behind its schedule it sent, `cores` how much CPU time it took a second: its own share of the latencies.
"""

from __future__ import annotations

import gc
import json
import math
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, Producer

from bench.ground import PACKAGE, Encode
from bench.peers.mlserver import encode_request as encode_v2_request
from bench.replies import Topic
from imagebus import load_images
from imagebus.wire.pixels import encode_request

Seconds = npt.NDArray[np.float64]

FORMATS: dict[str, Encode] = {"raw": encode_request, "v2": encode_v2_request}
SEED = 2017
WARM_UP = 50  # packages sent one after the other, before those that count; without, the first wait for 0.8 s
PATIENCE = 15.0  # seconds without an answer until the rest counts as lost; a killed server is back in 10
ALONE_SECONDS = 10.0  # for packages sent alone; a slow server answers fewer of them
SHORT = 0.0005  # seconds; no thread waits longer for another (the default is 5 ms)


def schedule(rate: float, seconds: float) -> Seconds:
    """The send times, in seconds from the start: `rate` a second on average, the same each time."""
    pauses = np.random.default_rng(SEED).exponential(1 / rate, math.ceil(rate * seconds))
    moments: Seconds = np.cumsum(pauses)
    return moments


@dataclass(frozen=True)
class Measured:
    """The fate of the packages; NaN is the arrival of an answer that never came. Times in seconds."""

    intended: Seconds
    sent: Seconds
    arrived: Seconds

    def figures(self) -> dict[str, float]:
        """Percentiles in milliseconds. A package without an answer has waited until the end."""
        lost = np.isnan(self.arrived)
        end = np.nanmax(self.arrived) if not lost.all() else self.sent.max()
        latencies = np.where(lost, max(end, self.sent.max()), self.arrived) - self.intended
        p50, p99 = np.percentile(latencies, [50, 99]) * 1000
        late = np.percentile(self.sent - self.intended, 99) * 1000
        return {
            "packages": len(latencies) + WARM_UP,
            "unanswered": int(lost.sum()),
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "late_p99_ms": float(late),
        }


class Caller:
    """Sends numbered packages to `requests` and notes when their answers are there."""

    def __init__(self, bootstrap: str, requests: str, replies: str, encode: Encode) -> None:
        images = load_images().images
        starts = range(0, len(images) - PACKAGE + 1, PACKAGE)
        # Encoded once: each then gets only its own id, the first header of all formats.
        self._packages = [encode(images[i : i + PACKAGE], requests, id="0") for i in starts]
        self._requests = requests
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "max.in.flight": 1})
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "open-loop", "enable.auto.commit": False}
        )
        with Topic(bootstrap, replies) as topic:
            topic.skip()
            self._consumer.assign(topic.partitions)
        self._consumer.poll(0)

    def send(self, number: int) -> None:
        """Send package `number` now; the sample starts over at its end."""
        package = self._packages[number % len(self._packages)]
        id = b"%d" % number
        headers: list[tuple[str, str | bytes | None]] = [("correlation_id", id), *package.headers[1:]]
        self._producer.produce(self._requests, package.value, id, headers=headers)
        self._producer.poll(0)

    def answered(self, timeout: float) -> tuple[float, list[int]]:
        """The time of the next answers, and their packages; none after `timeout` seconds."""
        first = self._consumer.poll(timeout)
        if first is None:
            return time.perf_counter(), []
        arrived = time.perf_counter()
        records = [first, *self._consumer.consume(1000, 0)]
        return arrived, [int(record.key() or b"-1") for record in records if not record.error()]


def alone(caller: Caller, numbers: Iterable[int]) -> Measured:
    """One package after the other, each when the one before it was answered."""
    sent, arrived = [], []
    end = time.perf_counter() + ALONE_SECONDS
    for number in numbers:
        started = time.perf_counter()
        if started > end:
            break
        caller.send(number)
        answered: list[int] = []
        while number not in answered:
            when, answered = caller.answered(PATIENCE)
            if not answered:
                raise SystemExit(f"package {number} had no answer in {PATIENCE:.0f} s")
        sent.append(started)
        arrived.append(when)
    return Measured(np.array(sent), np.array(sent), np.array(arrived))


def open_loop(caller: Caller, moments: Seconds) -> Measured:
    """Send a package at each of the moments, and listen in another thread. The warm-up's numbers are taken."""
    arrived = np.full(len(moments), np.nan)
    sent = np.zeros(len(moments))
    all_sent = threading.Event()
    start = time.perf_counter() + 0.1

    def listen() -> None:
        waiting, last = len(moments), time.perf_counter()
        while waiting and (not all_sent.is_set() or time.perf_counter() < last + PATIENCE):
            when, numbers = caller.answered(0.2)
            for place in (number - WARM_UP for number in numbers):
                if place >= 0 and np.isnan(arrived[place]):
                    arrived[place] = when - start
                    waiting -= 1
            last = when if numbers else last

    listener = threading.Thread(target=listen)
    listener.start()
    for place, moment in enumerate(moments.tolist()):
        pause = start + moment - time.perf_counter()
        if pause > 0:
            time.sleep(pause)
        sent[place] = time.perf_counter() - start
        caller.send(WARM_UP + place)
    all_sent.set()
    listener.join()
    return Measured(moments, sent, arrived)


def main(bootstrap: str, requests: str, replies: str, form: str, rate: str, amount: str) -> None:
    sys.setswitchinterval(SHORT)
    caller = Caller(bootstrap, requests, replies, FORMATS[form])
    gc.disable()  # no reference cycles here, and a collection would be a pause
    alone(caller, range(WARM_UP))
    print("sending:", file=sys.stderr, flush=True)
    cpu, started = time.process_time(), time.perf_counter()
    if rate == "alone":
        measured = alone(caller, range(WARM_UP, WARM_UP + int(amount)))
    else:
        measured = open_loop(caller, schedule(float(rate), float(amount)))
    cores = (time.process_time() - cpu) / (time.perf_counter() - started)
    print("done:", json.dumps(measured.figures() | {"cores": cores}), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
