"""One real Apache Kafka and one Pub/Sub emulator for the whole test session, and the scripts as processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from imagebus.broker import EmbeddedBroker
from imagebus.broker.jars import kafka_jars
from imagebus.errors import BrokerError
from tools.pubsub_emulator import PubSubEmulator, what_is_missing, write_account

from .buses import Bus

# Without deadlines, which a busy machine misses; in CI the same examples each time.
settings.register_profile("imagebus", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("imagebus")


@pytest.fixture(scope="session")
def kafka_jars_here() -> None:
    """Skips at home where Apache Kafka can be had neither from Maven nor from the cache; fails in CI."""
    try:
        kafka_jars()
    except BrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Apache Kafka: {error}")


@pytest.fixture(scope="session")
def broker(kafka_jars_here: None) -> Iterator[EmbeddedBroker]:
    """The embedded broker on a free port, with one node."""
    # Some tests let members of a group die, and have it missed sooner.
    with EmbeddedBroker(config={"group.min.session.timeout.ms": "1000"}) as broker:
        yield broker


@pytest.fixture(scope="session")
def emulator() -> Iterator[PubSubEmulator]:
    """Google's Pub/Sub emulator. Skips at home where it is not installed; fails in CI."""
    missing = what_is_missing()
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with PubSubEmulator() as emulator:
        yield emulator


@pytest.fixture
def google_config(emulator: PubSubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service account's file, and the emulator in the environment, for the scripts too."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.host)
    path = tmp_path / "google.json"
    write_account(path, emulator.project)
    return path


@pytest.fixture
def config(broker: EmbeddedBroker, tmp_path: Path) -> Path:
    """A config file that names the broker."""
    path = tmp_path / "kafka.config"
    path.write_text(f"bootstrap.servers = {broker.bootstrap}\n")
    return path


@pytest.fixture
def bus(config: Path) -> Iterator[Bus]:
    """Two topics, and the scripts on them; whatever was started is ended."""
    bus = Bus(config)
    yield bus
    bus.close()
