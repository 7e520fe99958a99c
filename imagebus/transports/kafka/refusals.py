"""Why librdkafka refuses the settings of a file, as one line: file, line and key, and never a value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from imagebus.errors import ConfigError
from imagebus.transports.kafka import driver_log, foreign
from imagebus.transports.kafka.checks import NUMBERS
from imagebus.transports.kafka.entries import Settings

# librdkafka does not list the values; these are the settings whose values other clients write otherwise.
_VALUES = {
    "auto.offset.reset": "earliest, latest or error",
    "client.dns.lookup": "use_all_dns_ips or resolve_canonical_bootstrap_servers_only",
    "compression.codec": "none, gzip, snappy, lz4 or zstd",
    "compression.type": "none, gzip, snappy, lz4 or zstd",
    "group.protocol": "classic or consumer",
    "partitioner": "consistent_random, murmur2_random, random or another of librdkafka's",
    "security.protocol": "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
    "ssl.endpoint.identification.algorithm": "https or none",
}
_OTHER_NAMES = {
    "acks": "request.required.acks",
    "retries": "message.send.max.retries",
    "linger.ms": "queue.buffering.max.ms",
    "message.timeout.ms": "delivery.timeout.ms",
    "max.in.flight": "max.in.flight.requests.per.connection",
}
_NAMED = re.compile(r"`([a-z._]+)`")
_JAVA_STORES = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")  # how JKS and JCEKS begin
_BINARY = b"\x30"  # how PKCS#12 and DER begin


def explained(theirs: Settings, error: Exception) -> ConfigError:
    """The error for what confluent-kafka raised when a client was made from `theirs`."""
    if not isinstance(error, KafkaException):  # its own checks, in Python
        reason = theirs.redact(str(error)).partition("\n")[0].partition(". ")[0]
        key = next((key for key in theirs if key in reason), "")
        return ConfigError(f"{theirs.where(key)}: {reason}")
    reason = error.args[0].str()
    kind, _, conflict = reason.partition(": ")
    if kind.startswith("Failed to create"):  # each setting is valid by itself, but not with the others
        return _conflicting(theirs, theirs.redact(conflict))
    for key, value in theirs.items():
        alone: dict[str, Any] = {key: value, "logger": driver_log.log}
        try:
            AdminClient(alone)
        except KafkaException as refused:
            reason = refused.args[0].str().strip()
            if not reason.startswith("Failed to create"):
                return ConfigError(f"{theirs.where(key)}: {_wrong_by_itself(key, value, reason)}")
    return ConfigError(f"{theirs.path}: {theirs.redact(reason)}")


def _wrong_by_itself(key: str, value: str, reason: str) -> str:
    if reason.startswith("No such"):
        advice = foreign.instead(key)
        return f"unknown setting {key}" + (f": {advice}" if advice else "")
    hint = reason.partition(". ")[0]
    if _NAMED.search(hint) and value not in reason:  # librdkafka's own words name the setting to use
        return f"{key}: {hint}"
    # Its other reasons repeat the value, which may be a secret.
    wrong = "not one it may have"
    if not value:
        wrong = "empty"
    elif "outside " in reason:
        wrong = reason[reason.find("outside ") :]
    elif key in _VALUES:
        wrong += f": expected {_VALUES[key]}"
    elif reason.startswith("Expected bool"):
        wrong += ": expected true or false"
    elif key.rpartition(".")[2] in NUMBERS:
        wrong += ": expected a number"
    return f"the value of {key} is {wrong}"


def _conflicting(theirs: Settings, conflict: str) -> ConfigError:
    if "SASL mechanism" in conflict:
        key = next((key for key in ("sasl.mechanism", "sasl.mechanisms") if key in theirs), "")
        where = theirs.where(key or "security.protocol")
        return ConfigError(
            f"{where}: sasl.mechanism must be PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        )
    key = _key_in(theirs, conflict)
    if key.endswith(".location"):
        conflict = _why_no_use(key, Path(theirs[key])) or conflict
    if key and "::" in conflict:  # OpenSSL's numbers before its reason
        conflict = f"{key} cannot be used: {conflict.rpartition('::')[2]}"
    return ConfigError(f"{theirs.where(key)}: {conflict}")


def _key_in(theirs: Settings, conflict: str) -> str:
    """The setting that librdkafka complains of, under the name that the file has for it; empty if it has none."""
    named = _NAMED.findall(conflict)
    names = [*named, *(_OTHER_NAMES[key] for key in named if key in _OTHER_NAMES)]
    return next((key for key in theirs if key in names), "") or next(
        (key for key in theirs if key in conflict), ""
    )


def _why_no_use(key: str, path: Path) -> str | None:
    """Why a file of keys or certificates cannot be used, if that is seen from outside."""
    try:
        with path.open("rb") as file:
            start = file.read(10)
    except FileNotFoundError:
        tilde = str(path).startswith("~")
        return f"{key} names a file that is not there" + (": write ${HOME} in place of ~" if tilde else "")
    except PermissionError:
        return f"{key} names a file that this user cannot read"
    except OSError:  # a folder may be right
        return None
    wanted = "a PKCS#12 file" if key == "ssl.keystore.location" else "a PEM file"
    if start.startswith(_JAVA_STORES):
        way = "keytool -importkeystore … -deststoretype pkcs12"
        if key != "ssl.keystore.location":
            way = "keytool -exportcert -rfc …"
        return f"{key} names a key store of Java's, expected {wanted}: {way} writes one"
    if key == "ssl.keystore.location" and start == b"-----BEGIN":
        return (
            f"{key} names a PEM file, expected {wanted}: or use ssl.certificate.location and ssl.key.location"
        )
    if key != "ssl.keystore.location" and start.startswith(_BINARY):
        return f"{key} names a binary file, expected {wanted}: openssl pkcs12 or openssl x509 writes one"
    return None
