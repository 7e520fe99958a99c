"""Reading kafka.config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imagebus.errors import ConfigError
from imagebus.transports.kafka.config import read_settings

Write = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "kafka.config"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    return write


def problem(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        read_settings(path)
    return str(refused.value)


def test_lines_are_read_as_librdkafka_reads_them(written: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    path = written(
        "# comment\n\n  bootstrap.servers = a:9092,b:9092  \nsasl.password=x=y#z\nsasl.username = ${SECRET}!\n"
    )

    settings = read_settings(path)

    assert dict(settings) == {
        "bootstrap.servers": "a:9092,b:9092",
        "sasl.password": "x=y#z",
        "sasl.username": "s3cret!",
    }
    assert settings.where("sasl.password") == f"{path}:4"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "kafka.config"
    path.write_bytes(b"\xef\xbb\xbfbootstrap.servers=a:1\r\nclient.id=x\r\n")

    assert dict(read_settings(path)) == {"bootstrap.servers": "a:1", "client.id": "x"}


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("bootstrap.servers=a:1\nnonsense\n", 2, "expected key = value"),
        ("= value\n", 1, "expected key = value"),
        ("two words = value\n", 1, "expected key = value"),
        ('{"type": "service_account"}\n', 1, "this is JSON"),
        ("acks=1\nacks=all\n", 2, "acks is set twice, first on line 1"),
        ("sasl.password=${NOT_SET_ANYWHERE}\n", 1, "NOT_SET_ANYWHERE"),
        ("plugin.library.paths=evil.so\n", 1, "plugin.library.paths is refused"),
        ("sasl.kerberos.kinit.cmd=sh\n", 1, "sasl.kerberos.kinit.cmd is refused"),
        ("ssl.engine.location=evil.so\n", 1, "ssl.engine.location is refused"),
        ("ssl.providers=evil\n", 1, "ssl.providers is refused"),
        ("sasl.kerberos.principal=x; touch y\n", 1, "sasl.kerberos.principal has characters that a shell"),
        ('sasl.kerberos.keytab=x" ; touch y\n', 1, "sasl.kerberos.keytab has characters that a shell"),
        ("sasl.kerberos.principal=$(id)@HOST\n", 1, "sasl.kerberos.principal has characters that a shell"),
        ("offset.store.method=file\n", 1, "offset.store.method must be broker"),
        ("enable.partition.eof=true\n", 1, "enable.partition.eof must be false"),
        ("metadata.broker.list=b:1\n", 1, "metadata.broker.list is not set here but with bootstrap.servers"),
        ("enable.auto.commit=true\n", 1, "enable.auto.commit must be false"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(written: Write, text: str, line: int, reason: str) -> None:
    path = written(text)

    message = problem(path)

    assert message.startswith(f"{path}:{line}: ")
    assert reason in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "kafka.config: no such file" in problem(tmp_path / "kafka.config")


def test_a_missing_address_is_named(written: Write) -> None:
    assert "bootstrap.servers is missing" in problem(written("acks=all\n"))


def test_a_binary_file_is_no_config(tmp_path: Path) -> None:
    path = tmp_path / "kafka.config"
    path.write_bytes(b"\xff\xfe\x00")

    assert "cannot be read as text" in problem(path)


def test_no_value_is_shown_in_an_error_or_a_repr(written: Write) -> None:
    settings = read_settings(written("bootstrap.servers=a:1\nsasl.password=canary\n"))

    assert "canary" not in repr(settings)
    assert "canary" not in problem(written("sasl.password=canary\nsasl.password canary\n"))


def test_the_shipped_file_is_for_the_embedded_broker() -> None:
    assert dict(read_settings("kafka.config")) == {"bootstrap.servers": "localhost:9092"}


@pytest.mark.parametrize(
    ("text", "line", "warning"),
    [
        ("bootstrap.servers=kafka.invalid:1\n", 1, "can read and change the messages"),
        ("bootstrap.servers=localhost:1,kafka.invalid:1\n", 1, "can read and change the messages"),
        ("bootstrap.servers=127.0.0.1.kafka.invalid:1\n", 1, "can read and change the messages"),
        ("bootstrap.servers=a:1\nsecurity.protocol=SASL_PLAINTEXT\n", 2, "can read and change the messages"),
        (
            "bootstrap.servers=a:1\nsecurity.protocol=ssl\nenable.ssl.certificate.verification=False\n",
            3,
            "anybody can pretend to be the broker",
        ),
        (
            "bootstrap.servers=a:1\nsecurity.protocol=ssl\nssl.endpoint.identification.algorithm=None\n",
            3,
            "anybody can pretend to be the broker",
        ),
        (
            "bootstrap.servers=localhost:1\nsasl.oauthbearer.token.endpoint.url=http://login.invalid/token\n",
            2,
            "can read the client's secret",
        ),
    ],
)
def test_what_others_could_read_or_pretend_is_said_once(
    written: Write, caplog: pytest.LogCaptureFixture, text: str, line: int, warning: str
) -> None:
    path = written(text)

    read_settings(path)

    (said,) = caplog.messages
    assert said.startswith(f"{path}:{line}: ")
    assert warning in said


@pytest.mark.parametrize(
    "text",
    [
        "bootstrap.servers=localhost:1,127.0.0.1:1,[::1]:1\n",
        "bootstrap.servers=kafka.invalid:1\nsecurity.protocol=SASL_SSL\n",
        "bootstrap.servers=localhost:1\nsasl.oauthbearer.token.endpoint.url=https://login.invalid/token\n",
        "bootstrap.servers=localhost:1\nsasl.oauthbearer.token.endpoint.url=http://127.0.0.1:8080/token\n",
    ],
)
def test_loopback_and_tls_need_no_warning(
    written: Write, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    read_settings(written(text))

    assert caplog.messages == []
