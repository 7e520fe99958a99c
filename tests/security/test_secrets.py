"""A planted password is searched for in everything that the scripts print; what must be refused is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does export them
    AclOperation,
    ResourcePatternType,
    ResourceType,
)

from imagebus.transports.kafka.config import read_settings

from ..programs import Program
from .certificates import Authority
from .conftest import SecuredBroker, Start, Write, rule

SCRIPTS = ("requestor.py", "replier.py")
CANARY = "canary-5f0e9d31c7"


def shown(*programs: Program) -> str:
    """All that these programs printed so far."""
    return "".join(str(program) for program in programs)


@pytest.mark.parametrize("place", ["file", "environment"])
def test_a_password_that_works_is_shown_nowhere(
    denying: SecuredBroker, written: Write, start: Start, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    user = denying.new_user(password=CANARY)
    everything = (AclOperation.ALL, ResourceType.TOPIC), (AclOperation.ALL, ResourceType.GROUP)
    denying.allow(rule(user, *each, "re", ResourcePatternType.PREFIXED) for each in everything)
    settings = {**denying.settings(user), "debug": "all"}
    if place == "environment":
        monkeypatch.setenv("KAFKA_PASSWORD", CANARY)
        settings["sasl.password"] = "${KAFKA_PASSWORD}"
    config = written(settings)

    replier = start("replier.py", "-f", config, "--verbose")
    requestor = start("requestor.py", "-f", config, "--verbose", "--count", "2", "--interval", "0")

    assert requestor.wait() == 0
    command = Path(f"/proc/{replier.pid}/cmdline").read_text()
    assert replier.stop() == 0
    assert "answered" in shown(replier)  # it was verbose
    assert "[rdkafka#" in shown(replier)  # and so was librdkafka
    assert CANARY not in shown(replier, requestor)
    assert CANARY not in command
    assert CANARY not in repr(read_settings(config))


FAILURES: dict[str, tuple[dict[str, str], int]] = {
    "a wrong password": ({}, 1),
    "a wrong password, with debug": ({"debug": "all"}, 1),
    "a wrong authority": ({"ssl.ca.location": "other.pem", "debug": "all"}, 1),
    "an unknown key": ({"sasl.pasword": CANARY}, 2),
    "a secret in the wrong place": ({"linger.ms": CANARY}, 2),
    "a secret as the mechanism": ({"sasl.mechanism": CANARY}, 2),
    "a secret as the protocol": ({"security.protocol": CANARY}, 2),
    "a key that is none": ({"ssl.key.pem": CANARY}, 2),
    "a key's password": ({"ssl.key.location": "other.pem", "ssl.key.password": CANARY}, 2),
    "an authority that is none": ({"ssl.ca.pem": CANARY}, 2),
    "a keystore's password": ({"ssl.keystore.location": "other.pem", "ssl.keystore.password": CANARY}, 2),
    "a login that is none": (
        {
            "sasl.mechanism": "OAUTHBEARER",
            "enable.sasl.oauthbearer.unsecure.jwt": "true",
            "sasl.oauthbearer.config": f"principal=x {CANARY}",
        },
        1,
    ),
    "a secret that should be a program's": ({"stats_cb": CANARY}, 2),
    "a secret in place of a number": ({"socket.timeout.ms": f"1{CANARY}"}, 2),
    "a secret in place of a port": ({"bootstrap.servers": f"localhost:{CANARY}"}, 2),
}


@pytest.mark.parametrize(("change", "status"), FAILURES.values(), ids=FAILURES)
def test_a_password_that_fails_is_shown_nowhere(
    secured: SecuredBroker,
    written: Write,
    start: Start,
    tmp_path: Path,
    change: dict[str, str],
    status: int,
) -> None:
    other = tmp_path / "other.pem"
    other.write_text(Authority("somebody else").pem)
    changed = {key: str(other) if value == "other.pem" else value for key, value in change.items()}
    config = written({**secured.settings(secured.plain_user), "sasl.password": CANARY, **changed})

    program = start("requestor.py", "-f", config, "--verbose")

    assert program.wait() == status, program
    assert program.err[-1].startswith("requestor.py: "), program
    assert "Traceback" not in shown(program)
    assert CANARY not in shown(program)


@pytest.mark.parametrize(
    "line",
    [f"sasl.password {CANARY}", f"sasl.password: {CANARY}", f"{CANARY}", f"{{'sasl.password': '{CANARY}'}}"],
)
def test_a_line_that_is_no_setting_is_not_shown(start: Start, tmp_path: Path, line: str) -> None:
    config = tmp_path / "kafka.config"
    config.write_text(f"{line}\n")

    program = start("requestor.py", "-f", config, "--verbose")

    assert program.wait() == 2
    assert len(program.err) == 1
    assert CANARY not in shown(program)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "setting",
    [
        "plugin.library.paths = evil",
        "sasl.kerberos.kinit.cmd = touch evil",
        "ssl.engine.location = evil.so",
        "ssl.providers = evil",
    ],
)
def test_settings_that_load_code_or_run_a_command_are_refused(
    start: Start, tmp_path: Path, script: str, setting: str
) -> None:
    config = tmp_path / "kafka.config"
    config.write_text(f"bootstrap.servers = localhost:9092\n{setting}\n")

    program = start(script, "-f", config)

    assert program.wait() == 2
    key = setting.partition(" =")[0]
    assert program.err == [f"{script}: {config}:2: {key} is refused: it loads code or runs a command\n"]


def test_plaintext_to_another_machine_is_warned_of_once(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "kafka.config"
    config.write_text("bootstrap.servers = kafka.invalid:9092\n")  # a name that nobody can have

    program = start("requestor.py", "-f", config)

    assert program.wait() == 1
    warning, error = program.err
    assert f"WARNING {config}:1: without security.protocol=SASL_SSL or SSL everybody on the way" in warning
    assert error.startswith("requestor.py: ")


def test_checks_that_are_off_are_warned_of(secured: SecuredBroker, written: Write, start: Start) -> None:
    settings = {
        **secured.settings(secured.plain_user),
        "bootstrap.servers": secured.kafka.bootstrap,  # localhost: not in the certificate
        "ssl.endpoint.identification.algorithm": "none",
        "sasl.password": "wrong",
    }

    program = start("requestor.py", "-f", written(settings))

    assert program.wait() == 1
    warning, error = program.err
    assert "ssl.endpoint.identification.algorithm=none: anybody can pretend to be the broker" in warning
    assert "refuses the login" in error  # so the certificate was taken
