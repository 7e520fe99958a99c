"""A group whose coordinator is away: its members say so, and take it for no end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from imagebus.broker import EmbeddedBroker
from imagebus.transports.kafka import KafkaBus
from imagebus.transports.kafka.config import read_settings

SECONDS = 60.0

pytestmark = pytest.mark.usefixtures("kafka_jars_here")


def write_config(folder: Path, broker: EmbeddedBroker, more: str = "") -> Path:
    path = folder / "kafka.config"
    path.write_text(f"bootstrap.servers = {broker.bootstrap}\n{more}")
    return path


def said_of_the_group(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "group" in line]


def test_a_group_that_no_broker_coordinates_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on one broker with the setting for three: it serves every topic, and no group."""
    monkeypatch.setattr("imagebus.transports.kafka.member.UNASSIGNED_SECONDS", 1.0)
    with EmbeddedBroker(config={"offsets.topic.replication.factor": "3"}) as broker:
        settings = read_settings(write_config(tmp_path, broker))
        with KafkaBus(settings, topics=["requests"]) as bus:
            member = bus.join("requests", "repliers")
            deadline = time.monotonic() + SECONDS
            while not (said := said_of_the_group(caplog)) and time.monotonic() < deadline:
                assert member.receive(1, 0.2) == []

            assert member.partitions is None
    assert said == [
        "still waiting for partitions of topic requests: no broker coordinates the group repliers (see the topic "
        "__consumer_offsets and offsets.topic.replication.factor), or another member holds up its rebalance"
    ]


def test_partitions_that_are_lost_are_no_end_of_what_they_have(tmp_path: Path) -> None:
    with EmbeddedBroker(config={"group.min.session.timeout.ms": "1000"}) as broker:
        config = write_config(tmp_path, broker, "session.timeout.ms = 1500\nheartbeat.interval.ms = 300\n")
        told: list[Sequence[int]] = []
        with KafkaBus(read_settings(config), topics=["requests"], partitions=2) as bus:
            member = bus.join("requests", "repliers", told.append, bounded=True)
            deadline = time.monotonic() + SECONDS
            while not member.at_end and time.monotonic() < deadline:
                member.receive(1, 0.2)
            before = member.partitions, member.at_end

            broker.pause(0)  # longer than the session
            while member.partitions is not None and time.monotonic() < deadline:
                member.receive(1, 0.2)
            meanwhile = member.partitions, member.at_end
            broker.resume(0)
            while not member.at_end and time.monotonic() < deadline:
                member.receive(1, 0.2)

            assert before == ((0, 1), True)
            assert meanwhile == (None, False)
            assert (member.partitions, member.at_end) == ((0, 1), True)
            assert told == [(0, 1), (), (0, 1)]
