"""The search for a message that kills its readers, without a database.

Pub/Sub counts the deliveries of a message, but a dead reader's waiting messages count like those in its
model. So messages delivered for the second time are tried a few together, and one delivered for the third
time is tried alone. Before that, a flag is raised that the next reader sees if this one dies too: an empty
subscription named after the message. Creating one is atomic, and Pub/Sub deletes it by itself after a day.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from google.api_core.exceptions import AlreadyExists, GoogleAPICallError
from google.pubsub_v1 import SubscriberClient

log = logging.getLogger(__name__)

# Messages tried together when delivered for the second time. Fewer than on Kafka: the third time, each costs a flag.
FEW = 8
ALONE = 3  # from this attempt on, a message is tried alone; Pub/Sub's count shows no more than that
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
        """Raise the flag of a message before it is tried alone; returns whether a dead reader had raised it."""
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
