"""Send the dead letters of a topic back to it, once their cause is fixed.

    python3 -m imagebus.replay -f kafka.config -t1 requests --dry-run

Re-sends what is in requests.dlt to requests, or only what has a given code, and logs a line on each message.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence

from imagebus import cli
from imagebus.errors import ErrorCode, TransportError
from imagebus.transports import connect
from imagebus.transports.base import Bus
from imagebus.wire.dead_letters import DEAD_LETTER_CODE, DEAD_LETTER_CUT
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

ROUNDS = "dead_letter_rounds"  # header: how often the message was sent back
REPLAY = "dead_letter_replay"  # header: which replay sent it back last
BATCH = 100  # dead letters at once
QUIET_SECONDS = 2.0  # without another dead letter, once the topic is being read: no more will come
JOIN_SECONDS = 30.0  # until the topic is being read; a killed replay's place in the group is free after 6


def options() -> argparse.Namespace:
    """The command line of this program."""
    parser = cli.parser(__doc__, exit_status="0 on success, 1 if the bus failed", replies=False)
    group = parser.add_argument_group("dead letters")
    group.add_argument("--group", default="repliers", metavar="NAME", help="consumer group of the repliers")
    cli.add_replay_options(group)
    return parser.parse_args()


def main() -> int:
    """Run as a program."""
    args = options()
    cli.configure_logging(verbose=args.verbose)
    return run(args)


def run(args: argparse.Namespace) -> int:
    """Send back what the options choose; `replier.py --replay-dlt` calls it with its own."""
    dead_letter_topic = cli.dead_letter_topic(args.requests)
    topics = (args.requests, dead_letter_topic)
    with connect(args.cloud, args.config, topics=topics, partitions=args.partitions) as bus:
        letters = replay_dead_letters(
            bus,
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


def replay_dead_letters(
    bus: Bus,
    dead_letter_topic: str,
    topic: str,
    *,
    group: str,
    code: str | None = None,
    max_rounds: int = 3,
    dry_run: bool = False,
) -> Iterator[str]:
    """Send the letters in `dead_letter_topic` back to `topic`, and yield a line on each message.

    Reads each partition up to the first letter that this call itself sent back and that was dead-lettered again.
    A header marks those, not the time: clocks differ. `group` remembers the position, so that two calls send nothing
    back twice. With `code`, only letters with that code are sent; one that was sent back `max_rounds` times stays
    where it is, and so does one that was cut off. With `dry_run`, nothing is sent or remembered. Raises
    `TransportError`.
    """
    assigned = threading.Event()

    def on_assigned(_: Sequence[int]) -> None:
        assigned.set()

    member = bus.join(dead_letter_topic, group, on_assigned=on_assigned)
    this = str(uuid.uuid4())
    sent = kept = back = 0
    ended: set[int] = set()  # partitions whose rest is left to another call
    doubtful = False  # a replay died with some of these in hand
    began = last = time.monotonic()
    while True:
        was_assigned = assigned.is_set()
        received = member.receive(BATCH, QUIET_SECONDS)
        doubtful = doubtful or any(letter.attempt > 1 for letter in received)
        letters = []
        for letter in received:
            partition = None if letter.position is None else letter.position.partition
            if letter.header(REPLAY) == this and partition is not None:
                ended.add(partition)
            if letter.header(REPLAY) == this or partition in ended:
                back += 1
            else:
                letters.append(letter)
        now = time.monotonic()
        if letters or not was_assigned:
            last = now
        if was_assigned and (not received or now - last > QUIET_SECONDS):
            break
        if not letters and not was_assigned and now > began + JOIN_SECONDS:
            raise TransportError(f"topic {dead_letter_topic!r} could not be read within {JOIN_SECONDS:.0f} s")
        chosen, again, staying = [], [], []
        for letter in letters:
            reason = _reason_to_keep(letter, code, max_rounds)
            yield f"{_code(letter)}, {len(letter.value)} bytes: {reason or 'sent back'}"
            if reason is None:
                chosen.append(letter)
                again.append(_sent_back(letter, topic, this))
            else:
                staying.append(letter)
        sent += len(chosen)
        kept += len(staying)
        if not dry_run:
            member.commit(staying).result()  # first: a replay that dies in between sends nothing twice
            member.commit(chosen, again).result()
    if (dry_run or back) and doubtful:
        yield "a replay was killed here: only a real one gets behind the letters that it held, so there may be more"
    if back:
        yield f"{back} came to {dead_letter_topic} meanwhile, some of them sent back by this call: left to another"
    yield f"{'would send' if dry_run else 'sent'} {sent} back to {topic}, {kept} stay in {dead_letter_topic}"


def _code(letter: Message) -> str:
    """Its code, if it is one of ours: anyone can write to the topic."""
    code = letter.header(DEAD_LETTER_CODE)
    return code if code in list(ErrorCode) else "no code"


def _rounds(letter: Message) -> int:
    rounds = letter.header(ROUNDS) or "0"
    return int(rounds) if rounds.isascii() and rounds.isdigit() and len(rounds) < 9 else 0


def _reason_to_keep(letter: Message, code: str | None, max_rounds: int) -> str | None:
    if code is not None and _code(letter) != code:
        return "not asked for"
    if letter.header(DEAD_LETTER_CUT) is not None:
        return "kept: its value was cut off"
    if _rounds(letter) >= max_rounds:
        return f"kept: it was sent back {_rounds(letter)} times"
    return None


def _sent_back(letter: Message, topic: str, replay: str) -> Message:
    """The message as it was, with the count of its rounds; its headers keep its origin."""
    ours = (ROUNDS, REPLAY, DEAD_LETTER_CODE)
    headers = [(name, value) for name, value in letter.headers if name not in ours]
    headers += [(ROUNDS, str(_rounds(letter) + 1).encode()), (REPLAY, replay.encode())]
    return Message(topic, letter.value, key=letter.key, headers=headers)


if __name__ == "__main__":
    cli.run(main)
