"""Dead letters: what cannot be answered, kept with the reason."""

from __future__ import annotations

import struct

from imagebus.errors import BadMessage
from imagebus.wire.message import MAX_HEADER_BYTES, Message

DEAD_LETTER_BYTES = 900_000  # of a value kept there: with key and headers below Kafka's default limit of 1 MB
# Kept there: with those for reason and origin, below Pub/Sub's limit of 100.
DEAD_LETTER_HEADERS = 80
DEAD_LETTER_HEADER_BYTES = 64_000  # of all names and values of the headers kept there
DEAD_LETTER_CODE = "dead_letter_code"
DEAD_LETTER_CUT = "dead_letter_cut"
_DEAD_LETTER_REASON = frozenset(
    {DEAD_LETTER_CODE, DEAD_LETTER_CUT, "kafka_dlt-exception-fqcn", "kafka_dlt-exception-message"}
)


def dead_letter(
    message: Message, topic: str, error: BadMessage, *, group: str = "", whole: bool = True
) -> Message:
    """A message that cannot be answered, kept for a person to look at: its bytes, and the reason.

    The headers for reason and origin are Spring Kafka's, so that its tools can read them: numbers are
    big-endian, and a letter that is dead-lettered again keeps the headers of its first time before the new
    ones. `dead_letter_code` has the code alone. To fit the bus, a value is cut at `DEAD_LETTER_BYTES`, a key or
    a header at `MAX_HEADER_BYTES`, and the number of headers is limited; `dead_letter_cut` then has the
    original size of the value. Without `whole`, for a topic that takes even less, there is no value, no key and
    no header of the message's own: the rest says where it is.
    """
    value, key, kept = message.value[:DEAD_LETTER_BYTES], message.key, _kept_headers(message)
    if not whole:
        value, key, kept = b"", None, []
    if key is not None:
        key = key[:MAX_HEADER_BYTES]
    # The reason comes first, so that `Message.header` sees it however many headers are kept.
    headers: list[tuple[str, bytes | None]] = [
        (DEAD_LETTER_CODE, error.code.encode()),
        ("kafka_dlt-exception-fqcn", b"imagebus.BadMessage"),
        ("kafka_dlt-exception-message", f"{error.code}: {error}".encode()),
    ]
    if (value, key, kept) != (message.value, message.key, list(message.headers)):
        headers.append((DEAD_LETTER_CUT, str(len(message.value)).encode()))
    headers += [(name, text) for name, text in kept if name not in _DEAD_LETTER_REASON]
    headers.append(("kafka_dlt-original-topic", message.topic.encode()))
    if group:
        headers.append(("kafka_dlt-original-consumer-group", group.encode()))
    if message.position is not None:
        headers += [
            ("kafka_dlt-original-partition", struct.pack(">i", message.position.partition)),
            ("kafka_dlt-original-offset", struct.pack(">q", message.position.offset)),
            ("kafka_dlt-original-timestamp", struct.pack(">q", message.position.timestamp)),
            ("kafka_dlt-original-timestamp-type", b"CreateTime"),
        ]
    return Message(topic, value, key=key, headers=headers)


def _kept_headers(message: Message) -> list[tuple[str, bytes | None]]:
    """The first headers of a message, as many as a dead letter has room for."""
    kept: list[tuple[str, bytes | None]] = []
    room = DEAD_LETTER_HEADER_BYTES
    for name, value in message.headers[:DEAD_LETTER_HEADERS]:
        text = None if value is None else value[:MAX_HEADER_BYTES]
        room -= len(name.encode()) + len(text or b"")
        if room < 0:
            break
        kept.append((name, text))
    return kept
