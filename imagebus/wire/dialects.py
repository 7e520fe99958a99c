"""The dialects of requests that a replier understands: one row each.

A row says how to recognise such a request, how to read it, and how to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from imagebus.errors import BadMessage
from imagebus.wire import envelope, openinference, pictures, pixels, results
from imagebus.wire.envelope import JPEG, OWN, PNG, RAW, V2_JSON, Envelope
from imagebus.wire.message import Message
from imagebus.wire.pixels import Images, ImageSpecLike
from imagebus.wire.results import ModelIdentity, Probabilities, Ranked


@dataclass(frozen=True, slots=True)
class Dialect:
    """How requests of one kind are read and answered; all but the last two raise `BadMessage`.

    `readers` decodes a value into images, by content type, which also identifies the dialect.
    """

    read_envelope: Callable[[Message, Mapping[str, str], str], Envelope]
    readers: Mapping[str, Callable[[Envelope, bytes, ImageSpecLike, int], Images]]
    write_reply: Callable[[Envelope, ModelIdentity, Sequence[str], Probabilities, Ranked | None], bytes]
    write_error: Callable[[Envelope, BadMessage, bool], bytes]


DIALECTS = {
    OWN: Dialect(
        envelope.read_envelope,
        {RAW: pixels.read_raw, PNG: pictures.read_one, JPEG: pictures.read_one},
        results.write_reply,
        results.write_error,
    ),
    openinference.NAME: Dialect(
        openinference.read_envelope,
        {V2_JSON: openinference.read_inputs},
        openinference.write_reply,
        openinference.write_error,
    ),
}
BY_CONTENT_TYPE = {content_type: dialect for dialect in DIALECTS.values() for content_type in dialect.readers}
