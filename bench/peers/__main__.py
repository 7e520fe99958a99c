"""Measure the replier beside FastStream, Quix Streams, MLServer and two loops, as `python -m bench` does.

    python -m bench.peers [--rounds 3] [--packages 20000] [--only replier,quix] [--json FILE]
    python -m bench.peers --network tiny

The same broker, packages, checks and model for all. `--network` replaces `--model`: the yardstick
`two-convolutions`, or the fastest shipped network, `tiny`, with which the bus and the code around the model
are measured. The peers get an environment of their own, `.venv-peers`, made on the first run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import table
from bench.peers import environment, report
from bench.peers.rounds import PEERS, ROUND
from bench.program import ROOT, Program
from bench.run import measure, options, write_json
from imagebus import cli

NETWORKS = ("two-convolutions", "tiny")
BUILD_LIMIT = 120.0  # seconds; most of it TensorFlow's import on a busy machine


def main() -> int:
    parser = options("python -m bench.peers", __doc__, ROUND)
    parser.add_argument(
        "--network", choices=NETWORKS, help="bench/peers/two_convolutions.py, or the fastest that is shipped"
    )
    parser.add_argument("--load-seconds", type=float, default=8.0, metavar="S", help="of each load")
    parser.set_defaults(singles=1000, keras_seconds=8.0)
    args = parser.parse_args()
    if PEERS.keys() & args.only:
        environment.set_up()
    with tempfile.TemporaryDirectory(prefix="imagebus-bench-") as folder:
        if args.network == "tiny":
            args.model = ROOT / "models" / "fashion-tiny.onnx"
        elif args.network:
            args.model = build(Path(folder))
        measured, conditions = measure(args, ROUND)
    rounds = table.with_ratios(measured)
    conditions["text"] += f" {environment.versions()}."
    print(f"{conditions['text']}\n\n{report.render(rounds, tiny=args.network == 'tiny')}")
    if args.json:
        write_json(args.json, conditions, rounds)
    bad = ("lost", "wrong", "killed_lost", "killed_wrong")
    return int(any(each[figure] for each in rounds.get("replier", ()) for figure in bad))


def build(folder: Path) -> Path:
    """Train two convolutions in a process of its own: TensorFlow must not stay in this one."""
    with Program("-m", "bench.peers.two_convolutions", folder) as program:
        return Path(program.wait_for("written:", BUILD_LIMIT)[1])


if __name__ == "__main__":
    cli.run(main)
