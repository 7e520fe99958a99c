"""The embedded broker: real Kafka that starts, keeps its data, says what is wrong and leaves nothing running."""

from __future__ import annotations

import signal
import socket
import subprocess
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does export them

from imagebus.broker import EmbeddedBroker
from imagebus.broker.__main__ import main
from imagebus.broker.jars import cache_folder, kafka_jars, locked_jars
from imagebus.broker.ports import free_ports
from imagebus.broker.processes import descendants
from imagebus.errors import BrokerError, ConfigError

from .programs import SECONDS, Program, python, wait_until_gone

pytestmark = pytest.mark.usefixtures("kafka_jars_here")


def write(broker: EmbeddedBroker, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all"})
    failed = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(SECONDS) == 0
    assert failed == []


def read(broker: EmbeddedBroker, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": str(uuid.uuid4())})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [record.value() for record in consumer.consume(count, SECONDS)]
    finally:
        consumer.close()


def create(broker: EmbeddedBroker, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result()


def start(*options: str) -> Program:
    program = python("imagebus.broker", *options)
    program.wait_for("ready: Apache Kafka")
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_stops_with_0_on_a_signal(number: signal.Signals) -> None:
    (port,) = free_ports(1)
    program = start("--port", str(port))
    kafka = descendants(program.pid)

    status = program.stop(number)

    assert f"on localhost:{port}, data in a temporary folder" in program.out[0]
    assert status == 0
    assert kafka
    wait_until_gone(kafka)


def test_nothing_is_left_when_it_is_killed() -> None:
    (port,) = free_ports(1)
    program = start("--port", str(port))
    kafka = descendants(program.pid)

    program.send(signal.SIGKILL)

    assert program.wait() == -signal.SIGKILL
    assert kafka
    wait_until_gone(kafka)


def test_data_is_kept_between_runs_on_any_port(tmp_path: Path) -> None:
    with EmbeddedBroker(data=tmp_path / "data") as broker:
        create(broker, "kept")
        write(broker, "kept", b"1", b"2")

    with EmbeddedBroker(data=tmp_path / "data") as broker:
        found = read(broker, "kept", 2)

    assert found == [b"1", b"2"]


@pytest.mark.full
def test_three_nodes_go_on_when_one_is_killed_and_take_it_back() -> None:
    quick = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "200"}  # to be missed
    with EmbeddedBroker(nodes=3, config=quick) as broker:
        create(broker, "copied")
        write(broker, "copied", b"1")
        broker.kill(0)
        write(broker, "copied", b"2")
        broker.restart(0)
        broker.kill(1)

        found = read(broker, "copied", 2)

        assert len(broker.pids) == 2
    assert found == [b"1", b"2"]
    assert broker.pids == []


def test_a_node_that_dies_by_itself_is_noticed() -> None:
    with EmbeddedBroker() as broker:
        (pid,) = broker.pids
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
        wait_until_gone([pid])

        assert broker.pids == []
        with pytest.raises(BrokerError, match="Apache Kafka, node 1, was ended by SIGKILL"):
            broker.check()


def test_a_taken_port_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]

        status = main(["--port", str(port)])

    assert status == 2
    assert capsys.readouterr().err == (
        f"error: port {port} cannot be used (Address already in use): choose another port\n"
    )


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="nodes is 1 or 3, not 2"):
        EmbeddedBroker(nodes=2)
    with pytest.raises(ConfigError, match="port is between 1 and 65533, not 65535"):
        EmbeddedBroker(port=65535, nodes=3)


def test_a_folder_that_is_not_a_brokers_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")

    with pytest.raises(ConfigError, match="is neither empty nor a broker's"):
        EmbeddedBroker(data=tmp_path).start()

    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_in_use_or_made_for_other_nodes_is_refused(tmp_path: Path) -> None:
    with (
        EmbeddedBroker(data=tmp_path / "data"),
        pytest.raises(ConfigError, match="in use by a running broker"),
    ):
        EmbeddedBroker(data=tmp_path / "data").start()

    with pytest.raises(ConfigError, match="was made with nodes=1, not 3"):
        EmbeddedBroker(data=tmp_path / "data", nodes=3).start()


def test_a_server_property_that_kafka_refuses_is_said_in_kafkas_words() -> None:
    with pytest.raises(BrokerError, match=r"node 1, ended with 1: .*num\.partitions"):
        EmbeddedBroker(config={"num.partitions": "many"}).start()


def test_each_jar_is_locked_by_its_digest_and_a_damaged_one_is_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cache_folder()
    cache = tmp_path / "imagebus"
    cache.mkdir()
    jars = [path for path in kafka_jars() if path.exists()]
    folder = cache / jars[0].parent.name
    folder.mkdir()
    for jar in jars:
        (folder / jar.name).symlink_to(jar)
    smallest = min(locked_jars(), key=lambda jar: jar.size).file_name
    (folder / smallest).unlink()
    (folder / smallest).write_bytes(b"damaged")
    monkeypatch.setenv("JGO_CACHE_DIR", str(tmp_path))

    found = kafka_jars()

    assert len(found) == len(locked_jars()) == 45
    assert (folder / smallest).read_bytes() == (whole / folder.name / smallest).read_bytes()
