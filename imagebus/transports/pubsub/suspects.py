"""Which message kills its readers, found without a database.

Pub/Sub counts how often it gave a message to somebody, but all that a dead reader had waiting is counted
with what it had in the model. So messages that were given for the second time are tried a few together, and
one that was given for the third time is tried alone. Before that a flag is raised which the next reader sees
if this one dies too: an empty subscription named after the message. Making one is atomic, whoever else
tries, and Pub/Sub takes it away by itself after a day.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from google.api_core.exceptions import AlreadyExists, GoogleAPICallError
from google.pubsub_v1 import SubscriberClient

log = logging.getLogger(__name__)

FEW = 8  # messages that are tried together when they were given for the second time
ALONE = 3  # the attempt from which on a message is tried alone; Pub/Sub's count says no more than that
FLAG_SECONDS = 10.0  # for the call that raises or ends a flag
_FLAG_LIFE = timedelta(days=1)
_FLAG_KEEPS = timedelta(minutes=10)  # the least that a subscription may keep its messages; this one gets none


class Suspects:
    """Flags of one subscription, for messages of its topic."""

    def __init__(self, subscriber: SubscriberClient, subscription: str, topic: str) -> None:
        self._subscriber = subscriber
        self._subscription = subscription
        self._topic = topic
        self._raised: set[str] = set()  # by us

    def begin(self, id: str) -> bool:
        """Raise the flag of a message before it is tried alone; whether a dead reader had raised it."""
        if id in self._raised:
            return False
        flag = {
            "name": self._name(id),
            "topic": self._topic,
            "filter": f'attributes.suspect = "{id}"',  # which no message has
            "message_retention_duration": _FLAG_KEEPS,
            "expiration_policy": {"ttl": _FLAG_LIFE},
        }
        try:
            self._subscriber.create_subscription(request=flag, retry=None, timeout=FLAG_SECONDS)
        except AlreadyExists:
            return True
        except GoogleAPICallError as error:
            log.warning(
                "a message that may have killed its reader is tried without a flag: %s", error.message
            )
        self._raised.add(id)
        return False

    def end(self, id: str) -> None:
        """It has an outcome."""
        self._raised.discard(id)
        try:
            self._subscriber.delete_subscription(
                request={"subscription": self._name(id)}, retry=None, timeout=FLAG_SECONDS
            )
        except GoogleAPICallError as error:  # it goes by itself
            log.debug("a flag stays for a day: %s", error.message)

    def _name(self, id: str) -> str:
        return f"{self._subscription}.suspect-{id}"
