"""Any reply at a requestor is read, with fields of their types that can be shown, or refused as malformed."""

from __future__ import annotations

from imagebus.errors import BadMessage
from imagebus.messages import ErrorReply, Message, Reply, decode_reply


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    check(data)


def check(value: bytes) -> Reply | ErrorReply | None:
    """Read one reply and raise `AssertionError` when it is not what it claims; None: it was refused."""
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
