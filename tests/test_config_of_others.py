"""Config files as people bring them: from Java, Spring, kafka-python, a cloud's console, a shell or a cluster.

Each works as pasted, or is refused with one line that names the setting to use and shows no value.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from imagebus.errors import ConfigError
from imagebus.transports.kafka import driver_log, foreign
from imagebus.transports.kafka.config import read_settings
from imagebus.transports.kafka.settings import Clients

Write = Callable[[str], Path]

SECRET = "Canary7f3a"  # in no value may an error show it
JAAS = "org.apache.kafka.common.security"


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "kafka.config"
        path.write_bytes(text.encode())
        path.chmod(0o600)
        return path

    return write


@pytest.fixture(autouse=True)
def _level_of_the_drivers_log() -> Iterator[None]:
    level = driver_log.log.level
    yield
    driver_log.log.setLevel(level)


def refused(path: Path) -> str:
    """The one line for a file that is refused when it is read, or when clients are made of it."""
    with pytest.raises(ConfigError) as error:
        _use(path)
    line = str(error.value)
    assert "\n" not in line
    assert SECRET not in line
    assert line.startswith(str(path))
    return line.removeprefix(str(path))


def _use(path: Path) -> None:
    clients = Clients(read_settings(path), lambda _: None)
    clients.producer()
    clients.producer("name")
    clients.consumer("group")


LOGIN = {"security.protocol": "SASL_SSL", "sasl.username": "KEY", "sasl.password": SECRET}
CLOUD = {"bootstrap.servers": "pkc-1.confluent.cloud:9092", **LOGIN}
CONSOLES = {
    "Confluent, Python": (
        f"""# Required connection configs for Kafka producer, consumer, and admin
bootstrap.servers=pkc-1.confluent.cloud:9092
security.protocol=SASL_SSL
sasl.mechanisms=PLAIN
sasl.username=KEY
sasl.password={SECRET}

# Best practice for higher availability in librdkafka clients prior to 1.7
session.timeout.ms=45000

client.id=ccloud-python-client-1

# Required connection configs for Confluent Cloud Schema Registry
schema.registry.url=https://psrc-1.confluent.cloud
basic.auth.credentials.source=USER_INFO
basic.auth.user.info=REG:{SECRET}
""",
        {
            **CLOUD,
            "sasl.mechanisms": "PLAIN",
            "session.timeout.ms": "45000",
            "client.id": "ccloud-python-client-1",
        },
    ),
    "Confluent, Java": (
        f"""bootstrap.servers=pkc-1.confluent.cloud:9092
security.protocol=SASL_SSL
sasl.jaas.config={JAAS}.plain.PlainLoginModule   required username='KEY'   password='{SECRET}';
sasl.mechanism=PLAIN
# Required for correctness in Apache Kafka clients prior to 2.6
client.dns.lookup=use_all_dns_ips
session.timeout.ms=45000
acks=all
client.id=ccloud-java-client-1
schema.registry.basic.auth.user.info=REG:{SECRET}
""",
        {
            **CLOUD,
            "sasl.mechanism": "PLAIN",
            "client.dns.lookup": "use_all_dns_ips",
            "session.timeout.ms": "45000",
            "acks": "all",
            "client.id": "ccloud-java-client-1",
        },
    ),
    "Confluent, command line of old": (
        f"""bootstrap.servers=pkc-1.confluent.cloud:9092
ssl.endpoint.identification.algorithm=https
security.protocol=SASL_SSL
sasl.mechanism=PLAIN
sasl.jaas.config={JAAS}.plain.PlainLoginModule required username\\="KEY" password\\="{SECRET}";
""",
        {**CLOUD, "ssl.endpoint.identification.algorithm": "https", "sasl.mechanism": "PLAIN"},
    ),
    "Confluent, Spring": (
        f"""spring.kafka.properties.sasl.mechanism=PLAIN
spring.kafka.bootstrap-servers=pkc-1.confluent.cloud:9092
spring.kafka.properties.sasl.jaas.config={JAAS}.plain.PlainLoginModule required username='KEY' password='{SECRET}';
spring.kafka.properties.security.protocol=SASL_SSL
spring.kafka.properties.session.timeout.ms=45000
spring.kafka.properties.schema.registry.url=https://psrc-1.confluent.cloud
""",
        {**CLOUD, "sasl.mechanism": "PLAIN", "session.timeout.ms": "45000"},
    ),
    "Event Hubs": (
        f"""bootstrap.servers=NAMESPACE.servicebus.windows.net:9093
security.protocol=SASL_SSL
sasl.mechanism=PLAIN
sasl.jaas.config={JAAS}.plain.PlainLoginModule required username="$ConnectionString" password="Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey={SECRET}=";
""",  # as it is exported
        {
            **LOGIN,
            "bootstrap.servers": "NAMESPACE.servicebus.windows.net:9093",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "$ConnectionString",
            "sasl.password": f"Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey={SECRET}=",
        },
    ),
    "Event Streams": (
        f"""bootstrap.servers=broker-0.eventstreams.cloud:9093,broker-1.eventstreams.cloud:9093
sasl.jaas.config={JAAS}.plain.PlainLoginModule required username="token" password="{SECRET}";
security.protocol=SASL_SSL
sasl.mechanism=PLAIN
ssl.protocol=TLSv1.2
ssl.enabled.protocols=TLSv1.2
ssl.endpoint.identification.algorithm=HTTPS
""",
        {
            **LOGIN,
            "bootstrap.servers": "broker-0.eventstreams.cloud:9093,broker-1.eventstreams.cloud:9093",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "token",
            "ssl.endpoint.identification.algorithm": "HTTPS",
        },
    ),
    "Strimzi, Upstash": (
        f"""bootstrap.servers=my-cluster-kafka-bootstrap:9093
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config={JAAS}.scram.ScramLoginModule required \\
  username="KEY" \\
  password="{SECRET}";
""",
        {
            **LOGIN,
            "bootstrap.servers": "my-cluster-kafka-bootstrap:9093",
            "sasl.mechanism": "SCRAM-SHA-512",
        },
    ),
    "Windows": (
        f"\ufeffbootstrap.servers=pkc-1.confluent.cloud:9092\r\nsecurity.protocol=SASL_SSL\r\n"
        f"sasl.mechanism=PLAIN\r\nsasl.username=KEY\r\nsasl.password={SECRET}\r\n",
        {**CLOUD, "sasl.mechanism": "PLAIN"},
    ),
}


@pytest.mark.parametrize(("text", "expected"), CONSOLES.values(), ids=CONSOLES)
def test_the_export_of_a_console_works_as_pasted(
    written: Write, caplog: pytest.LogCaptureFixture, text: str, expected: dict[str, str]
) -> None:
    path = written(text)

    _use(path)

    assert dict(read_settings(path)) == expected
    assert SECRET not in caplog.text


def test_what_a_console_exports_and_has_no_use_is_said_once(
    written: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(f"bootstrap.servers=localhost:1\nschema.registry.url=x\nbasic.auth.user.info={SECRET}\n")

    with caplog.at_level(logging.INFO):
        read_settings(path)

    assert caplog.messages == [f"{path}: no use here for schema.registry.url, basic.auth.user.info"]


VALUES = {
    'client.id = "a"': "a",
    "client.id = 'a b'": "a b",
    "client.id = “a”": "a",
    "client.id = a  # comment": "a",
    "client.id = a\t# comment": "a",
    "client.id = 'a # b'  # comment": "a # b",
    "client.id = a#b": "a#b",
    "client.id =#1": "#1",
    "client.id = # none": "",
    "client.id = a \\\n  b": "a b",
    "client.id = a\\": "a",
    "linger.ms = 0.5": "0.5",
    "acks = -1": "-1",
    "client.id = ${A}": "from-env",
    "client.id = ${A:-b}": "from-env",
    "client.id = ${NOT_SET_HERE:-b}": "b",
    "client.id = ${NOT_SET_HERE:-}": "",
    "client.id = ${EMPTY:-b}": "b",
    "client.id = '${A}'": "from-env",
    "client.id = ${QUOTED}": "a:9092",
    "client.id = ${ECHO}": "from-echo",
    "sasl.password = ${ECHO}": "from-echo",
    "client.id =\u00a0a\u00a0": "a",
    "bootstrap.servers = a:1,b:1,": "a:1,b:1",
    'bootstrap.servers = "a:1,b:1",': "a:1,b:1",
    "bootstrap.servers = PLAINTEXT://localhost:1": "PLAINTEXT://localhost:1",
    "bootstrap.servers = [::1]:9092,[::1]": "[::1]:9092,[::1]",
    "bootstrap.servers = [::1]": "[::1]",
    "sasl.password = a#b": "a#b",
    "sasl.password = #b": "#b",
    "sasl.password = it's": "it's",
    "sasl.password = 'tis": "'tis",
    "sasl.password = a,": "a,",
    "sasl.password = a\\": "a\\",
    "sasl.password = pa$A": "pa$A",
    "sasl.password = ${A}  # from the vault": "from-env",
    'sasl.password = "${A}"': "from-env",
    "sasl.password = ${HASH}": "a # b",
    "ssl.key.pem = -----BEGIN\\nabc\\n-----END": "-----BEGIN\nabc\n-----END",
}


@pytest.mark.parametrize(("line", "value"), VALUES.items())
def test_a_value_is_read_as_it_is_meant(
    written: Write, monkeypatch: pytest.MonkeyPatch, line: str, value: str
) -> None:
    for name, text in {
        "A": "from-env",
        "EMPTY": "",
        "QUOTED": '"a:9092"',
        "ECHO": "from-echo\n",
        "HASH": "a # b",
    }.items():
        monkeypatch.setenv(name, text)
    servers = "" if line.startswith("bootstrap") else "bootstrap.servers = localhost:1\n"

    settings = read_settings(written(f"{servers}{line}\n"))

    assert settings[line.partition("=")[0].strip()] == value


SERVERS = "bootstrap.servers=localhost:1\n"
SASL = f"{SERVERS}security.protocol=sasl_plaintext\n"
REFUSED = [
    # Java
    (
        f"{SERVERS}ssl.truststore.location=/x.jks",
        ":2: ssl.truststore.location is not",
        "write ssl.ca.location",
    ),
    (f"{SERVERS}ssl.truststore.password={SECRET}", ":2: ssl.truststore.password", "ssl.ca.location"),
    (f"{SERVERS}ssl.keystore.type=JKS", ":2: ssl.keystore.type", "ssl.keystore.location is a PKCS#12 file"),
    (f"{SERVERS}ssl.keystore.key={SECRET}", ":2: ssl.keystore.key", "write ssl.key.pem"),
    (f"{SERVERS}key.serializer=org.x.StringSerializer", ":2: key.serializer", "delete the line"),
    (f"{SERVERS}value.deserializer=x", ":2: value.deserializer", "delete the line"),
    (f"{SERVERS}buffer.memory=1", ":2: buffer.memory", "write queue.buffering.max.kbytes"),
    (f"{SERVERS}max.request.size=1", ":2: max.request.size", "write message.max.bytes"),
    (f"{SERVERS}fetch.max.wait.ms=1", ":2: fetch.max.wait.ms", "write fetch.wait.max.ms"),
    (f"{SERVERS}auto.offset.reset=none", ":2: the value of auto.offset.reset", "earliest, latest or error"),
    (f"{SERVERS}ssl.endpoint.identification.algorithm=", ":2: ", "is empty"),
    (f"{SERVERS}ssl.endpoint.identification.algorithm=off", ":2: ", "https or none"),
    (f"{SERVERS}security.protocol=SASL_TLS", ":2: ", "SASL_PLAINTEXT or SASL_SSL"),
    (f"{SERVERS}acks=1", ":2: ", "`acks` must be set to `all`"),
    (f"{SERVERS}request.required.acks=1", ":2: ", "`acks` must be set to `all`"),
    (f"{SERVERS}linger.ms=5s", ":2: linger.ms must be a number", "without a unit"),
    (f"{SERVERS}linger.ms=often", ":2: the value of linger.ms", "expected a number"),
    (f"{SERVERS}session.timeout.ms=45s", ":2: session.timeout.ms must be a whole number", "without a unit"),
    (f"{SERVERS}session.timeout.ms=45_000", ":2: session.timeout.ms must be a whole number", "unit"),
    (f"{SERVERS}message.max.bytes=1e6", ":2: message.max.bytes must be a whole number", "unit"),
    (f"{SERVERS}queue.buffering.max.kbytes=1 GB", ":2: queue.buffering.max.kbytes must be a whole", "unit"),
    (f"{SERVERS}enable.metrics.push=on", ":2: the value of enable.metrics.push", "true or false"),
    (f"{SERVERS}group.id=x", ":2: group.id is not set here", "the parameter group"),
    ("bootstrap.servers: localhost:1", ":1: expected key = value", "with = in place of :"),
    ("bootstrap_servers: localhost:1", ":1: expected key = value", "write bootstrap.servers"),
    ("! a comment of Java's\n", ":1: expected key = value", "a comment begins with #"),
    (f"{SERVERS}client.id=a\\\nlinger.ms=1", ":2: client.id ends with a backslash", "join"),
    # Java's login line
    (
        f"{SASL}sasl.jaas.config={JAAS}.x.Other required a='{SECRET}';",
        ":3: ",
        "sasl.oauthbearer.method = oidc",
    ),
    (
        f"{SASL}sasl.jaas.config={JAAS}.oauthbearer.OAuthBearerLoginModule required clientSecret='{SECRET}';",
        ":3: sasl.jaas.config",
        "sasl.oauthbearer.token.endpoint.url",
    ),
    (
        f"{SASL}sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required keyTab='x';",
        ":3: sasl.jaas.config",
        "sasl.kerberos.keytab",
    ),
    (
        f"{SASL}sasl.jaas.config={JAAS}.plain.PlainLoginModule required username='a';",
        ":3: sasl.jaas.config",
        "write sasl.username and sasl.password",
    ),
    (
        f"{SASL}sasl.jaas.config={JAAS}.plain.PlainLoginModule required username='a' password='{SECRET}\\u0041';",
        ":3: sasl.jaas.config",
        "write sasl.username and sasl.password",
    ),
    (
        f'{SASL}sasl.jaas.config={JAAS}.plain.PlainLoginModule required username=\'a\' password="{SECRET}\\"b";',
        ":3: sasl.jaas.config",
        "write sasl.username and sasl.password",
    ),
    (
        f"{SASL}sasl.password=x\nsasl.jaas.config={JAAS}.plain.PlainLoginModule required username=a password=b;",
        ":4: sasl.password is set twice",
        "first on line 3",
    ),
    # AWS, Google, OAuth
    (f"{SASL}sasl.mechanism=AWS_MSK_IAM", ":3: sasl.mechanism", "write SCRAM-SHA-512"),
    (f"{SASL}sasl.mechanisms=aws_msk_iam", ":3: sasl.mechanisms", "write SCRAM-SHA-512"),
    (
        f"{SASL}sasl.jaas.config=software.amazon.msk.auth.iam.IAMLoginModule required;",
        ":3: sasl.jaas.config",
        "write SCRAM-SHA-512",
    ),
    (
        f"{SASL}sasl.client.callback.handler.class=software.amazon.msk.auth.iam.IAMClientCallbackHandler",
        ":3: sasl.client.callback.handler.class",
        "write SCRAM-SHA-512",
    ),
    (
        f"{SASL}sasl.login.callback.handler.class=com.google.cloud.hosted.kafka.auth.GcpLoginCallbackHandler",
        ":3: sasl.login.callback.handler.class",
        "sasl.mechanism = PLAIN",
    ),
    (f"{SASL}sasl.mechanism=OAUTHBEARER", ":3: sasl.mechanism", "sasl.oauthbearer.token.endpoint.url"),
    (
        f"{SASL}sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=https://login.invalid",
        ":3: sasl.mechanism",
        "sasl.oauthbearer.method = oidc",
    ),
    (
        f"{SASL}sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.method=oidc",
        ":4: ",
        "`sasl.oauthbearer.token.endpoint.url` is mandatory",
    ),
    (
        f"{SASL}sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.method=oidc\n"
        "sasl.oauthbearer.metadata.authentication.type=aws_iam",
        ":5: ",
        "sasl.oauthbearer.config",
    ),
    (f"{SASL}sasl.mechanism=plain", ":3: sasl.mechanism must be PLAIN", "SCRAM-SHA-512"),
    (
        f"{SASL}sasl.mechanism=PLAIN\nsasl.username=\nsasl.password=x",
        ":4: ",
        "sasl.username and sasl.password",
    ),
    # Spring, Quarkus, .NET, kafka-python, environment variables, TOML, INI
    ("spring.kafka.bootstrapServers=localhost:1", ":1: ", "write bootstrap.servers"),
    (f"{SERVERS}spring.kafka.consumer.group-id=x", ":2: ", "the parameter group"),
    (f"{SERVERS}spring.kafka.ssl.trust-store-location=file:/x", ":2: ", "write ssl.ca.location"),
    (f"{SERVERS}spring.kafka.ssl.key-store-location=file:/x", ":2: ", "write ssl.keystore.location"),
    (f"{SERVERS}spring.kafka.producer.key-serializer=x", ":2: ", "delete the line"),
    (f"{SERVERS}spring.kafka.security.protocol=SSL", ":2: ", "write security.protocol"),
    (f"{SERVERS}spring.kafka.properties[sasl.mechanism]=PLAIN", ":2: ", "write sasl.mechanism"),
    ("spring.cloud.stream.kafka.binder.brokers=localhost:1", ":1: ", "write bootstrap.servers"),
    ("kafka.bootstrap.servers=localhost:1", ":1: ", "write bootstrap.servers"),
    ("BootstrapServers=localhost:1", ":1: ", "write bootstrap.servers"),
    (f"{SERVERS}SaslUsername=x", ":2: ", "write sasl.username"),
    (f"{SERVERS}SSLCaLocation=x", ":2: ", "write ssl.ca.location"),
    ("bootstrap_servers=['localhost:1']", ":1: bootstrap_servers", "write bootstrap.servers"),
    (f"{SERVERS}sasl_plain_username=x", ":2: sasl_plain_username", "write sasl.username"),
    (f"{SERVERS}sasl_plain_password={SECRET}", ":2: sasl_plain_password", "write sasl.password"),
    (f"{SERVERS}ssl_cafile=x", ":2: ssl_cafile", "write ssl.ca.location"),
    (f"{SERVERS}security_protocol=SSL", ":2: security_protocol", "write security.protocol"),
    (f"{SERVERS}auto_offset_reset=latest", ":2: auto_offset_reset", "write auto.offset.reset"),
    ("KAFKA_BOOTSTRAP_SERVERS=localhost:1", ":1: ", "write bootstrap.servers"),
    ("export KAFKA_BOOTSTRAP_SERVERS=localhost:1", ":1: ", "write bootstrap.servers"),
    (f"{SERVERS}KAFKA_SASL_PASSWORD={SECRET}", ":2: ", "write sasl.password"),
    ('"bootstrap.servers" = "localhost:1"', ":1: ", "write bootstrap.servers"),
    (f"[default]\n{SERVERS}", ":1: expected key = value", "no sections"),
    (f"; a comment\n{SERVERS}", ":1: expected key = value", "a comment begins with #"),
    (f"{SERVERS}producer.linger.ms=1", ":2: unknown setting producer.linger.ms", "write linger.ms"),
    # values
    ('bootstrap.servers=["a:1","b:1"]', ":1: bootstrap.servers is written as a list", "host:port,host:port"),
    ("bootstrap.servers=[a:1, b:1]", ":1: bootstrap.servers is written as a list", "host:port,host:port"),
    ("bootstrap.servers=['a:1']", ":1: bootstrap.servers is written as a list", "host:port,host:port"),
    ("bootstrap.servers=a:1;b:1", ":1: bootstrap.servers", "no comma"),
    ("bootstrap.servers=a:1 b:1", ":1: bootstrap.servers", "no comma"),
    ("bootstrap.servers=http://a:1", ":1: bootstrap.servers", "no protocol of Kafka's"),
    ("bootstrap.servers=kafka+ssl://a:1", ":1: bootstrap.servers", "no protocol of Kafka's"),
    ("bootstrap.servers=SASL_SSL://a:1", ":1: bootstrap.servers", "security.protocol = SASL_SSL"),
    ("bootstrap.servers=$SERVERS", ":1: bootstrap.servers", "${NAME}"),
    ("bootstrap.servers=<host>:9092", ":1: bootstrap.servers", "placeholder"),
    ("bootstrap.servers={{ BROKER_ENDPOINT }}", ":1: bootstrap.servers", "placeholder"),
    (f"{SASL}sasl.username={{{{ CLUSTER_API_KEY }}}}", ":3: sasl.username", "placeholder"),
    (
        f"{SASL}sasl.jaas.config={JAAS}.plain.PlainLoginModule required username='{{{{ KEY }}}}' password='x';",
        ":3: sasl.username",
        "placeholder",
    ),
    ("bootstrap.servers=localhost:9092\u200b", ":1: bootstrap.servers", "U+200B"),
    (f"{SERVERS}client.id=a\u00adb", ":2: client.id", "U+00AD"),
    (f"{SASL}sasl.password=<API_SECRET>", ":3: sasl.password", "placeholder"),
    (f"{SERVERS}linger.ms=5,", ":2: linger.ms ends with a comma", "delete it"),
    (f"{SERVERS}security.protocol=SSL;", ":2: security.protocol ends with a semicolon", "delete it"),
    (f'{SERVERS}client.id="a', ":2: client.id begins with a quotation mark", "not closed"),
    (f'{SERVERS}sasl.password="{SECRET}"', ":2: sasl.password stands in quotation marks", "${NAME}"),
    (f"{SERVERS}sasl.password={SECRET} # x", ":2: sasl.password has a # behind a space", "${NAME}"),
    (f"{SERVERS}sasl.password= # {SECRET}", ":2: sasl.password has a # behind a space", "${NAME}"),
    (f"{SERVERS}client.id=${{HOME:x}}", ":2: client.id", "a default is written ${HOME:-…}"),
    (f"{SERVERS}client.id=${{env:HOME}}", ":2: client.id", "expected ${NAME}"),
    (f"{SERVERS}sasl.password=${{file:/x:{SECRET}}}", ":2: sasl.password", "expected ${NAME}"),
    (f"{SERVERS}sasl.password=$HOME", ":2: sasl.password", "write ${HOME}"),
    (f"{SERVERS}client.id=$HOME", ":2: client.id", "write ${HOME}"),
    (f"{SERVERS}ssl.ca.location=file:/x", ":2: ssl.ca.location", "the path alone"),
    (f"{SERVERS}security.protocol=ssl\nssl.ca.location=~/x", ":3: ssl.ca.location", "${HOME}"),
    (f"{SERVERS}ssl.ca.pem=-----BEGIN\n{SECRET}==", ":3: expected key = value", "ssl.ca.location"),
    # what would hang, or end in a traceback
    (f"{SERVERS}queue.buffering.max.kbytes=1", ":2: queue.buffering.max.kbytes", "at least 977"),
    (
        f"{SERVERS}message.max.bytes=2000000\nqueue.buffering.max.kbytes=1000",
        ":3: queue.buffering.max.kbytes",
        "at least 1954",
    ),
    (f"{SERVERS}delivery.report.only.error=true", ":2: delivery.report.only.error", "must be false"),
]


@pytest.mark.parametrize(("text", "start", "hint"), REFUSED)
def test_what_another_client_writes_is_one_line_that_names_the_setting_to_use(
    written: Write, text: str, start: str, hint: str
) -> None:
    line = refused(written(text))

    assert line.startswith(start)
    assert hint in line


def test_reports_of_failed_messages_alone_may_be_off_in_words(written: Write) -> None:
    path = written(f"{SERVERS}delivery.report.only.error=False\n")

    _use(path)

    assert dict(read_settings(path)) == {"bootstrap.servers": "localhost:1"}


def test_a_queue_that_has_room_for_one_message_is_enough(written: Write) -> None:
    _use(written(f"{SERVERS}queue.buffering.max.kbytes=977\n"))
    _use(written(f"{SERVERS}queue.buffering.max.kbytes=1\nmessage.max.bytes=1000\n"))


@pytest.mark.parametrize("key", foreign.ADVICE)
def test_advice_is_for_what_librdkafka_does_not_take(key: str) -> None:
    with pytest.raises(KafkaException) as error:
        AdminClient({key: "x", "no.such.key": "x"})

    reason = error.value.args[0].str()
    assert reason.startswith(("No such configuration property", "Java"))
    assert "no.such.key" not in reason


FILES = {
    "Java's trust store": (
        "ssl.ca.location",
        b"\xfe\xed\xfe\xed\0\0\0\2",
        "names a key store of Java's, expected a PEM file",
    ),
    "Java's key store": (
        "ssl.keystore.location",
        b"\xfe\xed\xfe\xed\0\0\0\2",
        "names a key store of Java's, expected a PKCS#12 file",
    ),
    "PKCS#12 as an authority": (
        "ssl.ca.location",
        b"\x30\x82\1\0",
        "names a binary file, expected a PEM file",
    ),
    "PEM as a key store": (
        "ssl.keystore.location",
        b"-----BEGIN CERTIFICATE-----\n",
        "ssl.certificate.location and ssl.key.location",
    ),
}


@pytest.mark.parametrize(("key", "content", "hint"), FILES.values(), ids=FILES)
def test_a_file_of_keys_in_another_format_is_named(
    written: Write, tmp_path: Path, key: str, content: bytes, hint: str
) -> None:
    (tmp_path / "store").write_bytes(content)
    password = f"ssl.keystore.password={SECRET}\n" if key == "ssl.keystore.location" else ""

    line = refused(written(f"{SERVERS}security.protocol=ssl\n{password}{key}={tmp_path / 'store'}\n"))

    assert f": {key} " in line
    assert hint in line


def test_a_secret_in_a_kubernetes_volume_needs_another_mode_as_chmod_cannot_work_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "kafka.config").write_text(f"{SERVERS}sasl.password={SECRET}\n")
    (tmp_path / "..2026" / "kafka.config").chmod(0o644)
    (tmp_path / "..data").symlink_to("..2026")
    path = tmp_path / "kafka.config"
    path.symlink_to("..data/kafka.config")

    line = refused(path)

    assert line.startswith(":2: sasl.password stands in a file that everybody can read")
    assert "defaultMode: 0400" in line
    assert "chmod" not in line


@pytest.mark.parametrize(
    "line",
    [
        f"basic.auth.user.info=a:{SECRET}",
        f"sasl.password=${{NOT_SET:-{SECRET}}}",
        f"sasl.jaas.config={JAAS}.plain.PlainLoginModule required username=${{HOME}} password={SECRET};",
    ],
)
def test_any_secret_needs_a_file_that_others_cannot_read(written: Write, line: str) -> None:
    path = written(f"{SERVERS}{line}\n")
    path.chmod(0o644)

    assert "stands in a file that everybody can read: chmod o-r" in refused(path)


def test_a_file_in_utf_16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kafka.config"
    path.write_text(SERVERS, encoding="utf-16")

    assert refused(path) == ": cannot be read as text: expected UTF-8, not UTF-16"


def test_a_login_without_a_secured_protocol_is_warned_of(
    written: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(f"{SERVERS}sasl.mechanism=PLAIN\nsasl.password={SECRET}\n")

    read_settings(path)

    assert caplog.messages == [
        f"{path}:3: sasl.password has no effect: without security.protocol=SASL_SSL there is no login"
    ]


def test_debug_shows_librdkafkas_log_to_those_who_want_all_and_never_a_secret(
    written: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(f"{SASL}sasl.mechanism=PLAIN\nsasl.username=KEY\nsasl.password={SECRET}\ndebug=all\n")
    driver_log.log.setLevel(logging.CRITICAL + 1)  # as the scripts have it

    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "imagebus.transports.kafka"):
        clients = Clients(read_settings(path), lambda _: None)
        clients.producer().poll(1)
        driver_log.log.warning("token %s of %s", "eyJhbGciOi.eyJzdWIi.c2ln", SECRET)

    assert any("rdkafka#" in line for line in caplog.messages)
    assert caplog.messages[-1] == "token *** of ***"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("line", ["message.max.bytes=5000000", "message.max.bytes=1000"])
def test_another_limit_of_messages_needs_no_other_setting(written: Write, line: str) -> None:
    clients = Clients(read_settings(written(f"{SERVERS}{line}\n")), lambda _: None)

    assert clients.consumer("group") is not None
    assert clients.producer() is not None


def test_librdkafkas_log_stays_silent_without_debug(written: Write) -> None:
    driver_log.log.setLevel(logging.CRITICAL + 1)

    Clients(read_settings(written(SERVERS)), lambda _: None).producer()

    assert not driver_log.log.isEnabledFor(logging.ERROR)
