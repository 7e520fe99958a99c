"""Google Cloud Pub/Sub as a bus, on google-cloud-pubsub.

bus.py           the connection: topics, publishing, and the end
inbox.py         a requestor's reader
member.py        a replier's: what is in hand, and the order of things that is the delivery guarantee
subscription.py  what both read: one subscription, in the background, and the calls on it
intake.py        how messages come: on a stream, or by asking
leases.py        what is ours, and until when
suspects.py      which message kills its readers
sender.py        how messages go: what waits goes together
attributes.py    headers as attributes, and the service's limits
clients.py       Google's clients from a service account, and their errors as this project's
account.py       the service account's file; login.py asks for its token
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
