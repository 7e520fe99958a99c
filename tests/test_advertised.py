"""Brokers that give an address as their own at which their clients do not reach them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagebus.broker import EmbeddedBroker
from imagebus.broker.ports import free_ports
from imagebus.transports import connect
from imagebus.transports.kafka.advertised import unreached
from imagebus.transports.kafka.probe import anyone_listens, speaks_tls, why_unreachable

from .programs import python


@dataclass(frozen=True)
class Misled:
    """A broker with a listener for each mistake."""

    bootstrap: dict[str, str]  # where each listener is
    advertised: dict[str, str]  # where it says that it is


@pytest.fixture(scope="module")
def black_hole() -> Iterator[str]:
    """An address that does not answer, as behind a firewall: its queue of new connections is full."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """A server that is no Kafka."""

    def answer() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:  # closed
                return
            with client:
                client.recv(100)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=answer)
        answering.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    answering.join()


@pytest.fixture(scope="module")
def misled(kafka_jars_here: None, black_hole: str, stranger: str) -> Iterator[Misled]:
    ports = free_ports(8)
    names = ("UNKNOWN", "CLOSED", "HOLE", "STRANGER", "RIGHT", "NODES", "CONTROLLER")
    own = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=False)}
    advertised = {
        **own,
        "UNKNOWN": "kafka-0.nowhere.invalid:9092",
        "CLOSED": f"127.0.0.1:{ports[-1]}",
        "HOLE": black_hole,
        "STRANGER": stranger,
    }
    del advertised["CONTROLLER"]
    config = {
        "listeners": ",".join(f"{name}://{address}" for name, address in own.items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
        "inter.broker.listener.name": "NODES",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@{own['CONTROLLER']}",
    }
    with EmbeddedBroker(ports[4], config=config):
        yield Misled(own, advertised)


REASONS = {
    "UNKNOWN": "Name or service not known",
    "CLOSED": "Connection refused",
    "HOLE": "no answer in 4 s",
}


@pytest.mark.parametrize("mistake", REASONS)
def test_an_address_that_leads_nowhere_is_one_line_at_the_start(
    misled: Misled, tmp_path: Path, mistake: str
) -> None:
    config = tmp_path / "kafka.config"
    config.write_text(f"bootstrap.servers = {misled.bootstrap[mistake]}\n")

    programs = {
        name: python(name, "-f", config) for name in ("requestor.py", "replier.py", "imagebus.replay")
    }

    for name, program in programs.items():
        assert program.wait() == 1
        script = name if name.endswith(".py") else "replay.py"
        assert program.err == [
            f"{script}: {misled.bootstrap[mistake]} answers ({config}:1), but a broker cannot be reached at "
            f"{misled.advertised[mistake]}, its address by its advertised.listeners: {REASONS[mistake]}\n"
        ]


def test_a_right_address_is_none_of_it(misled: Misled, tmp_path: Path) -> None:
    config = tmp_path / "kafka.config"
    config.write_text(f"bootstrap.servers = localhost:{misled.bootstrap['RIGHT'].rpartition(':')[2]}\n")

    with connect("kafka", config, topics=["requests", "replies"]) as bus:
        inbox = bus.inbox("replies")

        assert inbox.receive(1, 0) == []


def test_a_server_that_is_no_broker_at_that_address_is_a_line_while_it_runs(
    misled: Misled, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right.config", tmp_path / "kafka.config"
    right.write_text(f"bootstrap.servers = {misled.bootstrap['RIGHT']}\n")
    wrong.write_text(f"bootstrap.servers = {misled.bootstrap['STRANGER']}\n")
    connect("kafka", right, topics=["requests", "replies", "requests.dlt"]).close()

    replier = python("replier.py", "-f", wrong)  # which may learn of it at the start already

    line = replier.wait_for("no answer from the broker")
    assert f"at {misled.advertised['STRANGER']}: it is down, or its advertised.listeners is wrong: " in line
    replier.kill()


@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("h:9092/1: Failed to resolve 'h:9092' (after 0ms in state CONNECT)", "h:9092"),
        ("sasl_ssl://h:9092/1: Disconnected (after 0ms in state APIVERSION_QUERY)", "h:9092"),
        ("GroupCoordinator: h:9092: Connect to ipv4#h:9092 failed: Connection refused", "h:9092"),
        ("[::1]:9092/1: Connect to ipv6#[::1]:9092 failed: Connection refused", "[::1]:9092"),
        ("h:9092/1: Disconnected (after 600000ms in state UP)", None),
        ("h:9092/bootstrap: Connect to ipv4#h:9092 failed: Connection refused", None),
        ("other:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused", None),
        ("3/3 brokers are down", None),
    ],
)
def test_librdkafka_names_the_broker_that_it_does_not_reach(error: str, found: str | None) -> None:
    broker = unreached(error, "other:9092,third:9092")

    assert (broker and broker[0]) == found


@pytest.mark.parametrize("server", ["a..b:9092", f"{'x' * 64}.example:9092"])
def test_a_name_that_no_host_can_have_is_reached_nowhere(server: str) -> None:
    assert not anyone_listens(f"127.0.0.1:1,{server}")
    assert speaks_tls(server) is None
    assert why_unreachable(server, 1.0) == "no host can have that name"
