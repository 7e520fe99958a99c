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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace

import imagebus
from imagebus import cli, stdio
from imagebus.judging import LABELS_ASKED, Judge, Verdict
from imagebus.reports import Summary, printable

VERDICTS = {True: "right", False: "WRONG", None: "not judged"}
WIDTH = 40  # characters of a file's name that are shown


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__, exit_status="0 on success or Ctrl-C, 1 if a package or the bus failed")
    add = parser.add_argument_group("packages").add_argument
    add("--images", metavar="PATH", help="PNG or JPEG, folder of them, or .npz (default: shipped sample)")
    add(
        "--background",
        choices=("black", "white", "auto"),
        default="black",
        help="what is behind the garments: white becomes black, with auto where an image has a light edge",
    )
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
        given = (args.images,) if args.images else ()
        images = imagebus.load_images(*given, background=args.background)
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
        packages = packages_of(images, args.batch_size, numbers)
        return exchange(client, packages, state, args, labels=LABELS_ASKED if images.truths else 1)


def packages_of(images: imagebus.ImageSet, size: int, numbers: Iterable[int]) -> Iterator[imagebus.Package]:
    for number in numbers:
        pixels, truths = images.package(number - 1, size)
        yield imagebus.Package(pixels, truths, number, files=images.files_of(number - 1, size))


def exchange(
    client: imagebus.Client,
    packages: Iterable[imagebus.Package],
    state: imagebus.OpenPackages | None,
    args: argparse.Namespace,
    *,
    labels: int = 1,
) -> int:
    """Send the packages on their timer, print each outcome when it comes, and the summary at the end.

    `labels` are asked for each image, or `--top`, whichever is more.
    """

    def on_silence() -> None:
        stdio.say(f"waiting for a replier on topic {args.requests}")

    outcomes = client.stream(
        packages, interval=args.interval, top=max(args.top, labels), state=state, on_silence=on_silence
    )
    on_stop_signal(outcomes.stop)
    show = as_json if args.json else as_text
    summary, judge, output = Summary(), Judge(), stdio.Output()
    try:
        for outcome in outcomes:
            verdicts = judge(outcome)
            summary.add(outcome, verdicts)
            if not output.print(show(outcome, verdicts, args.top)):
                outcomes.keep_last()  # in --state, to be shown by the next start
    finally:  # also when the bus fails
        summary.sent = outcomes.sent
        if args.json or not output.print(summary):
            stdio.say(str(summary))
    return cli.EXIT_FAILED if summary.failed or summary.lost or output.failed else 0


def as_text(outcome: imagebus.Outcome, verdicts: Sequence[Verdict], top: int) -> str:
    """A line for the package and one for each of its images."""
    package, result = outcome.package, outcome.result
    if isinstance(result, imagebus.ImageBusError):
        fate = "lost" if isinstance(result, imagebus.RequestTimeout) else "failed"
        return f"package {package.number}  {fate}: {result}"
    lines = [f"package {package.number}  {result.round_trip * 1000:.1f} ms  sha256 {result.sha256[:12]}"]
    unknown = [""] * len(result.predictions)
    images = zip(
        result.predictions, package.truths or unknown, verdicts, package.files or unknown, strict=True
    )
    for prediction, truth, verdict, file in images:
        parts = [f"{printable(label):<11} {p:>6.1%}" for label, p in prediction.top[:top]]
        if truth:
            parts.append(f"{VERDICTS[verdict]}: {printable(truth)}")
        if file:
            name = printable(file)
            parts.append(name if len(name) <= WIDTH else "…" + name[1 - WIDTH :])
        lines.append("  ".join(["", *parts]))
    return "\n".join(lines)


def as_json(outcome: imagebus.Outcome, verdicts: Sequence[Verdict], top: int) -> str:
    """One JSON object on one line."""
    package, result = outcome.package, outcome.result
    shown: dict[str, object] = {"package": package.number, "truths": package.truths, "files": package.files}
    if isinstance(result, imagebus.ImageBusError):
        shown |= {"error": str(result), "lost": isinstance(result, imagebus.RequestTimeout)}
    else:
        shown |= {
            "id": result.id,
            "sha256": result.sha256,
            "round_trip_ms": round(result.round_trip * 1000, 3),
            "model": asdict(result.model),
            "predictions": [asdict(replace(each, top=each.top[:top])) for each in result.predictions],
            "correct": verdicts,
        }
    return json.dumps(shown)


if __name__ == "__main__":
    cli.run(main)
