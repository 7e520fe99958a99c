"""Send the dead letters of a topic back to it, once their cause is fixed.

    python3 -m imagebus.replay -f kafka.config -t1 requests --dry-run

Re-sends what is in requests.dlt to requests, or only what has a given code, and logs a line on each message.
"""

from __future__ import annotations

from imagebus.signals import end_at_once_on_signals, interrupt_on_signals

if __name__ == "__main__":
    end_at_once_on_signals()  # before the other imports, as the scripts do

import argparse
import logging
import time
import uuid
from collections.abc import Iterator, Sequence

from imagebus import cli
from imagebus.errors import ErrorCode, TooLarge, TransportError
from imagebus.transports import connect
from imagebus.transports.base import Bus
from imagebus.wire.dead_letters import DEAD_LETTER_CODE, DEAD_LETTER_CUT
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

ROUNDS = "dead_letter_rounds"  # header: how often the message was sent back
REPLAY = "dead_letter_replay"  # header: which replay sent it back last
BATCH = 100  # dead letters at once
QUIET_SECONDS = 2.0  # without another letter, on a bus that cannot tell its end: no more will come
STUCK_SECONDS = 30.0  # without a letter before the end; a killed replay's place in the group is free after 6


def options() -> argparse.Namespace:
    """The command line of this program."""
    parser = cli.parser(__doc__, exit_status="0 on success, 1 if the bus failed", replies=False)
    group = parser.add_argument_group("dead letters")
    group.add_argument(
        "--group", type=cli.name, default="repliers", metavar="NAME", help="consumer group of the repliers"
    )
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
        interrupt_on_signals()
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

    Reads each partition to its end, or up to the first letter that this call itself sent back and that was
    dead-lettered again: a header marks those. `group` remembers the position, so that two calls send nothing back
    twice. With `code`, only letters with that code are sent; one that was sent back `max_rounds` times stays where it
    is, and so does one that was cut off. One that `topic` is too small for goes to the end of `dead_letter_topic`.
    With `dry_run`, nothing is sent or remembered. Raises `TransportError`.
    """
    member = bus.join(dead_letter_topic, group, bounded=True)
    this = str(uuid.uuid4())
    sent = kept = back = 0
    ended: set[int] = set()  # partitions whose rest is left to another call
    doubtful = False  # a replay died with some of these in hand
    last = time.monotonic()  # when a letter came
    while not member.at_end:
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
        if letters:
            last = time.monotonic()
        silence = time.monotonic() - last
        # A dry run commits nothing, so that it gets nothing behind suspects.
        if silence > QUIET_SECONDS and (member.at_end is None or (dry_run and doubtful)):
            break
        if silence > STUCK_SECONDS:
            raise TransportError(
                f"{dead_letter_topic!r} was not read to its end: {silence:.0f} s without a letter"
            )
        chosen, again, staying, moved = [], [], [], set[int]()
        for letter in letters:
            reason = _reason_to_keep(letter, code, max_rounds)
            yield f"{_about(letter)}: {reason or ('would be sent back' if dry_run else 'sent back')}"
            if reason is None:
                chosen.append(letter)
                again.append(_sent_back(letter, topic, this))
            else:
                staying.append(letter)
        if not dry_run:

            def to_the_end(
                place: int, chosen: Sequence[Message] = chosen, moved: set[int] = moved
            ) -> Message:
                if place in moved:
                    raise TooLarge(f"{dead_letter_topic!r} takes {_about(chosen[place])} no more")
                moved.add(place)
                return _marked(chosen[place], dead_letter_topic, this)

            member.commit(staying).result()  # first: a replay that dies in between sends nothing twice
            member.commit(chosen, again, to_the_end).result()
        for place in sorted(moved):
            yield f"{_about(chosen[place])}: kept: {topic} takes no message that large"
        sent += len(chosen) - len(moved)
        kept += len(staying) + len(moved)
        if letters:
            last = time.monotonic()  # again: the reader of these lines may be slow
    if (dry_run or back) and doubtful:
        yield "a replay was killed here: only a real one gets behind the letters that it held, so there may be more"
    if back:
        yield f"{back} came to {dead_letter_topic} meanwhile and are left to the next replay"
    yield f"{'would send' if dry_run else 'sent'} {sent} back to {topic}, {kept} stay in {dead_letter_topic}"


def _about(letter: Message) -> str:
    return f"{_code(letter)}, {len(letter.value)} bytes"


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
    """The message as it was, with the count of its rounds; where it came from before stays in its headers."""
    # Whoever sends it back wants it served, though its caller's deadline is long over.
    dropped = (ROUNDS, DEAD_LETTER_CODE, "deadline")
    headers = [(name, value) for name, value in letter.headers if name not in dropped]
    headers.append((ROUNDS, str(_rounds(letter) + 1).encode()))
    return _marked(letter._replace(headers=headers), topic, replay)


def _marked(letter: Message, topic: str, replay: str) -> Message:
    """The message for a topic, with the name of this replay."""
    headers = [(name, value) for name, value in letter.headers if name != REPLAY]
    return Message(topic, letter.value, key=letter.key, headers=[*headers, (REPLAY, replay.encode())])


if __name__ == "__main__":
    cli.run(main)
