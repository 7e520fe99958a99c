"""Classify the images of each request on a topic, and send the predictions back on another.

    python3 replier.py -f kafka.config -t1 requests -t2 replies -c kafka

Start as many as there are partitions: repliers of one group share the requests. Ctrl-C finishes the
batch at hand, commits it and leaves the group.
"""

from __future__ import annotations  # names of the package stay unloaded until they are used

from imagebus.signals import end_at_once_on_signals, on_stop_signal

end_at_once_on_signals()  # before the other imports: process 1 of a container would not end during them

import argparse
import socket

import imagebus
from imagebus import cli
from imagebus.errors import Fenced, GroupConflict
from imagebus.reports import Announcer, counts_logged
from imagebus.shipped import shipped


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__, exit_status="0 after Ctrl-C, 1 if the bus or the model failed")
    add = parser.add_argument_group("model").add_argument
    add(
        "--model",
        metavar="FILE",
        help="ONNX file, or .keras file with --runtime keras (default: the shipped one)",
    )
    add("--runtime", choices=("onnx", "keras"), default="onnx", help="what runs the model")
    add("--labels", metavar="A,B,...", help="class names, for a model file that does not carry them")
    add(
        "--threads",
        type=cli.count,
        default=0,
        metavar="N",
        help="threads that share a large batch (0: one per core)",
    )
    add = parser.add_argument_group("serving").add_argument
    add(
        "--group",
        type=cli.name,
        default="repliers",
        metavar="NAME",
        help="consumer group; its members share the requests",
    )
    add("--max-batch-size", type=cli.positive, default=128, metavar="N", help="most requests in one batch")
    add(
        "--max-wait",
        type=cli.duration,
        default=0.0,
        metavar="MS",
        help="how long to wait for a fuller batch (0: do not wait)",
    )
    add("--require-hash", action="store_true", help="refuse requests without a sha256 header")
    add("--metrics-port", type=cli.port, metavar="PORT", help="serve Prometheus metrics on 127.0.0.1:PORT")
    add = parser.add_argument_group("delivery").add_argument
    add(
        "--guarantee",
        choices=("at-least-once", "exactly-once"),
        default="at-least-once",
        help="exactly-once: replies and offsets in one Kafka transaction",
    )
    add(
        "--name",
        default=socket.gethostname(),
        metavar="NAME",
        help="name of this replier in its transactions; unique among live ones",
    )
    dead_letters = parser.add_argument_group("dead letters")
    dead_letters.add_argument(
        "--replay-dlt",
        action="store_true",
        help="re-send dead letters and exit, as python3 -m imagebus.replay does",
    )
    cli.add_replay_options(dead_letters)
    return parser.parse_args()


def main() -> int:
    args = options()
    cli.configure_logging(verbose=args.verbose)
    if args.replay_dlt:
        from imagebus import replay  # only where it is used

        return replay.run(args)
    if args.dry_run or args.code:
        raise imagebus.ConfigError("--dry-run and --code are for --replay-dlt")
    cli.check_topics(args)
    exactly_once = args.guarantee == "exactly-once"
    if exactly_once and args.cloud != "kafka":
        raise imagebus.ConfigError(
            f"--guarantee exactly-once: -c {args.cloud} has no transactions, only -c kafka has"
        )
    with cli.flag("--model"):
        classifier = load_classifier(args)
    dead_letter_topic = cli.dead_letter_topic(args.requests)
    with imagebus.connect(
        args.cloud,
        args.config,
        topics=(args.requests, args.replies, dead_letter_topic),
        partitions=args.partitions,
        transactional_id=f"{args.group}-{args.name}" if exactly_once else None,
    ) as bus:
        announcer = Announcer(classifier.model, args.requests, args.group)
        member = bus.join(args.requests, args.group, on_assigned=announcer)
        worker = imagebus.Worker(
            member,
            classifier,
            replies=args.replies,
            dead_letter_topic=dead_letter_topic,
            max_batch_size=args.max_batch_size,
            max_wait=args.max_wait / 1000,
            at_once=2 if args.runtime == "onnx" else 1,  # Keras does not promise to be thread-safe
            require_hash=args.require_hash,
            group=args.group,
        )
        on_stop_signal(worker.stop)
        if args.metrics_port is not None:
            with cli.flag("--metrics-port"):
                imagebus.serve_metrics(worker.metrics, args.metrics_port)
        imagebus.tune_for_serving()
        with (
            counts_logged(worker.metrics),
            cli.flag(f"--name {args.name}:", Fenced),
            cli.flag(f"--group {args.group}:", GroupConflict),
        ):
            worker.run()
    return 0


def load_classifier(args: argparse.Namespace) -> imagebus.Classifier:
    if args.runtime == "keras":
        try:
            from training.serving import KerasClassifier  # TensorFlow: only where it is used
        except ImportError as error:
            raise imagebus.ConfigError(
                f"--runtime keras needs a checkout and its group train: {error}"
            ) from None
        try:
            return KerasClassifier(args.model or shipped("models/fashion.keras"))
        except (OSError, ValueError) as error:
            raise imagebus.ConfigError(str(error)) from None
    labels = args.labels.split(",") if args.labels else ()
    return imagebus.OnnxClassifier(
        args.model or shipped("models/fashion.onnx"), labels=labels, threads=args.threads
    )


if __name__ == "__main__":
    cli.run(main)
