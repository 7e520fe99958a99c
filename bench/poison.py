"""Serve packages, one in twenty of them bad, with one replier, and check the outcome of each.

    python -m bench.poison [--packages 20000] [--seed 0]

Good packages must get the correct predictions, bad ones the error reply or the dead letter of their kind; all
from the same process, whose memory must not grow.
"""

from __future__ import annotations

import argparse
import io
import logging
import random
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import orjson
from confluent_kafka import Message as Record
from PIL import Image

from bench.contenders import READY_LIMIT, replier_command
from bench.ground import PACKAGE, REQUESTS, Ground, lay_ground
from bench.program import ROOT, BenchFailed, Program
from bench.replies import Topic
from imagebus import cli, connect
from imagebus.broker import EmbeddedBroker, stop_on_signals
from imagebus.wire.message import Message
from imagebus.wire.pixels import encode_request

log = logging.getLogger("bench")

REPLIES, DEAD_LETTERS = "replies", f"{REQUESTS}.dlt"
BAD_SHARE = 0.05
NUMBER = "x-number"  # header that identifies a dead letter, which may have no id
# Packages sent and without an outcome. Of 500, a dozen may have a megabyte each in the replier's hands: that is load,
# no growth, and hides whether there is any.
IN_FLIGHT = 100
AT_ONCE = 50
# Share of the run that is not judged: each kind of input has come many times by then.
WARM_UP = 0.25
FLAT = 0.10  # of the resident memory after the warm-up: the most that it may vary
OUTCOME_LIMIT = 120.0  # seconds for the next outcome
LARGE = 900_000  # bytes, below the million that a client sends

Headers = list[tuple[str, bytes | None]]
Spoil = Callable[[Message], Message]
OK = "ok"


# --- kinds of bad packages ---------------------------------------------------------------------


def with_value(value: bytes, content_type: str = "application/octet-stream", **more: str) -> Spoil:
    """Another value, said to be of this type."""

    def spoil(good: Message) -> Message:
        headers: Headers = [("correlation_id", good.key), ("content-type", content_type.encode())]
        headers += [(name, text.encode()) for name, text in more.items()]
        return good._replace(value=value, headers=headers)

    return spoil


def with_header(name: str, text: bytes) -> Spoil:
    """One header has another text."""

    def spoil(good: Message) -> Message:
        kept = [header for header in good.headers if header[0] != name]
        return good._replace(headers=[(name, text), *kept])

    return spoil


def nameless(key: bytes | None, *headers: tuple[str, bytes | None], value: bytes = b"x") -> Spoil:
    """No valid id anywhere."""
    return lambda good: Message(good.topic, value, key, headers)


def v2(data: object, shape: object = (1, 28, 28), datatype: str = "UINT8") -> Spoil:
    """Open Inference Protocol V2 with this tensor."""
    inputs = [{"name": "images", "shape": shape, "datatype": datatype, "data": data}]
    return with_value(orjson.dumps({"inputs": inputs}), "application/json")


def picture(format: str, cut: int = 0) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format)
    return buffer.getvalue()[: len(buffer.getvalue()) - cut]


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JSON, PNG, JPEG = "application/json", "image/png", "image/jpeg"
CROWD: Headers = [(f"x-{number}", b"y" * 50) for number in range(10_000)]
# The code that is called for, and what is done to a good package.
KINDS: list[tuple[str, Spoil]] = [
    ("EMPTY", with_value(b"")),
    ("FORMAT", with_header("content-type", b"image/gif")),
    ("FORMAT", with_header("content-type", b"\xff" * LARGE)),
    ("WRONG_TYPE", with_header("status", b"ok")),
    ("HASH_MISMATCH", with_header("sha256", b"0" * 64)),
    ("HASH_MISMATCH", with_header("sha256", b"\xff")),
    ("HASH_MISMATCH", lambda good: good._replace(value=good.value[:-1])),
    ("SHAPE", with_header("shape", b"4,28,28")),
    ("SHAPE", with_header("shape", b"-5,28,28")),
    ("SHAPE", with_header("shape", b"9223372036854775808,28,28")),
    ("SHAPE", with_header("shape", b"1" * LARGE)),
    ("SHAPE", with_header("shape", ",".join(["1"] * 33).encode())),
    ("SHAPE", with_value(bytes(LARGE - 1), shape="1,28,28")),
    ("DTYPE", with_header("dtype", b"float32")),
    ("COUNT", with_header("shape", b"0,28,28")),
    ("COUNT", with_header("shape", b"1001,28,28")),
    ("REPLY_TO", with_header("reply_to", b"__consumer_offsets")),
    ("REPLY_TO", with_header("reply_to", REQUESTS.encode())),
    ("EXPIRED", with_header("deadline", b"1")),
    ("JSON", with_value(b'{"inputs": [', JSON)),
    ("JSON", with_value(b"[" * LARGE, JSON)),
    ("JSON", with_value(b"[" + b"[]," * (LARGE // 3) + b"[]]", JSON)),
    ("JSON", with_value(b'{"inputs": [], "inputs": [{"shape": 1, "datatype": 1, "data": 1}]}', JSON)),
    ("JSON", with_value(b'{"inputs": [{"shape": [1], "data": [NaN]}]}', JSON)),
    ("JSON", with_value(b'{"inputs": ' + b"1" * 10_000 + b"}", JSON)),
    ("TOO_LARGE", with_value(b'{"inputs": [' + b"{}," * (LARGE // 3) + b"{}]}", JSON)),
    ("DTYPE", v2(["x" * LARGE, *[0] * 783])),
    ("DTYPE", v2([True] * 784)),
    ("SHAPE", v2([0] * 783)),
    ("COUNT", v2([0], (10**6, 28, 28))),
    ("VALUES", v2([256] * 784)),
    ("VALUES", v2([0.5] * 784)),
    ("BAD_IMAGE", with_value(picture("PNG", cut=1), PNG)),
    ("BAD_IMAGE", with_value(picture("JPEG", cut=100), JPEG)),
    ("BAD_IMAGE", with_value(picture("GIF"), PNG)),
    ("BAD_IMAGE", with_value(bytes(LARGE), JPEG)),
    ("PIXELS_MAX", with_value(bomb(20_000, 20_000), PNG)),
    ("PIXELS_MAX", with_value(bomb(9_000, 9_000), PNG)),
    ("PIXELS_MAX", with_value(bomb(16_000_000, 1), PNG)),
    ("NO_ID", nameless(None)),
    ("NO_ID", nameless(None, *CROWD)),
    ("NO_ID", nameless(None, value=b"\0" * LARGE)),
    ("NO_ID", nameless(None, ("content-type", JSON.encode()), value=b"[" * LARGE)),
    ("BAD_ID", nameless(b"../x")),
    ("BAD_ID", nameless(b"/" * LARGE)),
    ("BAD_ID", nameless(None, ("correlation_id", b"\x1b[2J"))),
    ("BAD_ID", nameless(b"1", ("correlation_id", b"x" * 10_000))),
    # Odd, but nothing is wrong with them: the reply must not become too large for the bus.
    (OK, lambda good: good._replace(key=b"k" * LARGE)),
    (OK, lambda good: good._replace(headers=[*good.headers, *CROWD])),
    (OK, with_header("traceparent", b"\xff" * LARGE)),
]
DEAD = {"NO_ID", "BAD_ID"}


# --- the run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """Packages in their order; `kinds` has the place in `KINDS` of each bad one, by number."""

    packages: int
    kinds: dict[int, int]

    @classmethod
    def draw(cls, packages: int, seed: int) -> Load:
        """Every kind about as often as each other, at random places."""
        chance = random.Random(seed)
        bad = chance.sample(range(1, packages), round(packages * BAD_SHARE))  # the first is `lay_ground`'s
        return cls(packages, {number: place % len(KINDS) for place, number in enumerate(bad)})

    def message(self, ground: Ground, number: int) -> Message:
        """Package `number` as it is sent."""
        message = encode_request(ground.package(number), REQUESTS, id=str(number))
        if number in self.kinds:
            message = KINDS[self.kinds[number]][1](message)
        return message._replace(headers=[(NUMBER, str(number).encode()), *message.headers])

    def code(self, number: int) -> str:
        """Its expected outcome."""
        return KINDS[self.kinds[number]][0] if number in self.kinds else OK


@dataclass
class Seen:
    """Outcomes by number, as the topics have them."""

    codes: dict[int, str]
    repeated: int = 0
    wrong: int = 0  # predictions of good packages


def serve(ground: Ground, load: Load, replier: Program) -> list[float]:
    """Send everything, at most `IN_FLIGHT` without an outcome; resident memory in MB on the way."""
    resident = []
    with (
        connect("kafka", ground.config) as bus,
        Topic(ground.bootstrap, REPLIES) as replies,
        Topic(ground.bootstrap, DEAD_LETTERS) as letters,
    ):
        for start in range(0, load.packages, AT_ONCE):
            sent = min(start + AT_ONCE, load.packages)
            for number in range(max(1, start), sent):
                bus.publish(load.message(ground, number))
            last = sent == load.packages
            await_outcomes(replier, (replies, letters), sent if last else sent - IN_FLIGHT)
            resident.append(replier.resident_mb()[0])
    return resident


def await_outcomes(replier: Program, topics: Sequence[Topic], wanted: int) -> None:
    """Wait until so many are there."""
    best, deadline = 0, time.monotonic() + OUTCOME_LIMIT
    while (count := sum(topic.count() for topic in topics)) < wanted:
        replier.check()
        if count > best:
            best, deadline = count, time.monotonic() + OUTCOME_LIMIT
        if time.monotonic() > deadline:
            raise BenchFailed(f"{count} outcomes, and no more for {OUTCOME_LIMIT:.0f} s")
        time.sleep(0.01)


def read_outcomes(ground: Ground) -> Seen:
    """The outcome of each package."""
    seen = Seen({})
    with Topic(ground.bootstrap, REPLIES) as topic:
        for record in topic.read():
            number = int(header(record, "correlation_id"))
            body = orjson.loads(record.value() or b"")
            note(seen, number, reply_code(body))
            if "predictions" in body:
                labels = [each["label"] for each in body["predictions"]]
                seen.wrong += not ground.is_correct(number, labels)
    with Topic(ground.bootstrap, DEAD_LETTERS) as topic:
        for record in topic.read():
            note(seen, int(header(record, NUMBER)), f"{header(record, 'dead_letter_code')} dead")
    return seen


def header(record: Record, name: str) -> str:
    """The text of the first header of that name."""
    headers = cast(list[tuple[str, bytes | None]], record.headers() or [])  # what a received record has
    return next((text or b"").decode() for each, text in headers if each == name)


def reply_code(body: dict[str, object]) -> str:
    """OK, or the code of an error in either dialect."""
    error = body.get("error")
    if isinstance(error, dict):
        return str(error["code"])
    return error.partition(":")[0] if isinstance(error, str) else OK


def note(seen: Seen, number: int, code: str) -> None:
    seen.repeated += number in seen.codes
    seen.codes[number] = code


def report(load: Load, seen: Seen, resident: list[float]) -> bool:
    """Print the table; returns whether all is as expected."""
    sent: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for number in range(load.packages):
        code = load.code(number)
        wanted = f"{code} dead" if code in DEAD else code
        sent[wanted] += 1
        right[wanted] += seen.codes.get(number) == wanted
    kinds = Counter(code for code, _ in KINDS)
    print(f"{'outcome':<12} {'code':<14} {'kinds':>5} {'sent':>7} {'came':>7}")
    for wanted in sorted(sent, key=lambda each: (each != OK, each in DEAD, each)):
        code, _, dead = wanted.partition(" ")
        outcome = "prediction" if code == OK else "dead letter" if dead else "error reply"
        print(f"{outcome:<12} {code:<14} {kinds[code]:>5} {sent[wanted]:>7,} {right[wanted]:>7,}")
    warm = resident[int(WARM_UP * len(resident)) :]
    low, high = min(warm), max(warm)
    spread = high / low - 1
    print(f"{len(seen.codes):,} of {load.packages:,} packages have an outcome, {len(load.kinds):,} are bad")
    print(f"repeated {seen.repeated}, wrong predictions {seen.wrong}")
    print(
        f"resident memory after the first {WARM_UP:.0%}: {low:.0f} to {high:.0f} MB (+{spread:.1%}); "
        f"by tenths: {', '.join(f'{each:.0f}' for each in resident[len(resident) // 10 - 1 :: len(resident) // 10])}"
    )
    return sent == right and not seen.repeated and not seen.wrong and spread <= FLAT


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.poison", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--packages", type=cli.positive, default=20_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which packages are bad")
    args = parser.parse_args()
    cli.configure_logging(verbose=False)
    logging.getLogger("imagebus.transports").setLevel(logging.WARNING)  # not its lines about created topics
    broker = EmbeddedBroker()
    stop_on_signals(broker)
    log.info("starting Apache Kafka")
    with broker, tempfile.TemporaryDirectory(prefix="imagebus-poison-") as folder:
        model = ROOT / "models" / "fashion.onnx"
        ground = lay_ground(broker.bootstrap, Path(folder), model, packages=1, singles=0, keras_seconds=0)
        connect("kafka", ground.config, topics=[REPLIES]).close()
        load = Load.draw(args.packages, args.seed)
        log.info(f"{args.packages:,} packages of {PACKAGE} images, {len(load.kinds):,} of them bad")
        with Program(*replier_command(ground, REQUESTS, REPLIES, group="poison")) as replier:
            replier.wait_for("ready:", READY_LIMIT)
            started = time.monotonic()
            resident = serve(ground, load, replier)
            log.info(f"all have an outcome after {time.monotonic() - started:.0f} s")
            replier.check()
        seen = read_outcomes(ground)
    return 0 if report(load, seen, resident) else cli.EXIT_FAILED


if __name__ == "__main__":
    cli.run(main)
