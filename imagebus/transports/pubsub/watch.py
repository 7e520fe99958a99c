"""Looking after a subscription: one whose topic was deleted and created again is created anew, too.

Pub/Sub leaves such a subscription in place. It still gives out what it has, and never gets a message again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from google.api_core.exceptions import GoogleAPICallError, NotFound

from imagebus.errors import ConnectionFailed, TransportError
from imagebus.transports.pubsub.clients import PASSING, Clients, code_of
from imagebus.transports.pubsub.opening import RETENTION, Place, Plan, create, delete, has_topic, look, short

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0  # between two looks: far below the service's limit, 6,000 such calls a minute and project
# Members notice at the same time, and one of them is enough: each waits up to so long and looks again.
TURN_SECONDS = 2.0
# Of a subscription that is created anew on the same topic, before the newest message that came: what was not
# answered is among those. Members recognise what they answered.
STEP_BACK = timedelta(minutes=5)


class Watch:
    """A thread that looks after the subscription of one reader.

    `is_drained` says whether an orphaned one has given out all that it has; `newest` is when the newest message
    that came was sent, None before there was one. `renewed` is called after it was created anew, `failed` when it
    cannot be.

    With `private`, nobody else reads it: one that is gone had the replies to what is open, and is a failure.
    """

    def __init__(
        self,
        clients: Clients,
        plan: Plan,
        *,
        private: bool,
        is_drained: Callable[[], bool],
        newest: Callable[[], datetime | None],
        renewed: Callable[[], None],
        failed: Callable[[TransportError], None],
    ) -> None:
        self._clients = clients
        self._plan = plan
        self._private = private
        self._is_drained = is_drained
        self._newest = newest
        self._renewed = renewed
        self._failed = failed
        self._renewing: datetime | None = None  # from when: it may be deleted, and not yet created
        self._said: str | None = None
        self._wake = threading.Event()
        self._closed = threading.Event()
        self.place: Place | None = None  # None before the first look
        self._thread = threading.Thread(target=self._run, name="imagebus-watch", daemon=True)
        self._thread.start()

    def look_soon(self) -> None:
        """Something is wrong with the subscription. Any thread may call."""
        self._wake.set()

    def close(self, seconds: float) -> None:
        """Look no more; waits up to `seconds` where it may be creating one, which then has to be deleted."""
        self._closed.set()
        self._wake.set()
        if self.place in (Place.ORPHANED, Place.GONE):
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._look()
            except GoogleAPICallError as error:
                # The reader warns when nothing answers, and fails where it may not read.
                log.debug("%s cannot be looked at: %s", self._plan.name, error.message)
            except TransportError as error:
                if self._renewing is None or not isinstance(error, ConnectionFailed):
                    self._failed(error)
                    return
                log.debug("%s cannot be created yet: %s", self._plan.name, error)
            except ValueError:  # the channel was closed meanwhile
                return
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()

    def _look(self) -> None:
        """One look, and what follows from it. Raises `GoogleAPICallError`, `TransportError`."""
        if self._renewing is not None:
            if has_topic(self._clients, self._plan.topic):
                self._renew(self._renewing)
            return
        self.place = look(self._clients, self._plan)
        if self.place is Place.ATTACHED:
            self._said = None
        elif self.place is Place.GONE and self._private:
            raise TransportError(
                f"{self._plan.name} is not there any more: it was deleted, or Pub/Sub lost it"
            )
        elif not has_topic(self._clients, self._plan.topic):
            self._say(f"topic {self._plan.topic!r} was deleted: waiting until it is created again")
        elif self.place is Place.GONE:
            newest = self._newest()
            self._renew(_long_ago() if newest is None else newest - STEP_BACK)
        else:
            self._say(
                f"topic {self._plan.topic!r} was deleted and created again: subscription {short(self._plan.name)} "
                "still is of the old one; it is read to its end and then created anew"
            )
            if self._is_drained() and self._is_our_turn():
                try:
                    delete(self._clients, self._plan.name)
                except GoogleAPICallError as error:
                    if code_of(error) in PASSING or isinstance(error, NotFound):
                        raise  # for the next look
                    raise self._clients.translate(
                        error, self._plan.name, "pubsub.subscriptions.delete"
                    ) from None
                self._renew(_long_ago())  # the new topic has nothing older than itself

    def _is_our_turn(self) -> bool:
        """Whether, after a while, no other member was faster."""
        if self._private:
            return True
        self._closed.wait(random.uniform(0, TURN_SECONDS))
        return (
            not self._closed.is_set()
            and look(self._clients, self._plan) is Place.ORPHANED
            and self._is_drained()
        )

    def _renew(self, start: datetime) -> None:
        self._renewing = start
        if create(self._clients, self._plan, start):
            log.warning("created subscription %s anew", short(self._plan.name))
        self._renewing = None
        self.place = Place.ATTACHED
        self._said = None
        self._renewed()

    def _say(self, text: str) -> None:
        """Warn, once for each state."""
        if text != self._said:
            self._said = text
            log.warning("%s", text)


def _long_ago() -> datetime:
    """When the oldest message that a topic keeps was sent, also by a clock that is days ahead of the service's.

    A subscription that seeks to a time in the future has no messages at all.
    """
    return datetime.now(UTC) - RETENTION
