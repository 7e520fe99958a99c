"""The same two scripts on Google Cloud Pub/Sub, against Google's own emulator."""

from __future__ import annotations

import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import orjson
import pytest
from google.pubsub_v1 import SubscriberClient

from imagebus import (
    CommitFailed,
    ConfigError,
    Message,
    OnnxClassifier,
    TooLarge,
    TransportError,
    connect,
    load_images,
)
from imagebus.batching import fill
from imagebus.errors import AccessDenied, ConnectionFailed
from imagebus.transports.base import Member
from imagebus.transports.pubsub import PubSubBus
from imagebus.transports.pubsub.account import read_service_account
from imagebus.transports.pubsub.clients import Clients
from imagebus.transports.pubsub.suspects import FEW
from imagebus.wire.envelope import sha256_hex
from imagebus.wire.pixels import encode_request
from tools.pubsub_emulator import PubSubEmulator

from .buses import Bus
from .cut_connection import Cable
from .fakes import package
from .programs import ROOT, Program, python
from .token_server import TokenServer, new_key, pem, write_account

QUIET = 1.0  # seconds without a message, on a bus that is not busy: that was all
FRAGILE = "tests.faults.fragile"


@pytest.fixture
def bus(google_config: Path) -> Iterator[Bus]:
    """Two topics on the emulator, and the scripts on them."""
    bus = Bus(google_config, cloud="google")
    yield bus
    bus.close()


class Failed(grpc.RpcError):  # type: ignore[misc]  # it has no types
    """What the emulator never answers: it has no rights, and is never away."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "User not\nauthorized"


def connected(bus: Bus, *topics: str) -> PubSubBus:
    return PubSubBus(read_service_account(bus.config), topics=topics)


def received(bus: PubSubBus, member: Member, topic: str, *values: bytes) -> list[Message]:
    """What was just published, when it came."""
    for value in values:
        bus.publish(Message(topic, value))
    found: list[Message] = []
    while len(found) < len(values):
        came = member.receive(len(values), 30)
        assert came, f"{len(found)} of {len(values)} messages came"
        found += came
    return found


def read_all(bus: Bus, topic: str) -> list[Message]:
    """Everything that was ever sent to a topic."""
    found: list[Message] = []
    with connected(bus, topic) as reading:
        reader = reading.join(topic, f"reader-{uuid.uuid4()}")
        while messages := reader.receive(1000, QUIET):
            reader.commit(messages).result()
            found += messages
    return found


def subscriptions(bus: Bus) -> list[str]:
    """The names of all that have to do with this test."""
    clients = Clients(read_service_account(bus.config))
    client: SubscriberClient = clients.subscriber
    listed = client.list_subscriptions(request={"project": f"projects/{clients.project}"})
    names = [each.name.rpartition("/")[2] for each in listed]
    clients.close()
    return sorted(name for name in names if bus.requests in name or bus.replies in name)


# --- the main job ------------------------------------------------------------------------------


def test_the_replier_may_be_first(bus: Bus) -> None:
    replier = bus.replier()

    requestor = bus.start("requestor.py", "--count", "20", "--interval", "0.01")

    assert requestor.wait() == 0, requestor
    assert "sent 20, answered 20, failed 0, lost 0\n" in requestor.out
    assert replier.stop() == 0
    assert "20 requests, 100 images, 0 errors, 0 dead letters" in replier.wait_for("stopped: ")
    assert any("using the emulator at " in line for line in replier.err)


def test_the_requestor_may_be_first(bus: Bus) -> None:
    requestor = bus.start("requestor.py", "--count", "20", "--interval", "0.01")
    requestor.wait_for("waiting for a replier")

    bus.replier()

    assert requestor.wait() == 0, requestor
    assert "sent 20, answered 20, failed 0, lost 0\n" in requestor.out


def test_two_repliers_share_the_work(bus: Bus) -> None:
    repliers = [bus.replier("--max-batch-size", "1"), bus.replier("--max-batch-size", "1")]

    requestor = bus.start("requestor.py", "--count", "200", "--interval", "0.005")

    assert requestor.wait() == 0, requestor
    served = []
    for replier in repliers:
        assert replier.stop() == 0
        served.append(int(replier.wait_for("stopped: ").partition("stopped: ")[2].split()[0]))
    assert sum(served) == 200
    assert min(served) > 0


def test_two_requestors_get_their_own_replies(bus: Bus) -> None:
    bus.replier()
    requestors = [
        bus.start("requestor.py", "--json", "--count", "20", "--interval", "0.01") for _ in range(2)
    ]

    assert [requestor.wait() for requestor in requestors] == [0, 0]
    ids = [{orjson.loads(line)["id"] for line in requestor.out} for requestor in requestors]
    assert [len(each) for each in ids] == [20, 20]
    assert not ids[0] & ids[1]


def test_a_requestors_subscription_is_gone_with_it_and_the_repliers_stays(bus: Bus) -> None:
    bus.replier()
    requestor = bus.start("requestor.py")
    requestor.wait_for("package 1 ")
    assert len(subscriptions(bus)) == 2

    assert requestor.stop() == 0

    assert subscriptions(bus) == [f"{bus.requests}-repliers"]


# --- nothing is lost ---------------------------------------------------------------------------


def test_every_package_is_answered_once_whatever_is_killed_or_cut(
    bus: Bus, emulator: PubSubEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = 5000
    sample = load_images()
    model = OnnxClassifier(ROOT / "models" / "fashion.onnx")
    labels = [model.labels[index] for index in model.predict(sample.images).argmax(axis=1)]
    with Cable(emulator.host) as cable:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", cable.host)
        replier = bus.replier()
        with bus.client() as client:
            futures = {}
            for number in range(packages):
                id = str(uuid.uuid4())
                futures[id] = number, client.submit(sample.package(number, 5)[0], id=id)
                if number in (1000, 2500, 4000):
                    replier.kill()
                    replier = bus.replier()
                if number in (1750, 3250):
                    cable.cut()
                time.sleep(0.002)
            wrong = 0
            for number, future in futures.values():
                answered = [each.label for each in future.result(120).predictions]
                wrong += answered != [labels[(number * 5 + place) % len(labels)] for place in range(5)]
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.host)
    replies = Counter((reply.key or b"").decode() for reply in read_all(bus, bus.replies))

    with capsys.disabled():
        print(f"\n{packages} packages on Pub/Sub, 3 kills, 2 cuts: {replies.total() - len(replies)} repeats")
    assert wrong == 0
    assert set(replies) == set(futures)


@pytest.mark.full
def test_a_model_slower_than_the_lease_answers_once(bus: Bus) -> None:
    slow = python(FRAGILE, "sluggish", "25000", *bus.options())
    try:
        slow.wait_for(" ready: ")
        with bus.client() as client:
            reply = client.predict(load_images().images[:5], timeout=120)
        assert slow.stop() == 0
    finally:
        slow.kill()

    # The caller asks again after 20 s, under the same id: each time asked is one answer, and it sees one.
    assert len(reply) == 5
    assert len(read_all(bus, bus.replies)) == len(read_all(bus, bus.requests)) <= 2


def test_a_frozen_repliers_messages_go_to_another_and_what_is_stale_of_its_own_is_dropped(bus: Bus) -> None:
    frozen = python(FRAGILE, "sluggish", "100", *bus.options(), "--max-batch-size", "1")
    try:
        frozen.wait_for(" ready: ")
        with bus.client() as client:
            futures = [client.submit(load_images().images[:5]) for _ in range(40)]
            futures[0].result(60)
            frozen.send(signal.SIGSTOP)
            bus.replier()
            for future in futures:
                future.result(60)
            frozen.send(signal.SIGCONT)
        assert frozen.stop() == 0, frozen
    finally:
        frozen.kill()

    repeats = len(read_all(bus, bus.replies)) - len(read_all(bus, bus.requests))
    # One in its model when it froze, and one being confirmed; a slow machine lets the other's leases expire too.
    assert repeats <= 4


@pytest.mark.parametrize("max_wait", [pytest.param("0", marks=pytest.mark.full), "1000"])
def test_a_message_that_kills_its_reader_is_set_aside_after_three_deaths(bus: Bus, max_wait: str) -> None:
    dead_letters = f"{bus.requests}.dlt"
    with connected(bus, bus.requests, bus.replies, dead_letters) as sender:
        for number in range(200):
            if number == 100:
                sender.publish(encode_request(np.full((1, 28, 28), 66, np.uint8), bus.requests, id="killer"))
            sender.publish(encode_request(load_images().images[:5], bus.requests, id=f"good-{number}"))
    deaths = 0
    while True:
        replier = python(FRAGILE, "killer", "66", *bus.options(), "--verbose", "--max-wait", max_wait)
        try:
            if died(replier):
                deaths += 1
                assert deaths <= 3
                continue
            wait_until_answered(bus, 200)
            assert replier.stop() == 0
            break
        finally:
            replier.kill()

    assert deaths == 3
    assert [letter.header("correlation_id") for letter in read_all(bus, dead_letters)] == ["killer"]
    answered = {(reply.key or b"").decode() for reply in read_all(bus, bus.replies)}
    assert answered == {f"good-{number}" for number in range(200)}
    assert not [name for name in subscriptions(bus) if "suspect" in name]


def wait_until_answered(bus: Bus, count: int) -> None:
    """Wait for replies to so many requests."""
    answered: set[bytes | None] = set()
    began = time.monotonic()
    with connected(bus, bus.replies) as reading:
        reader = reading.join(bus.replies, f"reader-{uuid.uuid4()}")
        while len(answered) < count:
            assert time.monotonic() - began < 60, f"{len(answered)} of {count} requests were answered"
            messages = reader.receive(1000, 0.2)
            reader.commit(messages).result()
            answered.update(message.key for message in messages)


def died(replier: Program) -> bool:
    """Wait until the killer did its work, or was set aside."""
    try:
        replier.wait_for("dead letter: KILLER")
    except AssertionError:
        return replier.wait() == -signal.SIGKILL
    return False


def test_what_was_received_and_not_committed_goes_to_the_next_member_at_once(bus: Bus) -> None:
    with connected(bus, bus.requests) as first:
        member = first.join(bus.requests, "repliers")
        first.publish(Message(bus.requests, b"1"))
        assert len(member.receive(1, 30)) == 1

    with connected(bus, bus.requests) as second:
        member = second.join(bus.requests, "repliers")
        began = time.monotonic()
        again = member.receive(1, 30)

    assert [message.value for message in again] == [b"1"]
    assert time.monotonic() - began < 8  # less than a lease


def test_a_rewound_message_comes_again_in_its_order(bus: Bus) -> None:
    with connected(bus, bus.requests) as working:
        member = working.join(bus.requests, "repliers")
        for number in range(5):
            working.publish(Message(bus.requests, b"%d" % number))
        first: list[Message] = []
        while len(first) < 5:
            first += member.receive(5, 30)

        member.rewind()

        assert [message.value for message in member.receive(5, 1)] == [message.value for message in first]


def test_suspects_are_given_out_a_few_at_a_time_and_beside_nothing_else_whoever_asks(bus: Bus) -> None:
    topics = bus.requests, f"{bus.requests}.dlt"  # Pub/Sub counts where there is a topic for dead letters
    with connected(bus, *topics) as dying:
        received(dying, dying.join(bus.requests, "repliers"), bus.requests, *(b"%d" % n for n in range(20)))
    with connected(bus, *topics) as working:
        member = working.join(bus.requests, "repliers")
        batches: list[list[Message]] = []
        while sum(map(len, batches)) < 21:
            batch = fill(member.receive, 128, 0.1, idle=30)
            assert batch, batches
            if not batches:
                working.publish(Message(bus.requests, b"new"))
            assert batch[0].attempt == 1 or member.receive(128, 30) == []
            member.commit(batch).result()
            batches.append(batch)

    assert max(len(batch) for batch in batches if batch[0].attempt > 1) <= FEW
    assert all(len({message.attempt for message in batch}) == 1 for batch in batches)
    attempts = {message.value: message.attempt for batch in batches for message in batch}
    assert attempts == {**{b"%d" % number: 2 for number in range(20)}, b"new": 1}


def test_a_suspect_waits_until_what_is_in_hand_is_committed(bus: Bus) -> None:
    topics = bus.requests, f"{bus.requests}.dlt"
    with connected(bus, *topics) as working:
        with connected(bus, *topics) as dying:
            received(dying, dying.join(bus.requests, "repliers"), bus.requests, b"suspect")
            member = working.join(bus.requests, "repliers")
            in_hand: list[Message] = []
            while not in_hand:  # the other one takes its share
                working.publish(Message(bus.requests, b"new"))
                in_hand = member.receive(1, QUIET)

        assert fill(member.receive, 128, 0.1, idle=30) == []  # at once, when the suspects come
        member.commit(in_hand).result()
        suspects = member.receive(128, 30)

    assert [message.attempt for message in in_hand] == [1]
    assert b"suspect" in [message.value for message in suspects]
    assert {message.attempt for message in suspects} == {2}


def test_several_readers_share_one_connection(bus: Bus) -> None:
    with connected(bus, bus.requests, bus.replies) as shared:
        inboxes = [shared.inbox(bus.replies) for _ in range(2)]
        members = [shared.join(bus.requests, group) for group in ("one", "other")]
        shared.publish(Message(bus.requests, b"request"))

        for member, inbox in zip(members, inboxes, strict=True):
            (request,) = member.receive(1, 30)
            reply = Message(bus.replies, request.value, headers=inbox.return_headers)
            member.commit([request], [reply]).result()

        replies = [inbox.receive(2, 30) for inbox in inboxes]
        assert [inbox.receive(1, QUIET) for inbox in inboxes] == [[], []]
    assert [[reply.header("requestor") for reply in each] for each in replies] == [
        [inbox.return_headers[0][1].decode()] for inbox in inboxes
    ]


def test_what_a_connection_made_is_over_when_it_is_closed(bus: Bus) -> None:
    with connected(bus, bus.requests, bus.replies) as closed:
        inbox, member = closed.inbox(bus.replies), closed.join(bus.requests, "repliers")

    closed.close()

    for call in (
        lambda: inbox.receive(1, 30),
        lambda: member.receive(1, 30),
        lambda: member.commit([]),
        lambda: closed.publish(Message(bus.requests, b"late")),
    ):
        with pytest.raises(TransportError, match="the bus is closed"):
            call()


def test_a_failed_delivery_that_nobody_asked_about_is_raised_by_the_next_call(bus: Bus) -> None:
    with connected(bus, bus.replies) as sender:
        inbox = sender.inbox(bus.replies)
        sender.publish(Message(bus.requests, b"nobody made this topic"))
        began = time.monotonic()
        with pytest.raises(TransportError, match=f"topic '{bus.requests}' is not there"):  # noqa: PT012
            while time.monotonic() - began < 60:
                inbox.receive(1, 0.1)

        assert inbox.receive(1, 0.1) == []


def test_a_reply_whose_acknowledgement_failed_is_no_failure_of_the_inbox(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise Failed(grpc.StatusCode.UNAVAILABLE)

    with connected(bus, bus.replies) as working:
        inbox = working.inbox(bus.replies)
        monkeypatch.setattr(working._clients, "acknowledge", away)
        working.publish(Message(bus.replies, b"1"))
        first = inbox.receive(1, 30)
        working.publish(Message(bus.replies, b"2"))

        assert [message.value for message in [*first, *inbox.receive(1, 30)]] == [b"1", b"2"]


def test_a_message_whose_acknowledgement_failed_comes_again_and_is_only_counted(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise Failed(grpc.StatusCode.UNAVAILABLE)

    monkeypatch.setattr("imagebus.transports.pubsub.member.ACKNOWLEDGE_SECONDS", 0.1)
    with connected(bus, bus.requests, bus.replies) as working:
        member = working.join(bus.requests, "repliers")
        working.publish(Message(bus.requests, b"1"))
        requests = member.receive(1, 30)
        with monkeypatch.context() as patch:
            patch.setattr(working._clients, "acknowledge", away)
            member.commit(requests, [Message(bus.replies, b"reply")]).result()

        began = time.monotonic()
        while not member.redelivered:
            assert time.monotonic() - began < 60
            assert member.receive(1, 0.2) == []
        assert member.receive(1, 1) == []

    assert [message.value for message in read_all(bus, bus.replies)] == [b"reply"]


def test_no_commit_and_no_close_waits_longer_than_the_member_may(
    bus: Bus, emulator: PubSubEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagebus.transports.pubsub.member.CONFIRM_SECONDS", 3600)
    with Cable(emulator.host) as cable:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", cable.host)
        with connected(bus, bus.requests, bus.replies) as working:
            member = working.join(bus.requests, "repliers")
            requests = received(working, member, bus.requests, b"1")
            cable.cut(mend=False)
            commit = member.commit(requests, [Message(bus.replies, b"reply")])

            member.finish_by = time.monotonic() + 1
            with pytest.raises(CommitFailed, match="were not confirmed"):
                commit.result()


def test_dead_letters_are_sent_back(bus: Bus) -> None:
    replier = bus.replier("--verbose")
    with connected(bus, bus.requests) as sender:
        sender.publish(Message(bus.requests, b"who sent this?"))
    replier.wait_for("dead letter: NO_ID")

    def replay(*options: str) -> Program:
        program = bus.start("replier.py", "--replay-dlt", *options)
        assert program.wait() == 0, program
        return program

    assert "would send 1 back" in replay("--dry-run").wait_for("would send")
    assert "sent 0 back" in replay("--code", "KILLER").wait_for("sent 0")
    assert "sent 1 back" in replay().wait_for("sent 1")
    replier.wait_for("dead letter: NO_ID", times=2)
    assert replier.stop() == 0


# --- what does not fit, and what is wrong ------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pub/Sub that takes 200 kB."""
    monkeypatch.setattr("imagebus.transports.pubsub.attributes.MAX_PUBLISH_BYTES", 200_000)


def test_each_reply_that_pubsub_does_not_take_is_replaced_and_the_others_are_sent(
    bus: Bus, small: None
) -> None:
    with connected(bus, bus.requests, bus.replies) as working:
        member = working.join(bus.requests, "repliers")
        requests = received(working, member, bus.requests, b"1", b"2", b"3")
        tried: list[int] = []

        def instead(place: int) -> Message:
            tried.append(place)
            still_too_large = tried.count(place) == 1
            return Message(bus.replies, bytes(200_000) if still_too_large else b"TOO_LARGE %d" % place)

        large = Message(bus.replies, bytes(200_000))
        member.commit(requests, [large, Message(bus.replies, b"fits"), large], instead).result()

        assert tried == [0, 0, 2, 2]
        assert member.receive(1, QUIET) == []
    replies = sorted(reply.value for reply in read_all(bus, bus.replies))
    assert replies == [b"TOO_LARGE 0", b"TOO_LARGE 2", b"fits"]


def test_what_is_raised_in_place_of_a_reply_is_raised_by_the_commit_and_nothing_is_done(
    bus: Bus, small: None
) -> None:
    def give_up(place: int) -> Message:
        raise LookupError(place)

    with connected(bus, bus.requests, bus.replies) as working:
        member = working.join(bus.requests, "repliers")
        requests = received(working, member, bus.requests, b"1", b"2")
        outgoing = [Message(bus.replies, b"fits"), Message(bus.replies, bytes(200_000))]

        with pytest.raises(TooLarge, match="Pub/Sub takes 200000"):
            member.commit(requests, outgoing).result()
        with pytest.raises(LookupError, match="1"):
            member.commit(requests, outgoing, give_up).result()

        member.rewind()
        assert member.receive(2, 1) == requests
    assert read_all(bus, bus.replies) == []


def test_a_request_for_more_than_fits_is_answered_with_an_error(bus: Bus) -> None:
    replier = bus.replier("--verbose")

    request = encode_request(package(0), bus.requests, id="too-many")
    changed = {"shape": b"1001,28,28", "sha256": sha256_hex(bytes(1001 * 784)).encode()}
    headers = [(name, changed.get(name, value)) for name, value in request.headers]
    with connected(bus, bus.requests) as sender:
        sender.publish(request._replace(value=bytes(1001 * 784), headers=headers))
    replier.wait_for("refused too-many: COUNT")

    assert replier.stop() == 0


def test_exactly_once_is_refused(bus: Bus) -> None:
    replier = bus.start("replier.py", "--guarantee", "exactly-once")

    assert replier.wait() == 2
    assert "--guarantee exactly-once: -c google has no transactions" in replier.wait_for("transactions")


def test_the_wrong_kind_of_file_is_told_in_one_line(bus: Bus, tmp_path: Path) -> None:
    kafka = tmp_path / "kafka.config"
    kafka.write_text("bootstrap.servers = localhost:9092\n")

    for file, cloud, expected in (
        (kafka, "google", "expected a service account's JSON key for Pub/Sub"),
        (bus.config, "kafka", "expected key = value lines for Kafka"),
    ):
        program = python("requestor.py", "-f", file, "-c", cloud)
        assert program.wait() == 2
        assert len(program.err) == 1
        assert expected in program.err[0]


def test_an_emulator_that_is_not_there_is_told_in_one_line(
    google_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:9")
    account = read_service_account(google_config)
    monkeypatch.setattr("imagebus.transports.pubsub.opening.CONNECT_SECONDS", 1.0)

    with pytest.raises(ConnectionFailed, match=r"no answer from 127\.0\.0\.1:9 \(PUBSUB_EMULATOR_HOST\)"):
        PubSubBus(account, topics=["requests"])


def test_a_login_that_is_refused_ends_both_scripts_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    path = tmp_path / "google.json"
    with TokenServer() as server:
        write_account(path, token_uri=server.uri, private_key=pem(new_key("another")))

        for script in ("requestor.py", "replier.py"):
            program = python(script, "-f", path, "-c", "google", "--verbose")

            assert program.wait() == 1
            said = str(program)
            assert said.count("\n") == 2, said  # one of them before the line
            assert "no token from " in said
            assert "invalid_grant" in said
            assert "PRIVATE KEY" not in said


@pytest.mark.parametrize("topic", ["a", "1abc", "googtopic", "re quests", "x" * 300])
def test_a_name_that_pubsub_does_not_take_is_told(bus: Bus, topic: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a topic"):
        connect("google", bus.config, topics=[topic])


def test_a_right_that_is_missing_is_named(bus: Bus) -> None:
    clients = Clients(read_service_account(bus.config))

    said = clients.translate(
        Failed(grpc.StatusCode.PERMISSION_DENIED), "topic 'requests'", "pubsub.topics.publish"
    )

    clients.close()
    assert isinstance(said, AccessDenied)
    assert "lacks the right pubsub.topics.publish" in str(said)
    assert "\n" not in str(said)
