"""The look at the other end that tells a TLS port from a plaintext one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from imagebus.transports.kafka.probe import _split, anyone_listens, certificate_trouble, speaks_tls


def served(serve: Callable[[socket.socket], None]) -> tuple[str, threading.Thread]:
    """The address of a server that takes one connection."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with server, server.accept()[0] as connection:
            serve(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return f"127.0.0.1:{server.getsockname()[1]}", thread


def test_who_answers_in_another_protocol_does_not_speak_tls() -> None:
    address, thread = served(lambda connection: connection.sendall(b"220 mail, not Kafka\r\n"))

    assert speaks_tls(address) is False
    thread.join()


def test_who_closes_the_connection_does_not_speak_tls() -> None:
    address, thread = served(lambda _: None)

    assert speaks_tls(address) is False
    thread.join()


def test_who_says_nothing_says_nothing_about_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagebus.transports.kafka.probe.HANDSHAKE_SECONDS", 0.1)
    heard = threading.Event()

    def say_nothing(_: socket.socket) -> None:
        heard.wait()

    address, thread = served(say_nothing)

    assert speaks_tls(address) is None
    assert certificate_trouble(address, {}) is None
    heard.set()
    thread.join()


def test_one_of_several_servers_is_enough_to_be_listened_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        assert anyone_listens(f"127.0.0.1:1, {here}")
    assert not anyone_listens(f"127.0.0.1:1,{here}")


@pytest.mark.parametrize(
    ("server", "host", "port"),
    [
        ("kafka.example:9093", "kafka.example", 9093),
        (" kafka.example ", "kafka.example", 9092),
        ("SASL_SSL://kafka.example:9093", "kafka.example", 9093),
        ("[::1]:9093", "::1", 9093),
        ("[::1]", "::1", 9092),
    ],
)
def test_addresses_are_read_as_librdkafka_reads_them(server: str, host: str, port: int) -> None:
    assert _split(server) == (host, port)
