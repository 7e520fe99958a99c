"""Fuzz one target: python3 -m fuzz decode_request -max_total_time=600

What follows the target's name is libFuzzer's. It starts from fuzz/corpus/TARGET; inputs that reach new
code, and any that fail, are written to .cache/fuzz/TARGET.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent
# A request that takes longer, in seconds, or more memory than this has found a bomb.
LIMITS = ["-timeout=20", "-rss_limit_mb=1024"]


def main(name: str, options: list[str]) -> None:
    found = ROOT / ".cache" / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["imagebus", "PIL"]):
        target = import_module(f"fuzz.{name}")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        if seed % 2 and hasattr(target, "mutated"):
            changed: bytes = target.mutated(data, seed)
            return changed[:max_size]
        return bytes(atheris.Mutate(data, max_size))

    folders = [str(found), str(ROOT / "fuzz" / "corpus" / name)]
    command = [name, f"-artifact_prefix={found}/failed-", *LIMITS, *options, *folders]
    atheris.Setup(command, target.one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] not in (["decode_request"], ["decode_reply"]):
        sys.exit("usage: python3 -m fuzz decode_request|decode_reply [OPTION OF LIBFUZZER ...]")
    main(sys.argv[1], sys.argv[2:])
