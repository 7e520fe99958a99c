"""A request that is neither answered nor timed out, as its client keeps it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from imagebus.backoff import Backoff
from imagebus.errors import PublishFailed, RequestTimeout

if TYPE_CHECKING:
    from imagebus.errors import ImageBusError, TransportError
    from imagebus.futures import ReplyFuture
    from imagebus.resends import Place
    from imagebus.wire.message import Message
    from imagebus.wire.results import Reply

# Seconds until an unanswered request may be re-sent under the same id, if `resends.py` has a reason: the first time,
# and at most. Not before a killed replier is replaced (6 to 13 s).
RESEND = (20.0, 60.0)
RETRY = (0.5, 5.0)  # the same for one not confirmed by the brokers
RECONSIDER_SECONDS = 1.0  # before one that there is no reason to re-send is looked at again


class Pending:
    """One request and its future. Times are those of `time.monotonic()` unless they say otherwise."""

    def __init__(
        self, future: ReplyFuture, message: Message, *, images: int, top: int, timeout: float, expires: int
    ) -> None:
        now = time.monotonic()
        self.future = future
        self.message = message
        self.sha256 = message.header("sha256") or ""
        self.images = images
        self.top = top  # labels asked for
        self.timeout = timeout  # seconds
        self.deadline = now + timeout
        self.expires = expires  # Unix time in ms: the `deadline` that the last copy carries
        self.sent = time.perf_counter()
        self.resends = Backoff(*RESEND)  # when confirmed
        self.retries = Backoff(*RETRY)  # when not
        self.resend_at = now + self.resends.next()
        self.copies = 0  # that were sent
        self.confirmed = False  # one of them
        self.place: Place | None = None  # of the last one, once it is confirmed
        self.refusal: TransportError | None = None  # why that was not confirmed

    def overdue(self, id: str) -> ImageBusError:
        """Its outcome at its deadline."""
        if self.confirmed:
            return RequestTimeout(f"no reply to request {id} within {self.timeout:g} s")
        reason = self.refusal or f"nothing was heard of it for {self.timeout:g} s"
        return PublishFailed(f"request {id} was not confirmed by the brokers: {reason}")

    def is_answered_by(self, reply: Reply) -> bool:
        """Whether the reply has a prediction for each image, with at most as many labels as were asked for."""
        return len(reply.predictions) == self.images and all(
            1 <= len(each.top) <= self.top for each in reply.predictions
        )

    def reconsider(self, now: float) -> None:
        """There is no reason to re-send it yet."""
        self.resend_at = now + RECONSIDER_SECONDS
