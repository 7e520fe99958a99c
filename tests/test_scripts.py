"""The two scripts as a user runs them: processes, a real broker, signals, kills and mistakes."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does export them
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from PIL import Image

from imagebus import OnnxClassifier, load_images
from imagebus.broker import EmbeddedBroker
from imagebus.broker.ports import free_ports
from imagebus.labels import SHIPPED

from .buses import Bus, records
from .programs import ROOT, SECONDS, python


def partitions(broker: EmbeddedBroker, topic: str) -> int:
    return len(
        AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(topic).topics[topic].partitions
    )


# --- the main job ------------------------------------------------------------------------------


def test_packages_are_answered_and_summed_up(bus: Bus) -> None:
    replier = bus.replier()

    requestor = bus.start("requestor.py", "--count", "3", "--interval", "0", "--top", "2")

    assert requestor.wait() == 0
    shown = sorted(line.split()[1] for line in requestor.out if line.startswith("package "))
    assert shown == ["1", "2", "3"]
    assert sum("right: " in line or "WRONG: " in line for line in requestor.out) == 15
    assert "sent 3, answered 3, failed 0, lost 0\n" in requestor.out
    assert any(line.startswith("accuracy ") and line.endswith(" of 15 images\n") for line in requestor.out)
    assert any(line.startswith("round trip p50 ") for line in requestor.out)
    assert replier.stop() == 0
    assert "3 requests, 15 images, 0 errors, 0 dead letters" in replier.wait_for("stopped: ")


def test_the_requestor_may_be_first_and_says_that_it_waits(bus: Bus) -> None:
    requestor = bus.start("requestor.py", "--count", "1")
    requestor.wait_for(f"waiting for a replier on topic {bus.requests}")

    bus.replier()

    assert requestor.wait() == 0
    assert "sent 1, answered 1, failed 0, lost 0\n" in requestor.out


def test_json_is_one_object_a_line_with_what_the_model_says(bus: Bus) -> None:
    bus.replier()
    sample = load_images()
    model = OnnxClassifier(ROOT / "models" / "fashion.onnx")

    requestor = bus.start(
        "requestor.py", "--json", "--count", "2", "--interval", "0", "--batch-size", "4", "--top", "3"
    )

    assert requestor.wait() == 0
    packages = {each["package"]: each for each in map(orjson.loads, requestor.out)}
    assert sorted(packages) == [1, 2]
    images, truths = sample.package(1, 4)
    package = packages[2]
    assert package["truths"] == list(truths or ())
    assert package["model"] == {
        "name": "fashion",
        "version": model.model.version,
        "sha256": model.model.sha256,
    }
    expected = [model.labels[index] for index in model.predict(images).argmax(axis=1)]
    assert [each["label"] for each in package["predictions"]] == expected
    assert all(len(each["top"]) == 3 for each in package["predictions"])
    assert "sent 2, answered 2" in requestor.wait_for("sent 2")


def test_ctrl_c_ends_the_requestor_with_its_summary(bus: Bus) -> None:
    bus.replier()
    requestor = bus.start("requestor.py", "--interval", "0.05")
    requestor.wait_for("package 2")

    assert requestor.stop() == 0
    assert any(line.startswith("sent ") for line in requestor.out)


def test_a_package_that_nobody_answers_is_lost_once(bus: Bus) -> None:
    requestor = bus.start("requestor.py", "--count", "2", "--interval", "0", "--timeout", "1")

    assert requestor.wait() == 1
    assert [line.split()[2] for line in requestor.out if line.startswith("package")] == ["lost:", "lost:"]
    assert "sent 2, answered 0, failed 0, lost 2\n" in requestor.out


def test_a_folder_of_pictures_on_white_is_turned_judged_and_named(bus: Bus, tmp_path: Path) -> None:
    sample, pictures = load_images(), tmp_path / "pictures"
    folders = {label: str(number) for number, label in enumerate(SHIPPED)}
    for number, (image, truth) in enumerate(zip(sample.images[:19], sample.truths or (), strict=False)):
        folder = pictures / folders[truth]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - image).save(folder / f"{number:02}.png")
    (pictures / "cat").mkdir()
    Image.new("L", (28, 28), "white").save(pictures / "cat" / "tom.png")
    (pictures / ".DS_Store").write_bytes(b"\0")
    bus.replier()
    options = ["requestor.py", "--count", "1", "--batch-size", "20", "--images", str(pictures)]

    as_they_are = bus.start(*options)
    turned = bus.start(*options, "--json", "--background", "auto")

    assert as_they_are.wait() == turned.wait() == 0
    assert "of 20 images 20 have a light background" in as_they_are.wait_for("light background")
    assert any(line.endswith("not judged: cat  cat/tom.png\n") for line in as_they_are.out)
    assert "not judged 1 images: no reply has the label cat\n" in as_they_are.out
    package = orjson.loads(turned.out[0])
    judged = dict(zip(package["files"], package["correct"], strict=True))
    assert judged.pop("cat/tom.png") is None
    assert sum(judged.values()) >= 15
    assert {file.split("/")[0] for file in judged} <= set(folders.values())
    assert [truth for truth in package["truths"] if truth != "cat"] == [
        SHIPPED[int(file.split("/")[0])] for file in judged
    ]


def test_keras_and_onnx_repliers_give_the_same_answers(bus: Bus) -> None:
    answers = {}
    for runtime in ("onnx", "keras"):
        replier = bus.replier("--runtime", runtime)
        requestor = bus.start("requestor.py", "--json", "--count", "1", "--top", "10")
        assert requestor.wait() == 0
        assert replier.stop() == 0
        answers[runtime] = orjson.loads(requestor.out[0])

    for onnx, keras in zip(answers["onnx"]["predictions"], answers["keras"]["predictions"], strict=True):
        assert onnx["label"] == keras["label"]
        assert dict(onnx["top"]) == pytest.approx(dict(keras["top"]), abs=0.05)  # 8 bits beside floats


# --- topics ------------------------------------------------------------------------------------


def test_both_scripts_create_missing_topics_at_once(bus: Bus, broker: EmbeddedBroker) -> None:
    replier = bus.start("replier.py", "--partitions", "3")
    requestor = bus.start("requestor.py", "--partitions", "3", "--count", "1")

    assert requestor.wait() == 0
    assert replier.stop() == 0
    topics = (bus.requests, bus.replies, f"{bus.requests}.dlt")
    assert [partitions(broker, topic) for topic in topics] == [3, 3, 3]


def test_topics_that_exist_are_left_as_they_are(bus: Bus, broker: EmbeddedBroker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(bus.requests, num_partitions=2)])[bus.requests].result()

    bus.replier()

    assert partitions(broker, bus.requests) == 2
    assert partitions(broker, bus.replies) == 6


def test_a_missing_right_to_create_topics_is_one_line(kafka_jars_here: None, tmp_path: Path) -> None:
    rights = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with EmbeddedBroker(config=rights) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        allowed = AclBinding(
            *(ResourceType.TOPIC, "secret", ResourcePatternType.PREFIXED, "User:ANONYMOUS", "*"),
            *(AclOperation.DESCRIBE, AclPermissionType.ALLOW),
        )
        # Once a resource has a rule, what no rule allows is denied; the broker itself is anonymous here.
        broker_itself = AclBinding(
            *(ResourceType.BROKER, "kafka-cluster", ResourcePatternType.LITERAL, "User:ANONYMOUS", "*"),
            *(AclOperation.CLUSTER_ACTION, AclPermissionType.ALLOW),
        )
        for created in admin.create_acls([allowed, broker_itself]).values():
            created.result()
        config = tmp_path / "kafka.config"
        config.write_text(f"bootstrap.servers = {broker.bootstrap}\n")

        requestor = python("requestor.py", "-f", config, "-t1", "secret-requests", "-t2", "secret-replies")

        assert requestor.wait() == 1
        assert "these credentials may not create it" in requestor.wait_for("requestor.py: ")


# --- stopping, dying, sharing ------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_replier_finishes_its_batch_and_repeats_nothing(
    bus: Bus, broker: EmbeddedBroker, number: signal.Signals
) -> None:
    replier = bus.replier()
    packages = [load_images().package(index, 5)[0] for index in range(200)]

    with bus.client() as client:
        futures = [client.submit(images) for images in packages for _ in range(5)]
        futures[100].result()
        status = replier.stop(number)
        successor = bus.replier()
        for future in futures:
            future.result()

    assert status == 0
    assert successor.stop() == 0
    assert len(records(broker, bus.replies)) == len(futures)  # no repeats at all


@pytest.mark.full
def test_ten_thousand_packages_survive_three_killed_repliers(bus: Bus, broker: EmbeddedBroker) -> None:
    sample = load_images()
    model = OnnxClassifier(ROOT / "models" / "fashion.onnx")
    expected = model.predict(sample.images).argmax(axis=1)
    right = [[model.labels[each] for each in expected[start : start + 5]] for start in range(0, 1000, 5)]
    replier = bus.replier()
    kill_at = {2_000, 4_000, 6_000}
    wrong, answered, ids = 0, 0, set()

    with bus.client() as client:
        packages = (sample.package(index, 5)[0] for index in range(10_000))
        for number, reply in enumerate(client.map(packages, in_flight=1000)):
            answered += 1
            ids.add(reply.id)
            wrong += [each.label for each in reply.predictions] != right[number % 200]
            if answered in kill_at:
                replier.send(signal.SIGKILL)
                replier = bus.start("replier.py")

    assert (answered, len(ids), wrong) == (10_000, 10_000, 0)
    keys = Counter(key for key, _ in records(broker, bus.replies))
    assert set(keys) == {id.encode() for id in ids}
    # Only what was in a killed replier's hands may be answered twice, two batches of 128; or what was asked twice.
    repeats = keys.total() - len(keys)
    print(f"repeated replies: {repeats}, asked again: {client.resent}")
    assert repeats <= 3 * 2 * 128 + client.resent


def test_two_repliers_share_the_partitions(bus: Bus, broker: EmbeddedBroker) -> None:
    first = bus.replier()
    second = bus.replier()
    first.wait_for("partitions now: ")

    with bus.client() as client:
        answers = list(client.map(load_images().package(index, 5)[0] for index in range(200)))

    assert len({answer.id for answer in answers}) == 200
    counts = []
    for replier in (first, second):
        assert replier.stop() == 0
        counts.append(int(replier.wait_for("stopped: ").split("stopped: ")[1].split()[0]))
    assert sum(counts) == 200
    assert min(counts) > 0
    assert len(records(broker, bus.replies)) == 200


def test_what_cannot_be_answered_is_in_the_dead_letter_topic(bus: Bus, broker: EmbeddedBroker) -> None:
    replier = bus.replier("--verbose")
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce(bus.requests, b"who sent this?")
    producer.produce(bus.requests, b"not 784 bytes", key=b"someone")
    producer.flush()

    replier.wait_for("dead letter: NO_ID")
    replier.wait_for("refused someone: SHAPE")
    assert replier.stop() == 0

    assert records(broker, f"{bus.requests}.dlt") == [(None, b"who sent this?")]
    errors = [orjson.loads(value or b"") for key, value in records(broker, bus.replies) if key == b"someone"]
    assert [error["error"]["code"] for error in errors] == ["SHAPE"]
    assert "2 requests, 0 images, 1 errors, 1 dead letters" in replier.wait_for("stopped: ")


# --- mistakes ----------------------------------------------------------------------------------

Mistake = tuple[str, list[str], str, int, str]
MISTAKES: list[Mistake] = [
    # script, options, config file, exit status, what the line says
    ("requestor.py", ["-f", "missing.config"], "", 2, "missing.config: no such file"),
    ("replier.py", ["-f", "missing.config"], "", 2, "missing.config: no such file"),
    (
        "requestor.py",
        [],
        '{"bootstrap.servers": "x"}',
        2,
        "kafka.config:1: this is JSON, expected key = value",
    ),
    (
        "replier.py",
        [],
        "bootstrap.servers=x\nno.such.key=1\n",
        2,
        "kafka.config:2: unknown setting no.such.key",
    ),
    ("requestor.py", [], "bootstrap.servers=x\nlinger.ms=often\n", 2, "kafka.config:2: "),
    ("requestor.py", [], "security.protocol=SSL\n", 2, "bootstrap.servers is missing"),
    ("requestor.py", [], "bootstrap.servers=127.0.0.1:1\n", 1, "no broker answers at 127.0.0.1:1"),
    ("requestor.py", ["--batch-size", "0"], "", 2, "--batch-size: 0 is less than 1"),
    ("requestor.py", ["--timeout", "0"], "", 2, "--timeout: 0 is not above 0"),
    ("requestor.py", ["--interval", "nan"], "", 2, "--interval: nan is not a number from 0 to 1,000,000,000"),
    ("requestor.py", ["--images", "nowhere"], "", 2, "--images nowhere: no such file or folder"),
    ("requestor.py", ["-c", "carrier-pigeon"], "", 2, "argument -c: invalid choice: 'carrier-pigeon'"),
    ("requestor.py", ["-t2", "requests"], "", 2, "-t2 requests: the replies need a topic of their own"),
    ("replier.py", ["-t2", "requests.dlt"], "", 2, "-t2 requests.dlt: the replies need a topic of their own"),
    ("replier.py", ["--model", "missing.onnx"], "", 2, "missing.onnx: No such file or directory"),
    ("replier.py", ["--group", ""], "", 2, "--group: it is empty"),
    ("replier.py", ["--metrics-port", "70000"], "", 2, "--metrics-port: 70000 is not between 1 and 65535"),
]


@pytest.mark.parametrize(("script", "options", "text", "status", "line"), MISTAKES)
def test_a_mistake_is_one_clear_line(
    tmp_path: Path, script: str, options: list[str], text: str, status: int, line: str
) -> None:
    (tmp_path / "kafka.config").write_text(text or "bootstrap.servers=localhost:9092\n")

    program = python(script, *options, cwd=tmp_path)

    assert program.wait() == status
    (said,) = [
        each for each in program.err if not each.startswith(("usage: ", " ")) and "WARNING" not in each
    ]
    assert said.startswith(f"{script}: ")
    assert line in said


def test_metrics_are_served_on_loopback_and_the_port_is_not_shared(bus: Bus) -> None:
    (port,) = free_ports(1)
    bus.replier("--metrics-port", str(port))
    with bus.client() as client:
        client.predict(np.zeros((2, 28, 28), np.uint8))

    metrics: list[str] = []
    deadline = time.monotonic() + SECONDS
    while "imagebus_requests_total 1.0" not in metrics:  # it is counted behind its reply
        assert time.monotonic() < deadline, metrics
        server = http.client.HTTPConnection("127.0.0.1", port)
        server.request("GET", "/metrics")
        metrics = server.getresponse().read().decode().splitlines()
        server.close()
    other = bus.start("replier.py", "--metrics-port", str(port))

    assert "imagebus_images_total 2.0" in metrics
    assert other.wait() == 2
    assert f"--metrics-port 127.0.0.1:{port} cannot be used" in other.wait_for("replier.py: ")


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def test_serving_needs_no_tensorflow() -> None:
    code = (
        "import sys, argparse, replier; "
        "replier.load_classifier(argparse.Namespace(runtime='onnx', model=None, labels=None, threads=0)); "
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )

    assert run(code) == "[]\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, requestor; print(sorted({'numpy', 'onnxruntime', 'confluent_kafka'} & set(sys.modules)))"
    )

    assert run(code) == "[]\n"
