"""Reading `kafka.config`: librdkafka's `key = value` lines, with the place of each key remembered.

    # a comment
    bootstrap.servers = localhost:9092
    sasl.password = ${KAFKA_PASSWORD}

Spaces around either side are dropped, `=` may stand in values, `${NAME}` is taken from the
environment. Any librdkafka setting passes through, and librdkafka judges it; what would run code or
break the delivery promise is refused here.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagebus.errors import ConfigError

log = logging.getLogger(__name__)

# Settings that load a library into the process or run a shell command.
_LOADS_CODE = frozenset(
    {"plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "ssl.providers"}
)
# What librdkafka puts into kinit's command line, which a shell reads, and the characters allowed there.
_IN_A_COMMAND = frozenset({"sasl.kerberos.keytab", "sasl.kerberos.principal"})
_HARMLESS = re.compile(r"[\w@%+=:,./-]*")
# The delivery guarantee rests on these settings: only these values keep it.
_FIXED = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.idempotence": "true",
    "isolation.level": "read_committed",
    "offset.store.method": "broker",  # the other one writes a file
    "partition.assignment.strategy": "cooperative-sticky",
}
# Parameters of `join` and `connect`, and another name of a setting that is checked here.
_ELSEWHERE = {
    "group.id": "the parameter group",
    "transactional.id": "the parameter transactional_id",
    "metadata.broker.list": "bootstrap.servers",
}
_SECRETS = frozenset(
    {
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    }
)
_CHECKS_OFF = {
    "enable.ssl.certificate.verification": "false",
    "ssl.endpoint.identification.algorithm": "none",
}
_LOOPBACK = re.compile(r"(.+://)?(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# As librdkafka writes them. Anything else before an equals sign may be part of a secret.
_KEY = re.compile(r"[a-z][a-z0-9._]*")


@dataclass(frozen=True)
class Settings(Mapping[str, str]):
    """The settings of one file, in its order; `where(key)` is the place of a key, for messages."""

    path: Path
    entries: Mapping[str, str]
    lines: Mapping[str, int]

    def __getitem__(self, key: str) -> str:
        return self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"Settings({self.path}, keys={sorted(self.entries)})"  # never the values: passwords

    def where(self, key: str) -> str:
        """`file:line` of a key; the file alone for one that is not in it."""
        return f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)

    def redact(self, text: str) -> str:
        """`text`, librdkafka's, without the values of secret settings."""
        for key in _SECRETS & self.entries.keys():
            if self.entries[key]:
                text = text.replace(self.entries[key], "***")
        return text


def read_settings(path: str | Path) -> Settings:
    """Read a file of `key = value` lines.

    Raises `ConfigError`, one line with file, line and key and never a value, when the file is missing
    or unreadable, holds JSON, or a line is no setting, repeats one, names an unset variable or a
    refused setting; also when `bootstrap.servers` is missing.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        readable_by_all = bool(path.stat().st_mode & stat.S_IROTH)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {type(error).__name__}") from None
    if text.lstrip().startswith("{"):
        raise ConfigError(f"{path}:1: this is JSON, expected key = value lines for Kafka")

    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}:{number}"
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not _KEY.fullmatch(key):
            raise ConfigError(f"{where}: expected key = value")
        if key in values:
            raise ConfigError(f"{where}: {key} is set twice, first on line {lines[key]}")
        if key in _LOADS_CODE:
            raise ConfigError(f"{where}: {key} is refused: it loads code or runs a command")
        if key in _ELSEWHERE:
            raise ConfigError(f"{where}: {key} is not set here but with {_ELSEWHERE[key]}")
        if key in _SECRETS and value and not _VARIABLE.search(value) and readable_by_all:
            raise ConfigError(
                f"{where}: {key} stands in a file that everybody can read: chmod o-r {path}, or write ${{NAME}}"
            )
        value = _substitute(value, f"{where}: {key}")
        if key in _IN_A_COMMAND and not _HARMLESS.fullmatch(value):
            raise ConfigError(f"{where}: {key} has characters that a shell would act on")
        if key in _FIXED and value.lower() != _FIXED[key]:
            raise ConfigError(f"{where}: {key} must be {_FIXED[key]}: the delivery guarantee rests on it")
        values[key] = value
        lines[key] = number
    if not values.get("bootstrap.servers"):
        raise ConfigError(f"{path}: bootstrap.servers is missing, expected host:port of a broker")
    settings = Settings(path, values, lines)
    _check_servers(settings)
    _warn_of_weakness(settings)
    return settings


def _check_servers(settings: Settings) -> None:
    where = settings.where("bootstrap.servers")
    for server in settings["bootstrap.servers"].split(","):
        _, colon, port = server.strip().rpartition(":")
        if (
            colon
            and not port.endswith("]")
            and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536)
        ):
            raise ConfigError(f"{where}: bootstrap.servers has a port that is not between 1 and 65535")


def _warn_of_weakness(settings: Settings) -> None:
    """Warn of what others on the network could read, or impersonate."""
    servers = settings["bootstrap.servers"].split(",")
    protocol = settings.get("security.protocol", "plaintext").lower()
    if protocol.endswith("plaintext") and not all(_LOOPBACK.fullmatch(server.strip()) for server in servers):
        log.warning(
            "%s: without security.protocol=SASL_SSL or SSL everybody on the way can read and change the messages",
            settings.where("security.protocol" if "security.protocol" in settings else "bootstrap.servers"),
        )
    key = "sasl.oauthbearer.token.endpoint.url"
    scheme, _, rest = settings.get(key, "").partition("://")
    if scheme.lower() == "http" and not _LOOPBACK.fullmatch(rest.partition("/")[0]):
        log.warning(
            "%s: without https everybody on the way can read the client's secret", settings.where(key)
        )
    for key, off in _CHECKS_OFF.items():
        if settings.get(key, "").lower() == off:
            log.warning("%s: %s=%s: anybody can pretend to be the broker", settings.where(key), key, off)


def _substitute(value: str, where: str) -> str:
    def variable(found: re.Match[str]) -> str:
        try:
            return os.environ[found[1]]
        except KeyError:
            raise ConfigError(f"{where} uses ${{{found[1]}}}, which is not set in the environment") from None

    return _VARIABLE.sub(variable, value)
