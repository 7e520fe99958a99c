"""Deadlines that caller and replier agree on although their clocks do not."""

from __future__ import annotations

import logging
import time

from imagebus.wire.envelope import REPLIER_TIME, integer_of
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

KNOWN_SECONDS = 600.0  # a clock that was ahead may be right again; if it is not, that is learnt anew


class Deadlines:
    """Unix times in milliseconds by the clock of the replier that is ahead most, as far as is known."""

    def __init__(self) -> None:
        self._ahead = 0  # ms, of this machine's clock
        self._known_until = 0.0  # time.monotonic()

    def after(self, seconds: float) -> int:
        """When so many seconds have passed."""
        if time.monotonic() > self._known_until:
            self._ahead = 0
        return round((time.time() + seconds) * 1000) + self._ahead

    def learn(self, expired: Message, deadline: int) -> bool:
        """Take a replier's time from its `EXPIRED` for a request that is in time by our clock.

        False if it is for another copy than the one with this deadline, does not say for which, or contradicts
        itself: it teaches nothing, and a request that is sent again would be refused again.
        """
        replier_time = integer_of(expired.header(REPLIER_TIME))
        if (
            replier_time is None
            or integer_of(expired.header("deadline")) != deadline
            or replier_time < deadline
        ):
            return False
        ahead = replier_time - round(time.time() * 1000)
        self._known_until = time.monotonic() + KNOWN_SECONDS
        if ahead > self._ahead:
            self._ahead = ahead
            log.warning(
                "the clock of a replier is %.1f s ahead of this machine's: deadlines are moved by that",
                ahead / 1000,
            )
        return True
