"""Advertised addresses (`advertised.listeners`) that cannot be reached.

A broker answers at `bootstrap.servers` and sends every client on to the address that it advertises. Seen from another
host or container, that may lead nowhere, and librdkafka then keeps trying in silence.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Set

from imagebus.transports.kafka.probe import why_unreachable

TRIED = 3  # brokers of a large cluster; one that is just down is no mistake in the settings
REACH_SECONDS = 4.0  # for a connection: a line with a round trip of 1 s that loses the first packet
# Such as "sasl_ssl://host:9092/1: Failed to resolve …" or "GroupCoordinator: host:9092: Connect to …".
_FAILED = re.compile(
    r"(\w+://)?(\w+: )?(?P<address>[^/ ]+:\d+)(/\d+)?: (?P<reason>.*?)( \(after \d+ms in state (?P<state>\w+).*)?$"
)


def learned(statistics: str) -> set[str]:
    """The addresses that brokers gave as their own, from librdkafka's statistics.

    Metadata has them too, but may never come: once librdkafka knows them, it asks only there.
    """
    brokers = json.loads(statistics)["brokers"].values()
    return {broker["nodename"] for broker in brokers if broker["nodeid"] >= 0}


def servers_of(bootstrap: str) -> set[str]:
    """The addresses in `bootstrap.servers`."""
    return {server.strip() for server in bootstrap.split(",")}


def nowhere(addresses: Set[str], bootstrap: str) -> str | None:
    """Why brokers can be reached at none of their `addresses`; None if one can, or is where it was asked."""
    if not addresses or addresses & servers_of(bootstrap):
        return None
    trouble: str | None = None
    for address in random.sample(sorted(addresses), min(TRIED, len(addresses))):
        reason = why_unreachable(address, REACH_SECONDS)
        if reason is None:
            return None
        trouble = trouble or (
            f"a broker cannot be reached at {address}, its address by its advertised.listeners: {reason}"
        )
    return trouble


def unreached(error: str, bootstrap: str) -> tuple[str, str] | None:
    """Address and reason from librdkafka's words on a broker at an address of its own; None for other errors."""
    found = _FAILED.match(error)
    if found is None or found["state"] == "UP" or found["address"] in servers_of(bootstrap):
        return None
    return found["address"], found["reason"]


def no_answer(address: str, reason: str) -> str:
    """One line on a broker that does not answer, by whatever fault."""
    return (
        f"no answer from the broker at {address}: it is down, or its advertised.listeners is wrong: {reason}"
    )
