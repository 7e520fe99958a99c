"""Google Cloud Pub/Sub as a bus, on google-cloud-pubsub.

bus.py           the connection: topics, publishing, and the end
opening.py       topics and subscriptions: created when missing, and looked at
inbox.py         a requestor's reader
member.py        a replier's: the messages in hand, and the order of steps that is the delivery guarantee
subscription.py  one subscription, which both read in the background, and the calls on it
watch.py         a subscription whose topic was deleted and created again is created anew, too
intake.py        how messages come: on a stream, or by pulling
leases.py        the messages that are ours, and until when
suspects.py      the search for a message that kills its readers
sender.py        how messages go: those that wait go together
attributes.py    headers as attributes, and the service's limits
clients.py       Google's clients from a service account, and their errors as this project's
account.py       the service account's file; login.py fetches its token
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebus.transports.pubsub.bus import PubSubBus

__all__ = ["PubSubBus"]


def __getattr__(name: str) -> Any:
    """Loaded on first use: `account.py` says what is missing where Google's client is not installed."""
    if name != "PubSubBus":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from imagebus.transports.pubsub.bus import PubSubBus

    return PubSubBus
