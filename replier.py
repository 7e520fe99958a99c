"""Classify the images of each request on a topic, and send the predictions back on another.

    python3 replier.py -f kafka.config -t1 requests -t2 replies -c kafka

Start as many as there are partitions: repliers of one group share the requests. Ctrl-C finishes the
batch at hand, commits it and leaves the group.
"""

from __future__ import annotations  # names of the package stay unloaded until they are used

import argparse
import logging
import socket
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import imagebus
from imagebus import cli

log = logging.getLogger("replier")

MODELS = Path(__file__).parent / "models"
REPORT_SECONDS = 10.0  # between two lines of counts, while there is something to count


def options() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="FILE", help="models/fashion.onnx, or .keras with --runtime keras")
    model.add_argument("--runtime", choices=("onnx", "keras"), default="onnx", help="what runs the model")
    model.add_argument(
        "--labels", metavar="A,B,...", help="class names of a model file that does not name them"
    )
    model.add_argument(
        "--threads",
        type=cli.count,
        default=0,
        metavar="N",
        help="that share a large batch; 0: one for each core",
    )
    serving = parser.add_argument_group("serving")
    serving.add_argument(
        "--group", default="repliers", metavar="NAME", help="consumer group: its members share the work"
    )
    serving.add_argument(
        "--max-batch-size", type=cli.positive, default=128, metavar="N", help="requests in one batch"
    )
    serving.add_argument(
        "--max-wait", type=cli.duration, default=0.0, metavar="MS", help="for a fuller batch"
    )
    serving.add_argument(
        "--require-hash", action="store_true", help="refuse requests without a sha256 header"
    )
    serving.add_argument(
        "--metrics-port", type=cli.port, metavar="PORT", help="serve Prometheus metrics on 127.0.0.1"
    )
    delivery = parser.add_argument_group("delivery")
    delivery.add_argument(
        "--guarantee",
        choices=("at-least-once", "exactly-once"),
        default="at-least-once",
        help="exactly-once: replies and offsets in one Kafka transaction",
    )
    delivery.add_argument(
        "--name",
        default=socket.gethostname(),
        metavar="NAME",
        help="of this replier, for its transactions: no other live one may have it",
    )
    dead = parser.add_argument_group("dead letters")
    dead.add_argument(
        "--replay-dlt", action="store_true", help="send the messages of TOPIC.dlt back to TOPIC, and end"
    )
    dead.add_argument("--dry-run", action="store_true", help="only list them")
    dead.add_argument("--code", metavar="CODE", help="only those with this code, such as KILLER")
    dead.add_argument(
        "--max-rounds", type=cli.positive, default=3, metavar="N", help="how often one message is sent back"
    )
    return parser.parse_args()


def main() -> int:
    args = options()
    cli.configure_logging(verbose=args.verbose)

    dead_letter_topic = f"{args.requests}.dlt"
    if args.replies in (args.requests, dead_letter_topic):
        raise imagebus.ConfigError(f"-t2 {args.replies}: the replies need a topic of their own")
    connect = partial(
        imagebus.connect,
        args.cloud,
        args.config,
        topics=(args.requests, args.replies, dead_letter_topic),
        partitions=args.partitions,
    )
    if args.replay_dlt:
        return replay(connect(), dead_letter_topic, args)
    with cli.flag("--model"):
        classifier = load_classifier(args)
    exactly_once = args.guarantee == "exactly-once"
    transactional_id = f"{args.group}-{args.name}" if exactly_once else None
    with connect(transactional_id=transactional_id) as transport:
        worker = imagebus.Worker(
            transport,
            classifier,
            replies=args.replies,
            dead_letter_topic=dead_letter_topic,
            max_batch_size=args.max_batch_size,
            max_wait=args.max_wait / 1000,
            at_once=2 if args.runtime == "onnx" else 1,  # Keras does not say that it may be called so
            require_hash=args.require_hash,
            group=args.group,
        )
        stopped = threading.Event()
        cli.on_stop_signal(worker.stop)
        if args.metrics_port is not None:
            with cli.flag("--metrics-port"):
                imagebus.serve_metrics(worker.metrics, args.metrics_port)
        transport.subscribe(
            args.requests, args.group, on_assigned=Announcer(classifier, args.requests, args.group)
        )
        threading.Thread(target=report, args=(worker, stopped), daemon=True).start()
        imagebus.tune_for_serving()
        try:
            worker.run()
        finally:
            stopped.set()
    log.info("stopped: %s", worker.metrics)
    return 0


def load_classifier(args: argparse.Namespace) -> imagebus.Classifier:
    if args.runtime == "keras":
        try:
            from cnn_minst import KerasClassifier  # TensorFlow: only for those who ask for it

            return KerasClassifier(args.model or MODELS / "fashion.keras")
        except (ImportError, OSError, ValueError) as error:
            raise imagebus.ConfigError(str(error)) from None
    labels = args.labels.split(",") if args.labels else ()
    return imagebus.OnnxClassifier(args.model or MODELS / "fashion.onnx", labels=labels, threads=args.threads)


def replay(transport: imagebus.Transport, dead_letter_topic: str, args: argparse.Namespace) -> int:
    with transport:
        letters = imagebus.replay_dead_letters(
            transport,
            dead_letter_topic,
            args.requests,
            group=f"{args.group}.replay.{args.code or 'all'}",
            code=args.code,
            max_rounds=args.max_rounds,
            dry_run=args.dry_run,
        )
        for letter in letters:
            log.info("%s", letter)
    return 0


class Announcer:
    """Says once that the replier is ready, and from then on which partitions it has."""

    def __init__(self, classifier: imagebus.Classifier, topic: str, group: str) -> None:
        self._model = classifier.model
        self._where = f"{topic} as group {group}"
        self._ready = False

    def __call__(self, partitions: Sequence[int]) -> None:
        listed = ", ".join(map(str, partitions)) or "none"
        if self._ready:
            log.info("partitions now: %s", listed)
            return
        self._ready = True
        model = self._model
        log.info(
            "ready: model %s %s (sha256 %s), reading %s, partitions %s",
            model.name,
            model.version,
            model.sha256[:12],
            self._where,
            listed,
        )


def report(worker: imagebus.Worker, stopped: threading.Event) -> None:
    """A line of counts now and then, when they have changed."""
    last = str(worker.metrics)
    while not stopped.wait(REPORT_SECONDS):
        now = str(worker.metrics)
        if now != last:
            log.info(now)
        last = now


if __name__ == "__main__":
    cli.run(main)
