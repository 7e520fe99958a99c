"""Dead letters."""

from __future__ import annotations

from imagebus.errors import BadMessage
from imagebus.wire.dead_letters import dead_letter

from .rig import request


def test_a_dead_letter_keeps_the_bytes_and_says_why() -> None:
    message = request(b"\x00\xff", strange=b"\xfe")

    letter = dead_letter(message, "requests.dlt", BadMessage("NO_ID", "no id"))

    assert (letter.topic, letter.value) == ("requests.dlt", b"\x00\xff")
    assert ("strange", b"\xfe") in letter.headers
    assert letter.header("dead_letter_code") == "NO_ID"
    assert letter.header("kafka_dlt-original-topic") == "requests"
    assert letter.header("kafka_dlt-exception-message") == "NO_ID: no id"
