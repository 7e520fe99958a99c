"""Google's emulator under test itself: it answers, it ends with all it started, and its connection can be cut."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.api_core.exceptions import DeadlineExceeded, NotFound
from google.pubsub_v1 import PublisherClient, PubsubMessage
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from tools.pubsub_emulator import PubSubEmulator

from .cut_connection import Cable
from .programs import Program, wait_until_gone

RUNNING = """
import signal, sys
from tools.pubsub_emulator import PubSubEmulator
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with PubSubEmulator() as emulator:
    print("answers:", *emulator.processes(), flush=True)
    signal.pause()
"""


@contextmanager
def publisher(host: str) -> Iterator[PublisherClient]:
    with grpc.insecure_channel(host) as channel:
        yield PublisherClient(transport=PublisherGrpcTransport(channel=channel))


def has_topic(client: PublisherClient, topic: str, timeout: float = 60) -> bool:
    try:
        client.get_topic(topic=topic, retry=None, timeout=timeout)
    except NotFound:
        return False
    return True


def test_it_answers_as_pubsub_does(emulator: PubSubEmulator) -> None:
    topic = f"projects/{emulator.project}/topics/answers"
    with publisher(emulator.host) as client:
        client.create_topic(name=topic)

        assert has_topic(client, topic)
        assert client.publish(topic=topic, messages=[PubsubMessage(data=b"x")]).message_ids


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_it_however_its_owner_ends(
    emulator: PubSubEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(scratch))
    owner = Program(sys.executable, "-c", RUNNING)
    try:
        pids = [int(pid) for pid in owner.wait_for("answers:").split()[1:]]

        assert owner.stop(number) == (0 if number == signal.SIGTERM else -number)

        wait_until_gone(pids)
    finally:
        owner.kill()
    assert len(pids) >= 3  # gcloud, Java and the watcher
    assert list(home.iterdir()) == []
    assert number == signal.SIGKILL or list(scratch.iterdir()) == []


def test_it_can_be_frozen_and_started_anew(emulator: PubSubEmulator) -> None:
    with PubSubEmulator() as own, publisher(own.host) as client:
        topic = f"projects/{own.project}/topics/mine"
        client.create_topic(name=topic)

        own.pause()
        with pytest.raises(DeadlineExceeded):
            has_topic(client, topic, timeout=1)
        own.resume()
        assert has_topic(client, topic)

        pids = own.processes()
        own.restart()
        wait_until_gone(pids)
        with publisher(own.host) as other:
            assert not has_topic(other, topic)  # it keeps nothing


# --- the cable -----------------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that says everything twice."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while said := client.recv(100):
                    client.sendall(2 * said)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def connected(host: str) -> socket.socket:
    name, _, port = host.partition(":")
    return socket.create_connection((name, int(port)), timeout=60)


def ends(client: socket.socket) -> bool:
    """Wait for more, or for the end."""
    try:
        return client.recv(100) == b""
    except ConnectionError:
        return True


def test_a_cable_carries_until_it_is_cut_and_then_anew(echo: str) -> None:
    with Cable(echo) as cable:
        for _ in range(2):
            with connected(cable.host) as client:
                client.sendall(b"ab")
                assert client.recv(4, socket.MSG_WAITALL) == b"abab"

                assert cable.cut() == 1

                assert ends(client)
        assert cable.carried == 2


def test_a_cable_that_stays_cut_carries_nothing_until_it_is_mended(echo: str) -> None:
    with Cable(echo) as cable:
        cable.cut(mend=False)
        with connected(cable.host) as client:
            assert ends(client)

        cable.mend()

        with connected(cable.host) as client:
            client.sendall(b"a")
            assert client.recv(2, socket.MSG_WAITALL) == b"aa"


def test_an_end_of_the_servers_reaches_the_client() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with Cable(f"127.0.0.1:{listener.getsockname()[1]}") as cable, connected(cable.host) as client:
        listener.accept()[0].close()
        assert ends(client)

        listener.close()

        with connected(cable.host) as other:
            assert ends(other)


def test_a_client_of_the_emulator_goes_on_after_a_cut(emulator: PubSubEmulator) -> None:
    topic = f"projects/{emulator.project}/topics/cut"
    with Cable(emulator.host) as cable, publisher(cable.host) as client:
        client.create_topic(name=topic)

        assert cable.cut() == 1
        client.publish(
            topic=topic, messages=[PubsubMessage(data=b"x")], timeout=60
        )  # tried again by Google's client

        assert cable.carried == 2
