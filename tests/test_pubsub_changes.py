"""Topics and subscriptions that change while both programs run, on Google's emulator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest
from google.pubsub_v1 import PublisherClient, PubsubMessage, SubscriberClient

from imagebus import Message, TransportError, load_images
from imagebus.errors import ConnectionFailed
from imagebus.transports.base import Inbox, Member
from imagebus.transports.pubsub import PubSubBus, opening, subscription, watch
from imagebus.transports.pubsub.account import read_service_account
from imagebus.transports.pubsub.clients import Clients
from imagebus.transports.pubsub.opening import Plan
from imagebus.wire.pixels import Images
from tools.pubsub_emulator import PubSubEmulator

from .buses import Bus
from .programs import Program

SECONDS = 60.0


class Admin:
    """Someone who changes the topics of a test."""

    def __init__(self, bus: Bus) -> None:
        self._clients = Clients(read_service_account(bus.config))
        self.publisher: PublisherClient = self._clients.publisher
        self.subscriber: SubscriberClient = self._clients.subscriber

    def topic(self, name: str) -> str:
        return self._clients.topic(name)

    def subscription(self, name: str) -> str:
        return self._clients.subscription(name)

    def delete_topic(self, name: str) -> None:
        self.publisher.delete_topic(topic=self.topic(name))

    def create_topic(self, name: str) -> None:
        week = {"seconds": 7 * 24 * 3600}
        self.publisher.create_topic(request={"name": self.topic(name), "message_retention_duration": week})

    def replace_topic(self, name: str) -> None:
        self.delete_topic(name)
        self.create_topic(name)

    def inbox_of(self, topic: str) -> str:
        """The full name of a topic's only subscription."""
        (name,) = self.publisher.list_topic_subscriptions(topic=self.topic(topic))
        return name

    def close(self) -> None:
        self._clients.close()


@pytest.fixture
def bus(google_config: Path) -> Iterator[Bus]:
    bus = Bus(google_config, cloud="google")
    yield bus
    bus.close()


@pytest.fixture
def admin(bus: Bus) -> Iterator[Admin]:
    admin = Admin(bus)
    yield admin
    admin.close()


@pytest.fixture(params=[False, True], ids=["pulls", "stream"])
def connected(bus: Bus, request: pytest.FixtureRequest) -> Iterator[Callable[[], PubSubBus]]:
    """Connections of this test's, which all read in one of the two ways."""
    opened: list[PubSubBus] = []

    def connect() -> PubSubBus:
        topics = [bus.requests, bus.replies, f"{bus.requests}.dlt"]
        opened.append(PubSubBus(read_service_account(bus.config), topics=topics, stream=request.param))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def package() -> Images:
    return load_images().images[:5]


def receive(reader: Inbox | Member, *values: bytes) -> set[bytes]:
    """What comes, and is committed, until all of `values` have."""
    came: set[bytes] = set()
    deadline = time.monotonic() + SECONDS
    while not came >= set(values):
        assert time.monotonic() < deadline, came
        messages = reader.receive(100, 0.2)
        if isinstance(reader, Member):
            reader.commit(messages).result()
        came |= {message.value for message in messages}
    return came


# --- a topic that is deleted and created again -----------------------------------------------------


def test_a_running_replier_follows_a_topic_that_is_created_again(bus: Bus, admin: Admin) -> None:
    replier = bus.replier()
    with bus.client() as client:
        client.predict(package())

        admin.replace_topic(bus.requests)
        meanwhile = client.submit(package())
        replier.wait_for(f"created subscription {bus.requests}-repliers anew")

        assert len(meanwhile.result(SECONDS).predictions) == 5
        assert len(client.predict(package())) == 5
    assert replier.stop() == 0
    assert "read to its end and then created anew" in replier.wait_for("deleted and created again")


def test_a_running_requestor_follows_a_topic_that_is_created_again(bus: Bus, admin: Admin) -> None:
    replier = bus.replier()
    with bus.client() as client:
        client.predict(package())

        admin.replace_topic(bus.replies)

        assert len(client.predict(package())) == 5
        assert client.failure is None
        assert len(client.predict(package())) == 5
    assert replier.stop() == 0


def test_a_replier_waits_for_a_topic_that_is_deleted(bus: Bus, admin: Admin) -> None:
    replier = bus.replier()
    with bus.client() as client:
        client.predict(package())

        admin.delete_topic(bus.requests)
        replier.wait_for(f"topic '{bus.requests}' was deleted: waiting until it is created again")
        admin.create_topic(bus.requests)

        assert len(client.predict(package())) == 5
    assert replier.stop() == 0


def test_what_the_old_topic_had_is_received_before_the_new_ones(
    bus: Bus, admin: Admin, connected: Callable[[], PubSubBus]
) -> None:
    with connected() as sender:
        sender.join(bus.requests, "repliers")
        for number in range(3):
            sender.publish(Message(bus.requests, b"old %d" % number))
    admin.replace_topic(bus.requests)
    with connected() as sender:
        sender.publish(Message(bus.requests, b"new"))

    members = [connected().join(bus.requests, "repliers") for _ in range(2)]
    came: list[bytes] = []
    deadline = time.monotonic() + SECONDS
    while b"new" not in came and time.monotonic() < deadline:
        for member in members:
            messages = member.receive(100, 0.2)
            member.commit(messages).result()
            came += [message.value for message in messages]

    # Once more, perhaps: the new subscription goes back to the oldest message after it was created.
    assert {*came[: came.index(b"new")]} == {b"old 0", b"old 1", b"old 2"}
    (name,) = admin.publisher.list_topic_subscriptions(topic=admin.topic(bus.requests))
    assert name.endswith(f"/{bus.requests}-repliers")


def test_a_replay_waits_for_the_letters_of_a_topic_that_was_created_again(bus: Bus, admin: Admin) -> None:
    def replay() -> Program:
        program = bus.start("replier.py", "--replay-dlt")
        assert program.wait() == 0, program
        return program

    letters = f"{bus.requests}.dlt"
    assert "sent 0 back" in replay().wait_for("sent 0")
    admin.replace_topic(letters)
    admin.publisher.publish(topic=admin.topic(letters), messages=[PubsubMessage(data=b"a letter")])

    assert "sent 1 back" in replay().wait_for("sent 1")


# --- a subscription that is deleted ----------------------------------------------------------------


def test_a_member_gets_what_it_has_not_answered_after_its_subscription_was_deleted(
    bus: Bus, admin: Admin, connected: Callable[[], PubSubBus]
) -> None:
    with connected() as working:
        member = working.join(bus.requests, "repliers")
        working.publish(Message(bus.requests, b"answered"))
        receive(member, b"answered")

        admin.subscriber.delete_subscription(subscription=admin.subscription(f"{bus.requests}-repliers"))
        working.publish(Message(bus.requests, b"meanwhile"))

        assert b"answered" not in receive(member, b"meanwhile")


class TenMinutesAhead(datetime):
    """A clock that is wrong, as on a machine without a time server."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(minutes=10)


def test_a_clock_that_is_ahead_costs_no_message_when_a_subscription_is_created_anew(
    bus: Bus, admin: Admin, connected: Callable[[], PubSubBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is older than the time that a subscription seeks to counts as acknowledged."""
    for module in (watch, opening, subscription):
        monkeypatch.setattr(module, "datetime", TenMinutesAhead, raising=False)
    with connected() as working:
        member = working.join(bus.requests, "repliers")

        admin.subscriber.delete_subscription(subscription=admin.subscription(f"{bus.requests}-repliers"))
        working.publish(Message(bus.requests, b"meanwhile"))

        receive(member, b"meanwhile")


def test_a_subscription_that_cannot_be_created_anew_at_once_is_so_later(
    bus: Bus, admin: Admin, connected: Callable[[], PubSubBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one is deleted by then: one that is not there would be a failure for good."""
    tries: list[Plan] = []

    def unavailable_at_first(clients: Clients, plan: Plan, start: datetime | None) -> bool:
        tries.append(plan)
        if len(tries) == 1:
            raise ConnectionFailed("no answer: the service is unavailable")
        return opening.create(clients, plan, start)

    with connected() as reading:
        inbox = reading.inbox(bus.replies)
        monkeypatch.setattr(watch, "create", unavailable_at_first)

        admin.replace_topic(bus.replies)
        reading.publish(Message(bus.replies, b"reply"))

        receive(inbox, b"reply")
    assert len(tries) == 2


def test_a_replier_goes_on_after_its_subscription_was_deleted(bus: Bus, admin: Admin) -> None:
    replier = bus.replier()
    with bus.client() as client:
        client.predict(package())

        admin.subscriber.delete_subscription(subscription=admin.subscription(f"{bus.requests}-repliers"))

        assert len(client.predict(package())) == 5
    assert replier.stop() == 0
    replier.wait_for(f"created subscription {bus.requests}-repliers anew")


def test_an_inbox_that_is_deleted_is_a_failure_for_good(
    bus: Bus, admin: Admin, connected: Callable[[], PubSubBus]
) -> None:
    with connected() as reading:
        inbox = reading.inbox(bus.replies)
        admin.subscriber.delete_subscription(subscription=admin.inbox_of(bus.replies))

        for _ in range(2):
            with pytest.raises(TransportError, match="is not there any more"):  # noqa: PT012
                while True:
                    inbox.receive(1, 0.1)


@pytest.mark.full
def test_both_programs_say_that_the_emulator_lost_everything_and_start_anew(
    tmp_path: Path, google_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PubSubEmulator() as own:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", own.host)
        bus = Bus(google_config, cloud="google")
        try:
            replier = bus.replier()
            requestor = bus.start("requestor.py", "--interval", "0.05")
            requestor.wait_for("package 1 ")

            own.restart()

            assert requestor.wait() == 1
            assert "is not there any more" in requestor.err[-1]
            replier.wait_for(f"topic '{bus.requests}' was deleted")
            again = bus.start("requestor.py", "--count", "20", "--interval", "0.05")
            assert again.wait() == 0, (again, replier)
            assert replier.stop() == 0, replier
        finally:
            bus.close()
