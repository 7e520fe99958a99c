"""The contenders: each is a function of the ground and the round that returns its figures.

On the backlog, `images_per_s` counts from the moment the contender has its partitions, when it has
taken nothing yet, to the moment the broker stores the last reply. `cpu_ms_per_1000` (images) is the CPU
time of its process in the same span, so that starting is left out; `ready_s` is from the start of the
process to that moment. `resident_mb` is read after the last reply.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.ground import PACKAGE, REQUESTS, Encode, Ground, fill, open_topics
from bench.program import BenchFailed, Program
from bench.replies import Outcome, Topic, check
from imagebus import Client, connect
from imagebus.images import SAMPLE
from imagebus.wire.pixels import encode_request

Figures = dict[str, float]
Contender = Callable[[Ground, int], Figures]

READY_LIMIT = 90.0  # seconds; sized for TensorFlow's import on a busy machine
BARE_LIMIT = 120.0  # seconds
BACKLOG_LIMIT = 120.0  # seconds; unanswered requests then count as lost
LOOK = 0.2  # seconds between two counts of the replies
WARM_UP = 50  # packages sent one at a time before those that count
OTHERWISE = 0.1  # of the packages, at most: those in which a label in floats is another one than in 8 bits


def said_ready(program: Program, _ground: Ground, _requests: str, _replies: str) -> float:
    """The time of a program's `ready:`, which it prints once it has its partitions."""
    return program.wait_for("ready:", READY_LIMIT)[0]


@dataclass(frozen=True)
class Server:
    """A program that answers requests from a topic: how to start it, and what it reads.

    `arguments` are the interpreter's, for ground, requests, replies and group. `wait_until_ready` returns the
    time when it was ready. One without a consumer group does not read earlier requests: it is frozen while
    its backlog is filled.
    """

    name: str
    arguments: Callable[[Ground, str, str, str], Sequence[str | Path]]
    python: Path = Path(sys.executable)
    encode: Encode = encode_request
    wait_until_ready: Callable[[Program, Ground, str, str], float] = said_ready
    reads_backlog: bool = True

    def start(self, ground: Ground, requests: str, replies: str, *, group: str) -> Program:
        """The server's process; end it by leaving its `with` block."""
        return Program(*self.arguments(ground, requests, replies, group), python=self.python)


def replier_command(ground: Ground, requests: str, replies: str, group: str) -> list[str]:
    """The command as a user types it, with nothing tuned."""
    bus = ["-f", str(ground.config), "-t1", requests, "-t2", replies, "-c", "kafka"]
    return ["replier.py", *bus, "--group", group, "--model", str(ground.model)]


def careless_command(*where: Any) -> list[str]:
    return ["-m", "bench.references.careless", *replier_command(*where)[1:]]


def loop_command(
    module: str, ground: Ground, requests: str, replies: str, group: str, keras: bool = False
) -> list[str | Path]:
    """A program of the bench's own; all of these take the same arguments."""
    model = ground.keras_model if keras else ground.model
    return ["-m", module, ground.bootstrap, requests, replies, group, model]


SERVERS = {
    server.name: server
    for server in (
        Server("replier", replier_command),
        Server("careless", careless_command),
        Server("careful-loop", partial(loop_command, "bench.references.careful_loop")),
        Server("keras-loop", partial(loop_command, "bench.references.keras_loop", keras=True)),
        Server("echo", partial(loop_command, "bench.references.echo")),
    )
}


def bare(batch: int, ground: Ground, _: int) -> Figures:
    """ONNX Runtime alone, on as many images as the backlog has."""
    images = str(ground.packages * PACKAGE)
    with Program("-m", "bench.references.bare", ground.model, SAMPLE, str(batch), images) as program:
        done = json.loads(program.wait_for("done:", BARE_LIMIT)[1])
    return {
        "images_per_s": done["images"] / done["seconds"],
        "cpu_ms_per_1000": done["cpu"] * 1e6 / done["images"],
    }


def backlog(server: Server, ground: Ground, round_number: int, limit: float = BACKLOG_LIMIT) -> Figures:
    """A server on the whole backlog: every request must have its one correct reply."""
    served = serve_backlog(server, ground, f"{server.name}-{round_number}", limit)
    outcome = served.outcome
    return served.figures | {
        "lost": ground.packages - outcome.distinct,
        "repeated": outcome.repeated,
        "wrong": outcome.wrong,
    }


def keras_loop(ground: Ground, round_number: int) -> Figures:
    """The loop that most people write, on as much of the backlog as it can serve in its time."""
    server = SERVERS["keras-loop"]
    served = serve_backlog(server, ground, f"{server.name}-{round_number}", ground.keras_seconds)
    if (
        served.outcome.wrong > 1 + OTHERWISE * served.outcome.distinct
    ):  # of few packages one may be such a one
        raise BenchFailed(f"{ground.keras_model.name} and {ground.model.name} are not the same network")
    return served.figures


def echo_alone(ground: Ground, round_number: int) -> Figures:
    """One package at a time to a loop without a model."""
    requests, replies = f"echo-{round_number}-requests", f"echo-{round_number}-replies"
    open_topics(ground, requests, replies)
    with Program("-m", "bench.references.echo", ground.bootstrap, requests, replies) as program:
        program.wait_for("ready:", READY_LIMIT)
        return one_at_a_time(ground, requests, replies)


def replier_alone(ground: Ground, round_number: int) -> Figures:
    """One package at a time to `replier.py`."""
    requests, replies = f"alone-{round_number}-requests", f"alone-{round_number}-replies"
    open_topics(ground, requests, f"{requests}.dlt", replies)
    with Program(*replier_command(ground, requests, replies, group="alone")) as program:
        ready_at, _ = program.wait_for("ready:", READY_LIMIT)
        return one_at_a_time(ground, requests, replies) | {"ready_s": ready_at - program.started}


# In the order of each round; `bench/peers` has a round of its own.
CONTENDERS: dict[str, Contender] = {
    "bare-100": partial(bare, 100),
    "bare-5": partial(bare, PACKAGE),
    "replier": partial(backlog, SERVERS["replier"]),
    "careless": partial(backlog, SERVERS["careless"]),
    "careful-loop": partial(backlog, SERVERS["careful-loop"]),
    "keras-loop": keras_loop,
    "echo-alone": echo_alone,
    "replier-alone": replier_alone,
}


@dataclass(frozen=True)
class Served:
    """The cost and the outcome of serving the backlog."""

    figures: Figures
    outcome: Outcome


def serve_backlog(server: Server, ground: Ground, name: str, limit: float) -> Served:
    """Let a server answer the backlog, for `limit` seconds at most, then end it and read its replies.

    `name` is that of its group and its topics.
    """
    requests = REQUESTS if server.reads_backlog else f"{name}-requests"
    open_topics(ground, *{name, requests})
    with Topic(ground.bootstrap, name) as topic:
        with server.start(ground, requests, name, group=name) as program:
            ready_at = begin_at = server.wait_until_ready(program, ground, requests, name)
            topic.skip()
            if not server.reads_backlog:
                with program.frozen():
                    fill(ground, requests, server.encode)
                begin_at = time.time()
            cpu_at_start = program.cpu_seconds()
            deadline = time.monotonic() + limit
            replies = 0
            while replies < ground.packages and time.monotonic() < deadline:
                program.check()
                time.sleep(LOOK)
                replies = topic.count()
            cpu = program.cpu_seconds() - cpu_at_start
            resident, most = program.resident_mb()
            tensorflow = program.has_loaded("libtensorflow")
        if not replies:
            raise BenchFailed(f"no reply on {name} in {limit:.0f} s")
        outcome = check(topic.read(), ground.is_correct)  # only now, so that the last repeats are in
    figures: Figures = {
        "images_per_s": outcome.distinct * PACKAGE / (outcome.last - begin_at),
        "cpu_ms_per_1000": cpu * 1e6 / (replies * PACKAGE),
        "ready_s": ready_at - program.started,
        "resident_mb": resident,
        "peak_mb": most,
        "tensorflow": float(tensorflow),
    }
    return Served(figures, outcome)


def one_at_a_time(
    ground: Ground, requests: str, replies: str, cloud: str = "kafka", config: Path | None = None
) -> Figures:
    """Milliseconds from the call of `Client.predict` to its return: the median and the 99th of 100."""
    seconds = []
    bus = connect(cloud, config or ground.config)
    with Client(bus, requests=requests, replies=replies) as client:
        for number in range(-WARM_UP, ground.singles):
            images = ground.package(number)
            started = time.perf_counter()
            client.predict(images)
            if number >= 0:
                seconds.append(time.perf_counter() - started)
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50_ms": float(p50) * 1000, "p99_ms": float(p99) * 1000}
