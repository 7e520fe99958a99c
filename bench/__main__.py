"""Measure the replier beside its references, on the embedded broker, in interleaved rounds.

    python -m bench [--rounds 3] [--packages 20000] [--only replier,bare-100] [--json FILE]

All contenders get the same packages of five images, the same model and the same machine; each is a
process of its own, and only one is running at a time.
"""

from __future__ import annotations

from bench import table
from bench.contenders import CONTENDERS
from bench.run import measure, options, write_json
from imagebus import cli


def main() -> int:
    args = options("python -m bench", __doc__, CONTENDERS).parse_args()
    measured, conditions = measure(args, CONTENDERS)
    rounds = table.with_ratios(measured)
    print(f"{conditions['text']}\n\n{table.render(rounds)}")
    if args.json:
        write_json(args.json, conditions, rounds)
    return int(any(each["lost"] or each["wrong"] for each in rounds.get("replier", ())))


if __name__ == "__main__":
    cli.run(main)
