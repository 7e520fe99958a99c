"""A run of the bench: its options, the broker, the rounds, and the conditions of its figures."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from bench import table
from bench.contenders import Contender, Figures
from bench.ground import Ground, lay_ground
from bench.program import ROOT
from imagebus import cli
from imagebus.broker import EmbeddedBroker, stop_on_signals
from imagebus.broker.jars import KAFKA_VERSION
from imagebus.errors import ConfigError

log = logging.getLogger("bench")


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """An option's type: some of these names, with commas between them."""

    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if not set(chosen) <= set(known):
            raise argparse.ArgumentTypeError(f"{text}: expected some of {', '.join(known)}")
        return chosen

    return names


def options(prog: str, documentation: str | None, contenders: Iterable[str]) -> argparse.ArgumentParser:
    """The command line that all runs over the embedded broker share."""
    known = list(contenders)
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(documentation or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rounds", type=cli.positive, default=3, metavar="N")
    parser.add_argument("--packages", type=cli.positive, default=20_000, metavar="N", help="in the backlog")
    parser.add_argument(
        "--singles", type=cli.positive, default=2000, metavar="N", help="packages sent one at a time"
    )
    parser.add_argument(
        "--keras-seconds", type=float, default=12.0, metavar="S", help="for what is slow, a round"
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=ROOT / "models" / "fashion.onnx",
        metavar="FILE",
        help="its .keras is expected beside it",
    )
    parser.add_argument("--only", type=some_of(known), default=known, metavar="A,B,...", help="contenders")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def measure(
    args: argparse.Namespace, contenders: Mapping[str, Contender]
) -> tuple[dict[str, list[Figures]], dict[str, Any]]:
    """The figures of all rounds, by contender, and their conditions."""
    cli.configure_logging(verbose=False)
    logging.getLogger("imagebus.transports").setLevel(logging.WARNING)  # not its lines about created topics
    if not Path("/proc/self/stat").exists():
        raise ConfigError("CPU time and memory are read from /proc: the bench needs Linux")
    broker = EmbeddedBroker(config={"log.message.timestamp.type": "LogAppendTime"})
    stop_on_signals(broker)
    log.info("starting Apache Kafka")
    with broker, tempfile.TemporaryDirectory(prefix="imagebus-bench-") as folder:
        log.info(f"filling the backlog: {args.packages:,} packages")
        ground = lay_ground(
            broker.bootstrap,
            Path(folder),
            args.model.resolve(),
            packages=args.packages,
            singles=args.singles,
            keras_seconds=args.keras_seconds,
            load_seconds=getattr(args, "load_seconds", 0.0),
        )
        chosen = {name: contender for name, contender in contenders.items() if name in args.only}
        return run_rounds(ground, chosen, args.rounds), describe(ground, args)


def run_rounds(ground: Ground, contenders: Mapping[str, Contender], count: int) -> dict[str, list[Figures]]:
    """Every contender once a round, so that a slow minute of the machine hits all of them."""
    rounds: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(1, count + 1):
        for name, results in rounds.items():
            started = time.monotonic()
            results.append(contenders[name](ground, number))
            shown = ", ".join(f"{figure} {value:,.4g}" for figure, value in results[-1].items())
            log.info(f"round {number} of {count}, {name}, {time.monotonic() - started:.0f} s: {shown}")
    return rounds


def describe(ground: Ground, args: argparse.Namespace) -> dict[str, Any]:
    """The conditions of the figures, which mean nothing without them."""
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    processor = found[1] if found else platform.machine()
    text = (
        f"Medians of {args.rounds} interleaved rounds, ± half the distance from the lowest to the highest. "
        f"{args.packages:,} packages of five images; one at a time: {args.singles:,}. "
        f"Model {ground.model_name} ({ground.model.name}). {os.cpu_count()} cores ({processor}), "
        f"Python {platform.python_version()}, "
        f"ONNX Runtime {metadata.version('onnxruntime')}, Apache Kafka {KAFKA_VERSION} on the same cores."
    )
    chosen = {key: getattr(args, key) for key in ("rounds", "packages", "singles", "keras_seconds")}
    return {"text": text, "model": ground.model_name, **chosen}


def write_json(path: Path, conditions: Mapping[str, Any], rounds: table.Rounds) -> None:
    """Write the figures of each round and their conditions."""
    figures = {"conditions": conditions, "figures": table.summary(rounds)}
    path.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
