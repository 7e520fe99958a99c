"""How the cost of an image grows with packages, repliers, partitions, backlog and requestors.

    python -m bench.growth [--images 100000] [--only packages,repliers,partitions,backlog,requestors]
                           [--longest 100000]

One broker, the shipped model, everything on the same cores. The repliers have joined and are frozen while their
backlog is filled, so that all of them start on it at once. Of the requestors, the cost is that of their process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.contenders import LOOK, READY_LIMIT
from bench.ground import PACKAGE
from bench.program import BenchFailed, Program
from bench.replies import Topic, check
from bench.run import some_of
from bench.table import markdown
from imagebus import cli, connect, load_images
from imagebus.broker import EmbeddedBroker, stop_on_signals
from imagebus.wire.pixels import encode_request

log = logging.getLogger("bench")

# A frozen member stays one for so long; the longest backlog takes minutes to fill.
SETTINGS = "session.timeout.ms = 1200000\nmax.poll.interval.ms = 1200000\n"
LIMIT = 1200.0  # seconds for a backlog
SERIES = ("packages", "repliers", "partitions", "backlog", "requestors")
REQUESTORS = (1, 2, 4, 8, 16)
REPLY_PARTITIONS = 16  # so that each requestor may have one


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    images: int = 5  # in a package
    repliers: int = 1
    partitions: int = 6
    packages: int = 20_000


@dataclass(frozen=True)
class Cost:
    """The cost of a case: of all repliers together, but the memory is that of the largest."""

    images_per_s: float
    cpu_ms_per_1000: float
    resident_mb: float
    lost: int
    repeated: int


def series(images: int, longest: int) -> dict[str, list[Case]]:
    """The cases by what grows in them; `images` are those of a backlog where the backlog does not grow."""
    standard = Case(packages=images // 5)
    lengths = [1000 * 10**power for power in range(4) if 1000 * 10**power <= longest]
    return {
        "packages": [replace(standard, images=each, packages=images // each) for each in (1, 5, 50, 500)],
        "repliers": [replace(standard, repliers=each) for each in (1, 2, 4)],
        "partitions": [replace(standard, partitions=each) for each in (1, 6, 48)],
        "backlog": [replace(standard, packages=each) for each in lengths],
    }


def measure(bootstrap: str, config: Path, case: Case, name: str) -> Cost:
    """Let the repliers answer the backlog, from their release until the broker has the last reply."""
    requests, replies = f"{name}-requests", f"{name}-replies"
    topics = (requests, replies, f"{requests}.dlt")
    connect("kafka", config, topics=topics, partitions=case.partitions).close()
    bus = ("-f", str(config), "-t1", requests, "-t2", replies, "-c", "kafka")
    with contextlib.ExitStack() as running, Topic(bootstrap, replies) as topic:
        programs = [running.enter_context(Program("replier.py", *bus)) for _ in range(case.repliers)]
        wait_until_shared(programs, case)
        with frozen(programs):
            fill(config, requests, case)
        began = time.time()
        cpu = -sum(each.cpu_seconds() for each in programs)
        while topic.count() < case.packages:
            if time.time() > began + LIMIT:
                raise BenchFailed(f"{case}: not answered in {LIMIT:.0f} s")
            for each in programs:
                each.check()
            time.sleep(LOOK)
        cpu += sum(each.cpu_seconds() for each in programs)
        resident = max(each.resident_mb()[1] for each in programs)
        outcome = check(topic.read(), lambda _, labels: len(labels) == case.images)
    images = case.packages * case.images
    return Cost(
        images_per_s=images / (outcome.last - began),
        cpu_ms_per_1000=cpu * 1e6 / images,
        resident_mb=resident,
        lost=case.packages - outcome.distinct,
        repeated=outcome.repeated,
    )


def measure_requestors(config: Path, count: int, packages: int, own: bool) -> list[str]:
    """A line of their table: so many requestors share one replier and the topic of its replies."""
    name = f"requestors-{count}{'-own' * own}"
    requests, replies = f"{name}-requests", f"{name}-replies"
    connect(
        "kafka", config, topics=(requests, replies, f"{requests}.dlt"), partitions=REPLY_PARTITIONS
    ).close()
    bus = ("-f", str(config), "-t1", requests, "-t2", replies, "-c", "kafka")
    arguments = [str(config), requests, replies, str(count), str(packages)] + ["own"] * own
    with Program("replier.py", *bus) as replier:
        replier.wait_for("ready:", READY_LIMIT)
        with Program("-m", "bench.growth.requestors", *arguments) as program:
            done = json.loads(program.wait_for("done:", LIMIT)[1])
            resident = program.resident_mb()[1]
    images = done["packages"] * PACKAGE
    return [
        f"{count}",
        "its own" if own else "all",
        f"{images / done['seconds']:,.0f}",
        f"{done['read'] / done['packages']:.1f}",
        f"{done['cpu'] * 1e6 / images:.1f}",
        f"{resident:.0f}",
    ]


def wait_until_shared(programs: list[Program], case: Case) -> None:
    """Wait until each has partitions, and no more than its share."""
    share = -(-case.partitions // case.repliers)
    for program in programs:
        count = 0
        while not 0 < count <= share:
            told = program.wait_for("partitions ", READY_LIMIT)[1]
            count = 0 if "none" in told else told.count(",") + 1


@contextlib.contextmanager
def frozen(programs: list[Program]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for each in programs:
            stack.enter_context(each.frozen())
        yield


def fill(config: Path, topic: str, case: Case) -> None:
    images = load_images().images
    package = np.resize(images, (case.images, 28, 28))
    with connect("kafka", config, topics=[topic]) as bus:
        for number in range(case.packages):
            bus.publish(encode_request(package, topic, id=str(number)))


def line(case: Case, cost: Cost) -> list[str]:
    counts = (case.images, case.repliers, case.partitions, case.packages)
    figures = f"{cost.images_per_s:,.0f}", f"{cost.cpu_ms_per_1000:.1f}", f"{cost.resident_mb:.0f}"
    return [*(f"{each:,}" for each in counts), *figures, f"{cost.lost}", f"{cost.repeated}"]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--images", type=cli.positive, default=100_000, metavar="N", help="in a backlog")
    parser.add_argument(
        "--longest", type=cli.positive, default=100_000, metavar="N", help="packages, of the longest backlog"
    )
    parser.add_argument("--only", type=some_of(SERIES), default=SERIES, metavar="A,B,...")
    args = parser.parse_args()
    cli.configure_logging(verbose=False)
    logging.getLogger("imagebus.transports").setLevel(logging.WARNING)  # not its lines about created topics
    broker = EmbeddedBroker()
    stop_on_signals(broker)
    with broker, tempfile.TemporaryDirectory(prefix="imagebus-bench-") as folder:
        config = Path(folder) / "kafka.config"
        config.write_text(f"bootstrap.servers = {broker.bootstrap}\n{SETTINGS}", encoding="utf-8")
        head = ["images in a package", "repliers", "partitions", "packages"]
        head += ["images/s", "CPU ms / 1,000", "peak MB", "lost", "repeated"]
        for what, cases in series(args.images, args.longest).items():
            if what in args.only:
                lines: list[list[str]] = []
                for case in cases:
                    cost = measure(broker.bootstrap, config, case, f"{what}-{len(lines)}")
                    lines.append(line(case, cost))
                    log.info("%s: %s: %s", what, case, cost)
                print("\n".join(markdown(head, lines)), end="\n\n", flush=True)
        if "requestors" in args.only:
            head = ["requestors", "read", "images/s", "replies read for each"]
            head += ["their CPU ms / 1,000", "peak MB"]
            lines = [
                measure_requestors(config, count, args.images // PACKAGE, own)
                for own in (False, True)
                for count in REQUESTORS
            ]
            print("\n".join(markdown(head, lines)), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main)
