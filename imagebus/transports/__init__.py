"""One seam, one file per bus. `connect` picks the bus by its `-c` name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagebus.config import read_settings
from imagebus.errors import ConfigError

if TYPE_CHECKING:
    from imagebus.transports.base import Transport

CLOUDS = ("kafka",)  # the names that `-c` takes


def connect(
    cloud: str,
    config: str | Path,
    *,
    topics: Sequence[str] = (),
    partitions: int = 6,
    transactional_id: str | None = None,
) -> Transport:
    """Read the config file, connect, and create the missing ones of `topics`.

    With a `transactional_id`, which no other live program may have, each `commit` is a transaction.
    Raises `ConfigError` or `TransportError`, so that what is wrong is known before the first message.
    """
    if cloud == "kafka":
        from imagebus.transports.kafka import KafkaTransport  # for those who use it

        settings = read_settings(config)
        return KafkaTransport(
            settings, topics=topics, partitions=partitions, transactional_id=transactional_id
        )
    raise ConfigError(f"-c {cloud}: expected one of {', '.join(CLOUDS)}")
