"""Send packages of images on a timer, and print the predictions that come back.

    python3 requestor.py -f kafka.config -t1 requests -t2 replies -c kafka

Each package travels with its SHA-256 under an id of its own. Ctrl-C ends it with the summary.
"""

from __future__ import annotations  # names of the package stay unloaded until they are used

import argparse
import json
import math
import queue
import statistics
import sys
import time
import uuid
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import imagebus
from imagebus import cli
from imagebus.errors import RequestTimeout

WAITING_SECONDS = 2.0  # a replier answers in milliseconds, so after this there is probably none
LISTEN_SECONDS = 0.5  # between two looks at the clock while nothing comes
MAX_OPEN = 1000  # packages sent and unanswered, however short the interval


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    what = parser.add_argument_group("packages")
    what.add_argument("--images", metavar="PATH", help="folder of PNG/JPEG, or .npz; else the shipped sample")
    what.add_argument("--batch-size", type=cli.positive, default=5, metavar="N", help="images in one package")
    what.add_argument(
        "--interval", type=cli.duration, default=1.0, metavar="S", help="seconds between packages"
    )
    what.add_argument("--count", type=cli.count, default=0, metavar="N", help="packages to send; 0 for ever")
    what.add_argument(
        "--timeout", type=cli.time_limit, default=30.0, metavar="S", help="seconds until a package is lost"
    )
    what.add_argument(
        "--state", metavar="DIR", help="remember open packages there, and ask for them again after a kill"
    )
    what.add_argument(
        "--own-partition",
        action="store_true",
        help="have the replies sent to one partition, and read no other",
    )
    out = parser.add_argument_group("output")
    out.add_argument("--top", type=cli.positive, default=1, metavar="N", help="labels printed for each image")
    out.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args()


@dataclass(frozen=True)
class Package:
    """One package on its way: what was asked, what is true, and the future of its reply."""

    asked: imagebus.OpenPackage
    reply: Future[imagebus.Reply]

    @property
    def number(self) -> int:
        return self.asked.number

    @property
    def truths(self) -> tuple[str, ...] | None:
        return self.asked.truths


@dataclass
class Summary:
    """What became of all packages."""

    sent: int = 0
    failed: int = 0
    lost: int = 0
    right: int = 0
    judged: int = 0  # images whose truth is known
    round_trips: list[float] = field(default_factory=list)  # seconds, of the answered packages

    @property
    def answered(self) -> int:
        return len(self.round_trips)

    @property
    def open(self) -> int:
        return self.sent - self.answered - self.failed - self.lost

    def __str__(self) -> str:
        counts = f"sent {self.sent}, answered {self.answered}, failed {self.failed}, lost {self.lost}"
        lines = [f"{counts}, open {self.open}" if self.open else counts]
        if self.judged:
            lines.append(f"accuracy {self.right / self.judged:.1%} of {self.judged} images")
        if self.answered > 1:
            percentiles = statistics.quantiles(self.round_trips, n=100, method="inclusive")
            lines.append(
                f"round trip p50 {percentiles[49] * 1000:.1f} ms, p99 {percentiles[98] * 1000:.1f} ms"
            )
        return "\n".join(lines)


def main() -> int:
    args = options()
    cli.configure_logging(verbose=args.verbose)

    if args.replies == args.requests:
        raise imagebus.ConfigError(f"-t2 {args.replies}: the replies need a topic of their own")
    image_set = imagebus.load_images(args.images) if args.images else imagebus.load_images()
    state = imagebus.OpenPackages(args.state) if args.state else None
    topics = (args.requests, args.replies)
    transport = imagebus.connect(
        args.cloud,
        args.config,
        topics=topics,
        partitions=args.partitions,
        own_partition=args.own_partition,
    )
    summary = Summary()
    try:
        with imagebus.Client(
            transport, requests=args.requests, replies=args.replies, timeout=args.timeout
        ) as client:
            exchange(client, image_set, state, args, summary)
    finally:  # also when the bus fails
        print(summary, file=sys.stderr if args.json else sys.stdout, flush=True)
    return 0 if not summary.failed and not summary.lost else cli.EXIT_FAILED


def exchange(
    client: imagebus.Client,
    images: imagebus.ImageSet,
    state: imagebus.OpenPackages | None,
    args: argparse.Namespace,
    summary: Summary,
) -> None:
    """Send each package when its time has come, print each outcome when it comes."""
    show = as_json if args.json else as_text
    finished: queue.SimpleQueue[Package | None] = queue.SimpleQueue()  # None: stop
    cli.on_stop_signal(lambda: finished.put(None))

    def send(asked: imagebus.OpenPackage) -> None:
        summary.sent += 1
        package = Package(asked, client.submit(asked.images, top=args.top, id=asked.id))
        package.reply.add_done_callback(partial(announce, finished, package))

    left_open = state.load() if state else []
    for asked in left_open:
        send(asked)
    number = max((asked.number for asked in left_open), default=0)
    last = len(left_open) + (args.count or math.inf)
    next_send = silent_since = time.monotonic()
    waiting = False  # it was said, and nothing came since
    while summary.sent < last or summary.open:
        now = time.monotonic()
        if summary.sent < last and now >= next_send and summary.open < MAX_OPEN:
            if not summary.open:
                silent_since = now
            pixels, truths = images.package(number, args.batch_size)
            number += 1
            asked = imagebus.OpenPackage(str(uuid.uuid4()), number, pixels, truths)
            if state:
                state.add(asked)
            send(asked)
            next_send += args.interval
            continue
        if summary.open and not waiting and now - silent_since > WAITING_SECONDS:
            print(f"waiting for a replier on topic {args.requests}", file=sys.stderr, flush=True)
            waiting = True
        try:
            done = finished.get(timeout=min(LISTEN_SECONDS, max(0.0, next_send - now) or LISTEN_SECONDS))
        except queue.Empty:
            continue
        if done is None:
            return
        if client.failure is not None and done.reply.exception() is client.failure:
            raise client.failure  # no outcome of this package: it stays in `state`
        silent_since, waiting = time.monotonic(), False
        judge(done, summary)
        print(show(done, args.top), flush=True)
        if state:
            state.remove(done.asked.id)


def announce(
    finished: queue.SimpleQueue[Package | None], package: Package, _: Future[imagebus.Reply]
) -> None:
    """Hand a package with an outcome from the client's thread to the loop that prints it."""
    finished.put(package)


def judge(package: Package, summary: Summary) -> None:
    """Count one package's outcome."""
    error = package.reply.exception()
    if isinstance(error, RequestTimeout):
        summary.lost += 1
    elif error is not None:
        summary.failed += 1
    else:
        reply = package.reply.result()
        summary.round_trips.append(reply.round_trip)
        if package.truths is not None:
            summary.judged += len(package.truths)
            pairs = zip(reply.predictions, package.truths, strict=True)
            summary.right += sum(prediction.label == truth for prediction, truth in pairs)


def as_text(package: Package, top: int) -> str:
    """A line for the package and one for each of its images."""
    error = package.reply.exception()
    if error is not None:
        what = "lost" if isinstance(error, RequestTimeout) else "failed"
        return f"package {package.number}  {what}: {error}"
    reply = package.reply.result()
    lines = [f"package {package.number}  {reply.round_trip * 1000:.1f} ms  sha256 {reply.sha256[:12]}"]
    truths = package.truths or [""] * len(reply.predictions)
    for prediction, truth in zip(reply.predictions, truths, strict=True):
        ranked = "  ".join(f"{printable(label):<11} {p:>6.1%}" for label, p in prediction.top[:top])
        verdict = "right" if truth == prediction.label else "WRONG"
        lines.append(f"  {ranked}  {verdict}: {printable(truth)}" if truth else f"  {ranked}")
    return "\n".join(lines)


def as_json(package: Package, top: int) -> str:
    """One JSON object on one line."""
    error = package.reply.exception()
    shown: dict[str, object] = {"package": package.number, "truths": package.truths}
    if error is not None:
        shown |= {"error": str(error), "lost": isinstance(error, RequestTimeout)}
    else:
        reply = package.reply.result()
        shown |= {
            "id": reply.id,
            "sha256": reply.sha256,
            "round_trip_ms": round(reply.round_trip * 1000, 3),
            "model": asdict(reply.model),
            "predictions": [asdict(replace(each, top=each.top[:top])) for each in reply.predictions],
        }
    return json.dumps(shown)


def printable(label: str) -> str:
    """A label as it may be shown on a terminal: control characters escaped."""
    return label if label.isprintable() else label.encode("unicode_escape").decode()


if __name__ == "__main__":
    cli.run(main)
