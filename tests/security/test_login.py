"""Both scripts on a broker that wants TLS and a login: with all in order, and with one thing wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does export them
    AclOperation,
    ResourcePatternType,
    ResourceType,
)

from imagebus.broker import EmbeddedBroker

from ..programs import Program
from .certificates import Authority
from .conftest import Login, SecuredBroker, Start, Write, error_line, new_password, rule


@pytest.fixture
def plain_user(denying: SecuredBroker) -> Login:
    return denying.plain_user


@pytest.fixture
def scram_user(denying: SecuredBroker) -> Login:
    return denying.new_user()


@pytest.mark.parametrize("user", ["plain_user", "scram_user"])
def test_with_the_right_login_the_requestor_gets_its_replies(
    denying: SecuredBroker, written: Write, start: Start, user: str, request: pytest.FixtureRequest
) -> None:
    login: Login = request.getfixturevalue(user)
    everything = (AclOperation.ALL, ResourceType.TOPIC), (AclOperation.ALL, ResourceType.GROUP)
    denying.allow(rule(login, *each, "re", ResourcePatternType.PREFIXED) for each in everything)
    config = written(denying.settings(login))

    replier = start("replier.py", "-f", config)
    requestor = start("requestor.py", "-f", config, "--count", "3", "--interval", "0")

    assert requestor.wait() == 0
    assert "sent 3, answered 3, failed 0, lost 0\n" in requestor.out
    assert replier.stop() == 0


@pytest.mark.parametrize("user", ["plain_user", "scram_user"])
def test_javas_login_line_signs_in(
    denying: SecuredBroker, written: Write, start: Start, user: str, request: pytest.FixtureRequest
) -> None:
    login: Login = request.getfixturevalue(user)
    module = "plain.PlainLoginModule" if login.mechanism == "PLAIN" else "scram.ScramLoginModule"
    settings = denying.settings(login)
    name, password = settings.pop("sasl.username"), settings.pop("sasl.password")
    settings["sasl.jaas.config"] = (
        f"org.apache.kafka.common.security.{module} required username='{name}' password=\"{password}\";"
    )

    requestor = start("requestor.py", "-f", written(settings))

    assert requestor.wait() == 1
    line = error_line(requestor, "requestor.py")
    assert "may not create it" in line  # signed in, as one who has no rights
    assert password not in str(requestor)


def failed(program: Program, script: str) -> str:
    """The only line on stderr of a program that ended with 1."""
    line = error_line(program, script)
    assert program.err == [line]
    return line


@pytest.fixture
def right(secured: SecuredBroker) -> dict[str, str]:
    """Settings that are right, for a test to make one wrong."""
    return secured.settings(secured.plain_user)


def at(config: Path, settings: Mapping[str, str], key: str) -> str:
    """The place of a key, as messages name it."""
    return f"{config}:{list(settings).index(key) + 1}: "


@pytest.mark.parametrize(
    ("script", "mechanism"), [("requestor.py", "PLAIN"), ("replier.py", "SCRAM-SHA-512")]
)
def test_a_wrong_password_is_one_line(
    secured: SecuredBroker, right: dict[str, str], written: Write, start: Start, script: str, mechanism: str
) -> None:
    wrong = {**right, "sasl.mechanism": mechanism, "sasl.password": new_password()}
    config = written(wrong)

    line = failed(start(script, "-f", config), script)

    assert at(config, wrong, "sasl.password") in line
    assert f"{secured.bootstrap} refuses the login" in line
    assert "see sasl.username and sasl.password" in line
    assert wrong["sasl.password"] not in line


def test_a_mechanism_that_the_broker_does_not_know_is_one_line(
    right: dict[str, str], written: Write, start: Start
) -> None:
    wrong = {**right, "sasl.mechanism": "SCRAM-SHA-256"}
    config = written(wrong)

    line = failed(start("requestor.py", "-f", config), "requestor.py")

    assert at(config, wrong, "sasl.mechanism") in line
    assert "supported mechanisms: PLAIN,SCRAM-SHA-512" in line


def test_a_wrong_authority_is_one_line(
    secured: SecuredBroker, right: dict[str, str], written: Write, start: Start, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text(Authority("somebody else").pem)
    wrong = {**right, "ssl.ca.location": str(other)}
    config = written(wrong)

    line = failed(start("replier.py", "-f", config), "replier.py")

    assert at(config, wrong, "ssl.ca.location") in line
    assert f"the certificate of {secured.bootstrap} is refused" in line
    assert "see ssl.ca.location" in line


def test_no_authority_means_those_that_the_machine_trusts(
    right: dict[str, str], written: Write, start: Start
) -> None:
    del right["ssl.ca.location"]

    line = failed(start("requestor.py", "-f", written(right)), "requestor.py")

    assert "see ssl.ca.location" in line


def test_a_certificate_for_another_host_is_one_line(
    secured: SecuredBroker, right: dict[str, str], written: Write, start: Start
) -> None:
    wrong = {**right, "bootstrap.servers": secured.kafka.bootstrap}
    config = written(wrong)

    line = failed(start("requestor.py", "-f", config), "requestor.py")

    assert at(config, wrong, "bootstrap.servers") in line
    assert "certificate is not valid for 'localhost'; see bootstrap.servers" in line


def test_plaintext_to_a_tls_port_is_one_line(secured: SecuredBroker, written: Write, start: Start) -> None:
    wrong = {"bootstrap.servers": secured.bootstrap}
    config = written(wrong)

    line = failed(start("replier.py", "-f", config), "replier.py")

    assert at(config, wrong, "bootstrap.servers") in line
    assert f"{secured.bootstrap} speaks TLS: set security.protocol to SASL_SSL or SSL" in line


def test_a_login_without_tls_to_a_tls_port_is_one_line(
    right: dict[str, str], written: Write, start: Start
) -> None:
    wrong = {**right, "security.protocol": "SASL_PLAINTEXT"}
    config = written(wrong)

    line = failed(start("requestor.py", "-f", config), "requestor.py")

    assert at(config, wrong, "security.protocol") in line
    assert "speaks TLS" in line


def test_tls_to_a_plaintext_port_is_one_line(
    broker: EmbeddedBroker, right: dict[str, str], written: Write, start: Start
) -> None:
    wrong = {**right, "bootstrap.servers": broker.bootstrap}
    config = written(wrong)

    line = failed(start("requestor.py", "-f", config), "requestor.py")

    assert at(config, wrong, "security.protocol") in line
    assert f"{broker.bootstrap} does not speak TLS" in line


def test_tls_without_a_login_is_one_line(right: dict[str, str], written: Write, start: Start) -> None:
    wrong = {**right, "security.protocol": "SSL"}

    program = start("requestor.py", "-f", written(wrong))

    assert "something listens there: does it want a login? security.protocol is SSL" in error_line(
        program, "requestor.py"
    )
    (warning, _) = program.err
    assert "sasl.password has no effect: without security.protocol=SASL_SSL there is no login" in warning


def test_a_login_where_none_is_asked_for_is_one_line(
    broker: EmbeddedBroker, right: dict[str, str], written: Write, start: Start
) -> None:
    wrong = {**right, "bootstrap.servers": broker.bootstrap, "security.protocol": "SASL_PLAINTEXT"}
    config = written(wrong)

    line = failed(start("requestor.py", "-f", config), "requestor.py")

    assert at(config, wrong, "security.protocol") in line
    assert "refuses the login: it asks for none" in line


@pytest.mark.parametrize(
    ("change", "key", "reason"),
    [
        ({"sasl.mechanism": "KERBEROS"}, "sasl.mechanism", "sasl.mechanism must be PLAIN, SCRAM-SHA-256"),
        ({"sasl.mechanism": ""}, "sasl.mechanism", "sasl.mechanism"),
        ({"ssl.ca.location": "gone.pem"}, "ssl.ca.location", "names a file that is not there"),
        ({"ssl.ca.location": "README.md"}, "ssl.ca.location", "ssl.ca.location cannot be used"),
        ({"sasl.password": ""}, "sasl.username", "sasl.username and sasl.password must be set"),
    ],
)
def test_what_the_file_alone_shows_to_be_wrong_ends_with_2(
    right: dict[str, str], written: Write, start: Start, change: dict[str, str], key: str, reason: str
) -> None:
    wrong = {**right, **change}
    config = written(wrong)

    program = start("requestor.py", "-f", config)

    assert program.wait() == 2
    (line,) = program.err
    assert at(config, wrong, key) in line
    assert reason in line
