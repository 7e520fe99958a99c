"""What the Pub/Sub side finds when it starts: an address, a project, and subscriptions that someone made by hand."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.pubsub_v1 import Subscription

from imagebus import ConfigError, connect
from imagebus.transports.pubsub import PubSubBus
from imagebus.transports.pubsub.account import read_service_account
from imagebus.transports.pubsub.clients import Clients
from imagebus.transports.pubsub.opening import check, shared
from tools.pubsub_emulator import write_account

from .buses import Bus


@pytest.fixture
def account(tmp_path: Path) -> Path:
    path = tmp_path / "google.json"
    write_account(path, "project-of-nobody")
    return path


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "http://127.0.0.1:8085",
        "not a host",
        "localhost:99999",
        "localhost:0",
        "localhost:port",
        '"127.0.0.1:8085"',
        "127.0.0.1:8085/",
        "::1:8085",
        " ",
    ],
)
def test_what_is_no_address_of_an_emulator_is_refused(
    account: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)

    with pytest.raises(ConfigError) as refused:
        connect("google", account)

    assert (
        str(refused.value) == f"PUBSUB_EMULATOR_HOST is {host!r}: expected HOST:PORT, such as 127.0.0.1:8085"
    )


@pytest.mark.parametrize(
    "host", ["[::1]:8085", " 127.0.0.1:8085 ", "emulator:8085", "emulator.a_b-c.internal:1"]
)
def test_an_address_of_an_emulator_is_taken(
    account: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)

    clients = Clients(read_service_account(account))

    assert clients.host == host.strip()
    clients.close()


@pytest.fixture
def without_projects() -> Iterator[str]:
    """The address of a service that answers as Pub/Sub does to a project that it does not have."""

    def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(
            grpc.StatusCode.NOT_FOUND, "Requested project not found or user does not have access to it"
        )
        return b""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
        def service(self, _: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_project_that_does_not_exist_is_named_with_its_file(
    account: Path, monkeypatch: pytest.MonkeyPatch, without_projects: str
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", without_projects)

    with pytest.raises(ConfigError) as refused:
        connect("google", account, topics=["requests"])

    assert str(refused.value).startswith(f"{account}: project_id 'project-of-nobody': ")
    assert "Requested project not found" in str(refused.value)


# --- a subscription that someone created by hand ---------------------------------------------------


@pytest.fixture
def clients(account: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")  # nothing is called
    clients = Clients(read_service_account(account))
    yield clients
    clients.close()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (
            {"topic": "projects/project-of-nobody/topics/another"},
            "is of projects/project-of-nobody/topics/another",
        ),
        ({"push_config": {"push_endpoint": "https://example.com/push"}}, "cannot be pulled"),
        ({"bigquery_config": {"table": "project.data.requests"}}, "cannot be pulled"),
        ({"cloud_storage_config": {"bucket": "requests"}}, "cannot be pulled"),
        ({"detached": True}, "was detached from its topic"),
    ],
    ids=["topic", "push", "BigQuery", "storage", "detached"],
)
def test_one_that_cannot_serve_the_group_is_refused(
    clients: Clients, settings: dict[str, Any], error: str
) -> None:
    plan = shared(clients, "requests", "repliers", "requests.dlt")
    made = {"name": plan.name, "topic": clients.topic("requests"), **settings}

    with pytest.raises(ConfigError, match=error) as refused:
        check(Subscription(**made), plan, clients.topic("requests"))

    assert str(refused.value).startswith("subscription requests-repliers ")
    assert str(refused.value).endswith("delete it, or choose another group")


def test_a_push_subscription_is_refused_before_anything_is_received(google_config: Path) -> None:
    bus = Bus(google_config, cloud="google")
    with PubSubBus(read_service_account(google_config), topics=[bus.requests]) as joining:
        clients = joining._clients
        made = {
            "name": clients.subscription(f"{bus.requests}-repliers"),
            "topic": clients.topic(bus.requests),
            "push_config": {"push_endpoint": "https://example.com/push"},
        }
        clients.subscriber.create_subscription(request=made)

        with pytest.raises(ConfigError, match="cannot be pulled"):
            joining.join(bus.requests, "repliers")


def test_one_that_gives_less_than_it_should_is_warned_about(
    google_config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Bus(google_config, cloud="google")
    topics = [bus.requests, f"{bus.requests}.dlt"]
    with PubSubBus(read_service_account(google_config), topics=topics) as joining:
        clients = joining._clients
        made = {
            "name": clients.subscription(f"{bus.requests}-repliers"),
            "topic": clients.topic(bus.requests),
            "filter": 'attributes.country = "de"',
        }
        clients.subscriber.create_subscription(request=made)

        joining.join(bus.requests, "repliers")

    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 2
    assert warned[0].endswith('requests that do not match it are never answered: attributes.country = "de"')
    assert warned[1].endswith(f"--dead-letter-topic={bus.requests}.dlt --max-delivery-attempts=100")
