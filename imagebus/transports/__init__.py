"""One seam, and the buses behind it. `connect` picks the bus by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagebus.errors import ConfigError
from imagebus.transports.pubsub.account import need_google, read_service_account

if TYPE_CHECKING:
    from imagebus.transports.base import Bus

GOOGLE = ("google", "gcp", "pubsub")
CLOUDS = ("kafka", *GOOGLE)  # the names that `connect` takes


def connect(
    cloud: str,
    config: str | Path,
    *,
    topics: Sequence[str] = (),
    partitions: int = 6,
    transactional_id: str | None = None,
    own_partition: bool = False,
) -> Bus:
    """Read the config file, connect, and create the missing ones of `topics`.

    `partitions` is for Kafka topics that are created. With a `transactional_id`, which no other live
    program may have, each `commit` is a transaction; only Kafka has those. With `own_partition`, replies are
    requested in one partition, and no other is read; Pub/Sub filters instead.
    Raises `ConfigError` or `TransportError`, so that mistakes show before the first message.
    """
    # A bus is imported only where it is used.
    if cloud == "kafka":
        from imagebus.transports.kafka import KafkaBus
        from imagebus.transports.kafka.config import read_settings

        settings = read_settings(config)
        return KafkaBus(
            settings,
            topics=topics,
            partitions=partitions,
            transactional_id=transactional_id,
            own_partition=own_partition,
        )
    if cloud in GOOGLE:
        if transactional_id is not None:
            raise ConfigError("transactional_id: Pub/Sub has no transactions, only Kafka has")
        need_google()
        account = read_service_account(config)
        from imagebus.transports.pubsub import PubSubBus

        return PubSubBus(account, topics=topics)
    raise ConfigError(f"cloud {cloud!r}: expected one of {', '.join(CLOUDS)}")
