"""The rights that docs/security.md asks for: enough for both scripts, each one needed, and missed when it goes."""

from __future__ import annotations

import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does export them
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from imagebus.errors import AccessDenied
from imagebus.transports import connect
from imagebus.transports.kafka.inbox import KafkaInbox

from ..docs.pages import Block, blocks
from ..programs import ROOT, SECONDS, Program
from .conftest import Login, SecuredBroker, Start, Write, error_line

PAGE = ROOT / "docs" / "security.md"
TOPICS = ("requests", "replies", "requests.dlt")
KINDS = {
    "--topic": ResourceType.TOPIC,
    "--group": ResourceType.GROUP,
    "--transactional-id": ResourceType.TRANSACTIONAL_ID,
}
COMMON = ["--bootstrap-server", "localhost:9092", "--command-config", "admin.config", "--add"]
# In place of Kafka's own: each call as a line of words, so that what a shell makes of the page is what is tried.
KAFKA_ACLS = 'kafka-acls.sh() { printf "%q " "$@"; echo; }'


def commands(define: Block, block: Block) -> list[AclBinding]:
    """What the commands of a block ask for, run by a shell after the definition of `acl`."""
    script = "\n".join([KAFKA_ACLS, define.text, block.text])
    run = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    return [read_command(shlex.split(line)) for line in run.stdout.splitlines()]


def read_command(words: list[str]) -> AclBinding:
    """What one call of kafka-acls.sh asks for."""
    assert words[: len(COMMON)] == COMMON, words
    words = words[len(COMMON) :]
    options = dict(zip(words[::2], words[1::2], strict=True))
    (kind,) = options.keys() & KINDS.keys()
    binding = AclBinding(
        KINDS[kind],
        options.pop(kind),
        ResourcePatternType[options.pop("--resource-pattern-type", "literal").upper()],
        options.pop("--allow-principal"),
        "*",
        AclOperation[options.pop("--operation").upper()],
        AclPermissionType.ALLOW,
    )
    assert not options
    return binding


DEFINE, *RULES = blocks(PAGE, "sh")
REQUESTOR, REPLIER, EXACTLY_ONCE, CREATE, REPLAY = (commands(DEFINE, rules) for rules in RULES)


def short(binding: AclBinding) -> str:
    """A rule as the name of a test's case."""
    return f"{right(binding)} on {binding.name}"


def right(binding: AclBinding) -> str:
    """The operation of a rule, as people write it."""
    assert isinstance(binding.operation, AclOperation)
    return binding.operation.name.title()


@dataclass(frozen=True)
class Cluster:
    """The secured broker without rules, and the users of the page."""

    broker: SecuredBroker
    requestor: Path  # config files
    replier: Path
    operator: Path


@pytest.fixture(scope="session")
def users(secured: SecuredBroker) -> dict[str, Login]:
    return {name: secured.new_user(name) for name in ("requestor", "replier", "operator")}


@pytest.fixture
def cluster(denying: SecuredBroker, users: dict[str, Login], written: Write) -> Cluster:
    return Cluster(denying, *(written(denying.settings(login)) for login in users.values()))


def ask(cluster: Cluster, start: Start, *options: str) -> Program:
    """A requestor with three packages."""
    return start("requestor.py", "-f", cluster.requestor, "--count", "3", "--interval", "0", *options)


# --- enough ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "guarantee"),
    [(REPLIER, "at-least-once"), (REPLIER + EXACTLY_ONCE, "exactly-once")],
    ids=["at-least-once", "exactly-once"],
)
def test_the_commands_are_enough_where_the_topics_exist(
    cluster: Cluster, start: Start, rules: Sequence[AclBinding], guarantee: str
) -> None:
    cluster.broker.create_topics(*TOPICS)
    cluster.broker.allow([*REQUESTOR, *rules])

    replier = start("replier.py", "-f", cluster.replier, "--guarantee", guarantee, "--name", "one")
    requestor = ask(cluster, start)

    assert requestor.wait() == 0
    assert "sent 3, answered 3, failed 0, lost 0\n" in requestor.out
    assert replier.stop() == 0


def test_with_the_right_to_create_them_the_scripts_make_the_topics(cluster: Cluster, start: Start) -> None:
    cluster.broker.allow([*REQUESTOR, *REPLIER, *CREATE])

    replier = start("replier.py", "-f", cluster.replier)
    requestor = ask(cluster, start)

    assert requestor.wait() == 0
    assert replier.stop() == 0
    assert set(TOPICS) <= set(cluster.broker.admin.list_topics().topics)


def test_the_commands_of_the_operator_are_enough_to_replay_dead_letters(
    cluster: Cluster, start: Start
) -> None:
    cluster.broker.create_topics(*TOPICS)
    cluster.broker.allow(REPLAY)
    cluster.broker.send("requests.dlt", b"who sent this?")

    operator = start("replier.py", "-f", cluster.operator, "--replay-dlt")

    assert operator.wait() == 0
    operator.wait_for("sent 1 back to requests")


def test_the_python_of_the_page_makes_the_same_rules(
    cluster: Cluster, written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks(PAGE, "python")
    written(cluster.broker.settings(cluster.broker.super_user)).rename(tmp_path / "admin.config")
    monkeypatch.chdir(tmp_path)

    exec(compile(code.text, "docs/security.md", "exec"), {})

    assert cluster.broker.rules() == {*REQUESTOR, *REPLIER}


# --- each one needed ---------------------------------------------------------------------------


def without(rules: Sequence[AclBinding], missing: AclBinding) -> list[AclBinding]:
    return [each for each in rules if each != missing]


def names(line: str, missing: AclBinding) -> bool:
    """Whether an error says what is missing: a topic by its name, a group by its option or prefix."""
    if missing.restype is ResourceType.TOPIC:
        return f"topic {missing.name!r}" in line
    return "lack the right Read on the consumer group (for a replier) or Describe on requestor-*" in line


@pytest.mark.parametrize("missing", REQUESTOR, ids=short)
def test_without_one_of_its_rights_the_requestor_says_which(
    cluster: Cluster, start: Start, missing: AclBinding
) -> None:
    cluster.broker.create_topics(*TOPICS)
    cluster.broker.allow(without(REQUESTOR, missing))

    line = error_line(ask(cluster, start), "requestor.py")

    assert names(line, missing)


@pytest.mark.parametrize("missing", REPLIER, ids=short)
def test_without_one_of_its_rights_the_replier_says_which(
    cluster: Cluster, start: Start, missing: AclBinding
) -> None:
    cluster.broker.create_topics(*TOPICS)
    cluster.broker.allow(without(REPLIER, missing))

    line = error_line(start("replier.py", "-f", cluster.replier), "replier.py")

    assert names(line, missing)


def test_exactly_once_without_its_right_says_so(cluster: Cluster, start: Start) -> None:
    cluster.broker.create_topics(*TOPICS)
    cluster.broker.allow(REPLIER)

    replier = start("replier.py", "-f", cluster.replier, "--guarantee", "exactly-once", "--name", "one")

    line = error_line(replier, "replier.py")
    assert "repliers-one" in line
    assert "the right Write on the transactional id" in line


# --- taken away --------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [REPLIER[0], REPLIER[1], REPLIER[3]], ids=short)
def test_a_right_taken_from_the_running_replier_ends_it_with_one_line(
    cluster: Cluster, start: Start, lost: AclBinding
) -> None:
    cluster.broker.create_topics(*TOPICS)
    cluster.broker.allow([*REQUESTOR, *REPLIER])
    replier = start("replier.py", "-f", cluster.replier)
    requestor = start("requestor.py", "-f", cluster.requestor, "--interval", "0.1")
    requestor.wait_for("package 2")

    cluster.broker.take_back(lost)

    line = error_line(replier, "replier.py")
    assert f"lack the right {right(lost)} on the " in line
    assert len(replier.err) < 20  # no hot loop


@pytest.mark.parametrize("lost", REQUESTOR[:2], ids=short)
def test_a_right_taken_from_the_running_requestor_ends_it_with_one_line(
    cluster: Cluster, start: Start, lost: AclBinding
) -> None:
    cluster.broker.create_topics(*TOPICS)
    cluster.broker.allow([*REQUESTOR, *REPLIER])
    start("replier.py", "-f", cluster.replier)
    requestor = start("requestor.py", "-f", cluster.requestor, "--interval", "0.1")
    requestor.wait_for("package 2")

    cluster.broker.take_back(lost)

    line = error_line(requestor, "requestor.py")
    assert f"topic {lost.name!r}: these credentials lack the right {right(lost)} on" in line
    assert len(requestor.err) < 20


def test_a_right_that_the_look_for_added_partitions_misses_first_is_told_by_that(cluster: Cluster) -> None:
    """Metadata that lacks the topic ends librdkafka's fetching, which then has no error to tell."""
    cluster.broker.create_topics(*TOPICS)
    cluster.broker.allow(REQUESTOR)
    (read,) = [each for each in REQUESTOR if short(each) == "Read on replies"]
    with connect("kafka", cluster.requestor, topics=["requests", "replies"]) as bus:
        inbox = bus.inbox("replies")
        assert isinstance(inbox, KafkaInbox)
        inbox.receive(1, 0.1)

        cluster.broker.take_back(read)

        told = f"topic 'replies': these credentials lack the right {right(read)} on"
        with pytest.raises(AccessDenied, match=told):
            look_for_long(inbox)


def test_a_topic_that_is_made_while_a_program_starts_is_no_lack_of_rights(cluster: Cluster) -> None:
    cluster.broker.create_topics("replies")
    cluster.broker.allow(REQUESTOR)
    later = threading.Timer(1.0, cluster.broker.create_topics, ["requests"])
    later.start()

    with connect("kafka", cluster.requestor, topics=["requests", "replies"]) as bus:
        bus.inbox("replies").receive(1, 0.1)
    later.join()


def look_for_long(inbox: KafkaInbox) -> None:
    """Nothing but look for added partitions, and no fetched record or error."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        inbox._look_at = 0.0
        inbox._look_for_partitions()
