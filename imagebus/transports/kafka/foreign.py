"""Settings as other Kafka clients write them: Java's, Spring's, kafka-python's, .NET's; and the setting to use instead.

What a cloud's console exports is taken as it comes: Spring's names for librdkafka's settings, and keys of the
Schema Registry, which have no use here. All others are errors that name the setting.
"""

from __future__ import annotations

import re

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

# Parameters of `join` and `connect`, and another name of a setting that is checked here.
ELSEWHERE = {
    "group.id": "the parameter group",
    "transactional.id": "the parameter transactional_id",
    "metadata.broker.list": "bootstrap.servers",
}
# Exported by consoles, and of no use here: messages have a format of their own, and OpenSSL negotiates TLS.
_UNUSED = re.compile(
    r"schema\.registry\..+|basic\.auth\.(credentials\.source|user\.info)|ssl\.(enabled\.protocols|protocol)"
)
_SPRING = "spring.kafka.properties."
_SPRINGS_OWN = {"spring.kafka.bootstrap-servers": "bootstrap.servers"}  # Confluent's console has it

_NO_CODE = "delete the line: requests and replies have a format of their own"
_JAVA_ALONE = "delete the line: only Java has it"
_TRUST = "write ssl.ca.location, with the certificates as a PEM file"
_OAUTH = (
    "write sasl.oauthbearer.method = oidc, sasl.oauthbearer.token.endpoint.url, .client.id and .client.secret"
)
ADVICE = {
    # Java: TLS
    "ssl.truststore.location": _TRUST,
    "ssl.truststore.password": "delete the line: the PEM file of ssl.ca.location has no password",
    "ssl.truststore.type": _TRUST,
    "ssl.truststore.certificates": "write ssl.ca.pem",
    "ssl.keystore.key": "write ssl.key.pem",
    "ssl.keystore.certificate.chain": "write ssl.certificate.pem",
    "ssl.keystore.type": "delete the line: ssl.keystore.location is a PKCS#12 file",
    "ssl.provider": _JAVA_ALONE,
    "ssl.keymanager.algorithm": _JAVA_ALONE,
    "ssl.trustmanager.algorithm": _JAVA_ALONE,
    "ssl.secure.random.implementation": _JAVA_ALONE,
    "ssl.engine.factory.class": _JAVA_ALONE,
    "security.providers": _JAVA_ALONE,
    # Java: login
    "sasl.login.class": _JAVA_ALONE,
    "sasl.oauthbearer.jwks.endpoint.url": "delete the line: it is for brokers",
    "java.security.auth.login.config": "write sasl.username and sasl.password",
    "java.security.krb5.conf": "set KRB5_CONFIG in the environment",
    # Java: what the programs do themselves
    "key.serializer": _NO_CODE,
    "value.serializer": _NO_CODE,
    "key.deserializer": _NO_CODE,
    "value.deserializer": _NO_CODE,
    "default.key.serde": _NO_CODE,
    "default.value.serde": _NO_CODE,
    "interceptor.classes": _JAVA_ALONE,
    "metric.reporters": _JAVA_ALONE,
    "metrics.num.samples": _JAVA_ALONE,
    "metrics.recording.level": _JAVA_ALONE,
    "metrics.sample.window.ms": _JAVA_ALONE,
    "auto.include.jmx.reporter": _JAVA_ALONE,
    "config.providers": "write ${NAME} for a value from the environment",
    "exclude.internal.topics": _JAVA_ALONE,
    "application.id": "use the parameter group",
    "processing.guarantee": "use the parameter transactional_id",
    # Java: under another name
    "buffer.memory": "write queue.buffering.max.kbytes",
    "default.api.timeout.ms": "write socket.timeout.ms",
    "fetch.max.wait.ms": "write fetch.wait.max.ms",
    "max.block.ms": _JAVA_ALONE,
    "max.request.size": "write message.max.bytes",
    "partitioner.class": "write partitioner",
    "receive.buffer.bytes": "write socket.receive.buffer.bytes",
    "send.buffer.bytes": "write socket.send.buffer.bytes",
    "socket.connection.setup.timeout.max.ms": "write socket.connection.setup.timeout.ms",
    # kafka-python, aiokafka, .NET, KafkaJS, environment variables
    "api.version": "delete the line: the brokers are asked for it",
    "brokers": "write bootstrap.servers",
    "broker.list": "write bootstrap.servers",
    "bootstrap.server": "write bootstrap.servers",
    "zookeeper.connect": "write bootstrap.servers, with the address of a broker",
    "sasl.plain.username": "write sasl.username",
    "sasl.plain.password": "write sasl.password",
    "sasl.user": "write sasl.username",
    "sasl.oauth.token.provider": _OAUTH,
    "sasl.kerberos.domain.name": _JAVA_ALONE,
    "jaas.options.username": "write sasl.username",
    "jaas.options.password": "write sasl.password",
    "ssl.cafile": "write ssl.ca.location",
    "ssl.certfile": "write ssl.certificate.location",
    "ssl.keyfile": "write ssl.key.location",
    "ssl.password": "write ssl.key.password",
    "ssl.check.hostname": "write ssl.endpoint.identification.algorithm, https or none",
    "ssl.context": _TRUST,
    "consumer.timeout.ms": _JAVA_ALONE,
    # the programs' own options
    "topic": "use the parameter topics",
    "topics": "use the parameter topics",
    "topic.name": "use the parameter topics",
    "num.partitions": "use the parameter partitions",
}
_TYPED = re.compile(r"[A-Za-z][\w.\[\]-]{0,200}")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MOST_WORDS = 16


def translated(key: str) -> str:
    """librdkafka's key for one that Confluent's console exports for Spring; any other as it is."""
    return _SPRINGS_OWN.get(key) or key.removeprefix(_SPRING)


def is_unused(key: str) -> bool:
    """Whether consoles export this setting along with others, and it has no use here."""
    return bool(_UNUSED.fullmatch(key))


def callback_advice(value: str) -> str:
    """What replaces a login class of Java's; the clouds have one each."""
    if ".msk.auth.iam." in value:
        return IAM
    if value.rpartition(".")[2] == "GcpLoginCallbackHandler":
        return (
            "write sasl.mechanism = PLAIN, the service account's address as sasl.username "
            "and its key file in Base64 as sasl.password"
        )
    return _OAUTH


IAM = "MSK's IAM login exists for Java alone: write SCRAM-SHA-512, with a user from AWS Secrets Manager"
OAUTH = _OAUTH


def instead(typed: str) -> str | None:
    """What to write in place of a key of another client; None if nothing is known of it.

    Names in capitals, in camel case, with `_` or `-`, and behind the prefixes of Spring and others are known again.
    """
    typed = typed.strip().removeprefix("export ").strip().strip("\"'")
    if not _TYPED.fullmatch(typed):
        return None
    words = re.sub(r"[_\[\]-]", ".", _HUMP.sub(".", typed)).lower().split(".")
    dotted = ".".join(word for word in words if word)
    dotted = dotted.replace("trust.store", "truststore").replace("key.store", "keystore")
    for _ in range(_MOST_WORDS):
        if dotted in ADVICE:
            return ADVICE[dotted]
        if dotted in ELSEWHERE:
            return f"use {ELSEWHERE[dotted]}"
        if _known(dotted):
            return f"write {dotted}"
        _, _, dotted = dotted.partition(".")
    return None


def _known(key: str) -> bool:
    """Whether librdkafka has a setting. It takes them in order, so the second, which it lacks, makes no client."""
    try:
        AdminClient({key: "", "no.such.key": ""})
    except KafkaException as error:
        reason: str = error.args[0].str()
        return not reason.startswith("No such") or "no.such.key" in reason
    except TypeError:  # one that a file cannot set
        return False
    return True
