"""What can be wrong with the settings of a file as a whole, found before anything connects."""

from __future__ import annotations

import logging
import re

from imagebus.errors import ConfigError
from imagebus.transports.kafka import foreign
from imagebus.transports.kafka.entries import Settings

log = logging.getLogger(__name__)

_CHECKS_OFF = {
    "enable.ssl.certificate.verification": "false",
    "ssl.endpoint.identification.algorithm": "none",
}
_LOOPBACK = re.compile(r"(.+://)?(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")
_TWO_SERVERS = re.compile(r".+:\d+[;\s]+\S+:\d+")
_PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
# The last words of librdkafka's settings that are numbers.
NUMBERS = frozenset(
    {
        *("acks", "bytes", "cnt", "connection", "fails", "flight", "kbytes", "log_level", "messages", "ms"),
        *("records", "relogin", "retries", "seconds", "size", "threshold", "ttl"),
    }
)
_FRACTIONS = frozenset({"linger.ms", "queue.buffering.max.ms"})
_BEGINS_AS_NUMBER = re.compile(r"[+-]?\d")
_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_LARGEST_MESSAGE = 1_000_000  # bytes: librdkafka's default of message.max.bytes


def check(settings: Settings) -> None:
    """Raise `ConfigError` for what cannot work; warn of what others on the network could read, or impersonate."""
    _check_servers(settings)
    _check_login(settings)
    _check_files(settings)
    _check_numbers(settings)
    _check_queue(settings)
    _warn_of_weakness(settings)


def protocol(settings: Settings) -> str:
    """security.protocol in small letters, with librdkafka's default."""
    return settings.get("security.protocol", "plaintext").lower()


def mechanism(settings: Settings) -> tuple[str, str]:
    """The key of the login's mechanism, which has two names, and its value; the last one counts."""
    return next(
        (
            (key, settings[key])
            for key in reversed(list(settings))
            if key in ("sasl.mechanism", "sasl.mechanisms")
        ),
        ("sasl.mechanism", ""),
    )


def _check_servers(settings: Settings) -> None:
    key = "bootstrap.servers"
    of = f"{settings.where(key)}: {key}"
    servers = settings[key]
    if "$" in servers:
        raise ConfigError(f"{of} has a $: a variable is written ${{NAME}}")
    if "<" in servers or "{" in servers:
        raise ConfigError(f"{of} is still a placeholder: write the value in its place")
    if any(mark in servers for mark in "\"'") or re.fullmatch(
        r"\[[^\[\]]*[^\[\]0-9a-fA-F:.%][^\[\]]*\]", servers
    ):
        raise ConfigError(
            f"{of} is written as a list: expected host:port,host:port without brackets and quotes"
        )
    if _TWO_SERVERS.fullmatch(servers):
        raise ConfigError(f"{of} has servers that no comma parts: expected host:port,host:port")
    for server in servers.split(","):
        named, scheme, address = server.strip().rpartition("://")
        if scheme and named.lower() not in _PROTOCOLS:
            raise ConfigError(f"{of} has a :// that names no protocol of Kafka's: expected host:port")
        if scheme and named.lower() != protocol(settings):
            wanted = named.upper()
            raise ConfigError(f"{of} begins with {wanted}://, so it wants security.protocol = {wanted}")
        _, colon, port = address.rpartition(":")
        if (
            colon
            and not port.endswith("]")
            and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536)
        ):
            raise ConfigError(f"{of} has a port that is not between 1 and 65535")


def _check_login(settings: Settings) -> None:
    """A login that librdkafka waits for, or leaves out, without a word."""
    key, name = mechanism(settings)
    of = f"{settings.where(key)}: {key}"
    if name.upper() == "AWS_MSK_IAM":
        raise ConfigError(f"{of}: {foreign.IAM}")
    if not protocol(settings).startswith("sasl_"):
        given = next((key for key in ("sasl.password", key) if settings.get(key)), None)
        if given:
            log.warning(
                "%s: %s has no effect: without security.protocol=SASL_SSL there is no login",
                settings.where(given),
                given,
            )
    elif name.upper() == "OAUTHBEARER":
        by_oidc = settings.get("sasl.oauthbearer.method", "").lower() == "oidc"
        unsecure = settings.get("enable.sasl.oauthbearer.unsecure.jwt", "").lower() == "true"
        if not by_oidc and not unsecure:
            raise ConfigError(f"{of} has nowhere to get a token from: {foreign.OAUTH}")


def _check_files(settings: Settings) -> None:
    for key, value in settings.items():
        if key.endswith((".location", ".keytab")) and value.startswith(("file:", "classpath:")):
            raise ConfigError(f"{settings.where(key)}: {key} begins like a URL: expected the path alone")


def _check_numbers(settings: Settings) -> None:
    """librdkafka reads a number up to its first other character: `45s` as 45 ms, `1_000_000` as 1."""
    for key, value in settings.items():
        if key.rpartition(".")[2] not in NUMBERS or not _BEGINS_AS_NUMBER.match(value):
            continue
        form, kind = (_NUMBER, "number") if key in _FRACTIONS else (_WHOLE, "whole number")
        if not form.fullmatch(value):
            raise ConfigError(f"{settings.where(key)}: {key} must be a {kind}, without a unit")


def _check_queue(settings: Settings) -> None:
    """A message larger than the whole queue would wait for room for ever."""
    key, limit = "queue.buffering.max.kbytes", "message.max.bytes"
    try:
        room = int(settings.get(key, _LARGEST_MESSAGE)) * 1024
        largest = int(settings.get(limit, _LARGEST_MESSAGE))
    except ValueError:
        return  # librdkafka says so
    if 0 < room < largest <= 10**9:
        raise ConfigError(
            f"{settings.where(key)}: {key} has no room for one message of {limit} = {largest}: "
            f"at least {-(-largest // 1024)}, or a smaller {limit}"
        )


def _warn_of_weakness(settings: Settings) -> None:
    """Warn of what others on the network could read, or impersonate."""
    servers = settings["bootstrap.servers"].split(",")
    if protocol(settings).endswith("plaintext") and not all(
        _LOOPBACK.fullmatch(server.strip()) for server in servers
    ):
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
