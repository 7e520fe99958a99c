"""One real Apache Kafka and one Pub/Sub emulator for the whole test session, and the scripts as processes."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault

import pytest
from hypothesis import settings

from imagebus.broker import EmbeddedBroker
from imagebus.errors import BrokerError
from tools.pubsub_emulator import PubSubEmulator, what_is_missing, write_account

from .buses import Bus
from .groups import ByGroup, group_of
from .lender import Lender, LentBroker, lender_at

# Without deadlines, which a busy machine misses; in CI the same examples each time.
settings.register_profile("imagebus", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("imagebus")

URL = pytest.StashKey[str]()  # of the lender, in the process that hands out the tests


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "full: takes long, as the full form of what others try in a shorter one; `make test-full` runs these",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups first, so that none is begun when the other processes have nothing left."""
    items.sort(key=lambda item: group_of(item.nodeid) is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test may be skipped at home, where a part is missing; in CI that is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped in CI: {report.longreprtext}"
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return ByGroup(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist is about to start one of the processes that run tests: tell it who lends."""
    config: pytest.Config = node.config
    if URL not in config.stash:
        lender = Lender()
        config.add_cleanup(partial(lender.__exit__, None, None, None))
        config.stash[URL] = lender.serve()
    node.workerinput["lender"] = config.stash[URL]


@pytest.fixture(scope="session")
def lender(pytestconfig: pytest.Config) -> Iterator[Lender]:
    """What starts broker and emulator: in this process, or in the one that hands out the tests."""
    given: dict[str, str] = getattr(pytestconfig, "workerinput", {})
    if "lender" in given:
        yield lender_at(given["lender"])
    else:
        with Lender() as lender:
            yield lender


@pytest.fixture(scope="session")
def kafka_jars_here(lender: Lender) -> None:
    """Skips where Apache Kafka can be had neither from Maven nor from the cache."""
    try:
        lender.fetch_kafka()
    except (BrokerError, Fault) as error:
        pytest.skip(f"no Apache Kafka: {error}")


@pytest.fixture(scope="session")
def broker(kafka_jars_here: None, lender: Lender) -> EmbeddedBroker:
    """The embedded broker on a free port, with one node; all tests share it, none kills it."""
    return LentBroker(*lender.broker())


@pytest.fixture(scope="session")
def emulator(lender: Lender) -> PubSubEmulator:
    """Google's Pub/Sub emulator, shared alike. Skips where it is not installed."""
    missing = what_is_missing()
    if missing:
        pytest.skip(missing)
    return PubSubEmulator(port=lender.emulator())


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
