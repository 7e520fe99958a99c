"""Send packages of images on a timer, and print the predictions that come back.

    python3 requestor.py -f kafka.config -t1 requests -t2 replies -c kafka

Each package travels with its SHA-256 under an id of its own. Ctrl-C prints the summary and exits.
"""

from __future__ import annotations  # names of the package stay unloaded until they are used

from imagebus.signals import end_at_once_on_signals, on_stop_signal

end_at_once_on_signals()  # before the other imports: process 1 of a container would not end during them

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

import imagebus
from imagebus import cli, stdio
from imagebus.reports import Summary


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__, exit_status="0 on success or Ctrl-C, 1 if a package or the bus failed")
    add = parser.add_argument_group("packages").add_argument
    add("--images", metavar="PATH", help="folder of PNG or JPEG files, or .npz (default: shipped sample)")
    add("--batch-size", type=cli.positive, default=5, metavar="N", help="images per package")
    add("--interval", type=cli.duration, default=1.0, metavar="S", help="seconds between packages")
    add("--count", type=cli.count, default=0, metavar="N", help="packages to send (0: no limit)")
    add("--timeout", type=cli.time_limit, default=30.0, metavar="S", help="seconds to wait for a reply")
    add("--state", metavar="DIR", help="keep open packages on disk and re-send them, same ids, after a kill")
    add("--own-partition", action="store_true", help="read a single partition of the replies")
    add = parser.add_argument_group("output").add_argument
    add("--top", type=cli.positive, default=1, metavar="N", help="labels printed per image")
    add("--json", action="store_true", help="print one JSON object per line")
    return parser.parse_args()


def main() -> int:
    args = options()
    cli.configure_logging(verbose=args.verbose)
    cli.check_topics(args)
    with cli.flag("--images"):
        images = imagebus.load_images(args.images) if args.images else imagebus.load_images()
    with cli.flag("--state"):
        state = imagebus.OpenPackages(args.state) if args.state else None
        first = state.next_number() if state else 1
    numbers = range(first, first + args.count) if args.count else itertools.count(first)
    bus = imagebus.connect(
        args.cloud,
        args.config,
        topics=(args.requests, args.replies),
        partitions=args.partitions,
        own_partition=args.own_partition,
    )
    with imagebus.Client(bus, requests=args.requests, replies=args.replies, timeout=args.timeout) as client:
        return exchange(client, packages_of(images, args.batch_size, numbers), state, args)


def packages_of(images: imagebus.ImageSet, size: int, numbers: Iterable[int]) -> Iterator[imagebus.Package]:
    for number in numbers:
        pixels, truths = images.package(number - 1, size)
        yield imagebus.Package(pixels, truths, number)


def exchange(
    client: imagebus.Client,
    packages: Iterable[imagebus.Package],
    state: imagebus.OpenPackages | None,
    args: argparse.Namespace,
) -> int:
    """Send the packages on their timer, print each outcome when it comes, and the summary at the end."""

    def on_silence() -> None:
        stdio.say(f"waiting for a replier on topic {args.requests}")

    outcomes = client.stream(
        packages, interval=args.interval, top=args.top, state=state, on_silence=on_silence
    )
    on_stop_signal(outcomes.stop)
    show = as_json if args.json else as_text
    summary, output = Summary(), stdio.Output()
    try:
        for outcome in outcomes:
            summary.add(outcome)
            if not output.print(show(outcome, args.top)):
                outcomes.keep_last()  # in --state, to be shown by the next start
    finally:  # also when the bus fails
        summary.sent = outcomes.sent
        if args.json or not output.print(summary):
            stdio.say(str(summary))
    return cli.EXIT_FAILED if summary.failed or summary.lost or output.failed else 0


def as_text(outcome: imagebus.Outcome, top: int) -> str:
    """A line for the package and one for each of its images."""
    package, result = outcome.package, outcome.result
    if isinstance(result, imagebus.ImageBusError):
        fate = "lost" if isinstance(result, imagebus.RequestTimeout) else "failed"
        return f"package {package.number}  {fate}: {result}"
    lines = [f"package {package.number}  {result.round_trip * 1000:.1f} ms  sha256 {result.sha256[:12]}"]
    truths = package.truths or [""] * len(result.predictions)
    for prediction, truth in zip(result.predictions, truths, strict=True):
        ranked = "  ".join(f"{printable(label):<11} {p:>6.1%}" for label, p in prediction.top[:top])
        verdict = "right" if truth == prediction.label else "WRONG"
        lines.append(f"  {ranked}  {verdict}: {printable(truth)}" if truth else f"  {ranked}")
    return "\n".join(lines)


def as_json(outcome: imagebus.Outcome, top: int) -> str:
    """One JSON object on one line."""
    package, result = outcome.package, outcome.result
    shown: dict[str, object] = {"package": package.number, "truths": package.truths}
    if isinstance(result, imagebus.ImageBusError):
        shown |= {"error": str(result), "lost": isinstance(result, imagebus.RequestTimeout)}
    else:
        shown |= {
            "id": result.id,
            "sha256": result.sha256,
            "round_trip_ms": round(result.round_trip * 1000, 3),
            "model": asdict(result.model),
            "predictions": [asdict(replace(each, top=each.top[:top])) for each in result.predictions],
        }
    return json.dumps(shown)


def printable(label: str) -> str:
    """A label as it may be shown on a terminal: control characters escaped."""
    return label if label.isprintable() else label.encode("unicode_escape").decode()


if __name__ == "__main__":
    cli.run(main)
