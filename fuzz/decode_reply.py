"""Any reply at a requestor is read, with fields of their types that can be shown, or refused as malformed.

Most changes to the bytes of a JSON text only make it invalid, so every other change is one to its
values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

from imagebus.errors import BadMessage
from imagebus.wire.message import Message
from imagebus.wire.results import ErrorReply, Reply, decode_reply

ODD: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 0.5, 2**64, 1e300, "", "a", "\x1b[2J", "x" * 2000, [], {}),
    [["a", 0.5]],
    {"label": "a", "probability": 0.5, "top": [["a", 0.5]]},
    {"code": "A", "message": "b", "retryable": False},
)


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    check(data)


def check(value: bytes) -> Reply | ErrorReply | None:
    """Read one reply and raise `AssertionError` when it is not valid; None if it was refused."""
    try:
        reply = decode_reply(Message("replies", value))
    except BadMessage as error:
        assert error.code in ("JSON", "TOO_LARGE")
        assert str(error).isprintable()
        return None
    texts = [reply.id, reply.sha256]
    if isinstance(reply, ErrorReply):
        texts += [reply.code, reply.message]
        assert isinstance(reply.retryable, bool)
    else:
        texts += [reply.model.name, reply.model.version, reply.model.sha256]
        for prediction in reply.predictions:
            for label, probability in ((prediction.label, prediction.probability), *prediction.top):
                texts.append(label)
                assert 0 <= probability <= 1
    assert all(text.isprintable() for text in texts)
    return reply


def mutated(data: bytes, seed: int) -> bytes:
    """The JSON text `data` with one of its values gone, or another in its place."""
    chance = Random(seed)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places = list(_places(body))
    if not places:
        return json.dumps(chance.choice(ODD)).encode()
    container, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del container[key]
        case 1:
            other, its_key = chance.choice(places)
            container[key] = deepcopy(other[its_key])
        case _:
            container[key] = deepcopy(chance.choice(ODD))
    return json.dumps(body).encode()


def _places(body: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in `body`, as the container and the key or place in it."""
    if isinstance(body, (dict, list)):
        for key, value in body.items() if isinstance(body, dict) else enumerate(body):
            yield body, key
            yield from _places(value)
