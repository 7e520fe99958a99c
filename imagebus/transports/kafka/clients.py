"""librdkafka's clients made from a config file, and its errors as this project's: the one door for both.

Settings are checked when a client is made, before anything connects. What goes wrong later comes through
callbacks inside other calls; it is kept in `failure` and raised by the next call that can raise.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does export them

from imagebus.config import Settings
from imagebus.errors import (
    AccessDenied,
    ConfigError,
    ConnectionFailed,
    PublishFailed,
    TooLarge,
    TransportError,
)
from imagebus.transports.kafka.probe import anyone_listens, certificate_trouble, speaks_tls, wants_tls

log = logging.getLogger(__name__)
driver_log = logging.getLogger("imagebus.transports.kafka.driver")
# One file has the settings of producers and consumers, and each ignores the other's with a warning.
driver_log.addFilter(lambda record: not record.getMessage().startswith("CONFWARN"))

CONNECT_SECONDS = 10.0  # a cluster of Confluent Cloud answers within 2 s, so nobody is there after 10
# Of silence, after which it is worth a look whether the other side speaks TLS; and after which a connection
# closed at the handshake is taken for a no: a broker that is just starting or stopping may do the same.
SUSPICION_SECONDS = (3.0, 6.0)
TOPIC_SECONDS = 30.0  # a created topic was seen in the metadata within 1 s; a busy cluster may take longer
DOWN_SECONDS = 30.0  # between two lines that say that no broker answers
KNOCK_PAUSE = 1.0  # seconds between two looks for one, while librdkafka tries 20 times a second to connect
LOOK_SECONDS = 0.02  # between two looks at something that is about to be there

_COMMON = {
    # Freeing the connection of an idle hour is no news.
    "log.connection.close": "false",
    # A frozen partition leader stalls a client for 71 s at librdkafka's default of 60 s, 7.7 s with 6 s.
    "socket.timeout.ms": "6000",
}
_PRODUCER = {
    "enable.idempotence": "true",
    # librdkafka waits 5 ms for more messages by default. With one request on its way at a time the first message
    # leaves at once, and what comes meanwhile goes together with the next: a broker that gets a request for every
    # few messages is busy with requests.
    "linger.ms": "0",
    "max.in.flight.requests.per.connection": "1",
    "request.timeout.ms": "5000",
    "message.timeout.ms": "30000",
    "allow.auto.create.topics": "false",
}
# A replier that is killed in a transaction and does not come back under its name keeps the readers of its
# replies waiting for so long. Not less: a broker that is killed is replaced within 13 s, and a transaction that
# has waited for that is still good.
_TRANSACTIONS = {"transaction.timeout.ms": "20000", "message.timeout.ms": "20000"}
_CONSUMER = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    # 20 ms where librdkafka has 1,000: with a full queue the consumer starves otherwise.
    "fetch.queue.backoff.ms": "20",
    # A killed member's partitions go to the others after 6 s, the least that brokers allow by default.
    # It also bounds what librdkafka's lost members cost: one that is closed while it joins sends no
    # LeaveGroup, and one that asks twice for a member id leaves the first behind (issue 5569); either
    # keeps the whole group waiting for a session.
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "2000",
    # 8 MB of prefetched requests, where librdkafka keeps 64 MB: the resident memory stays flat.
    "queued.max.messages.kbytes": "8192",
    "allow.auto.create.topics": "false",
}
_CLASSIC_GROUP = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")
_NOTHING: Mapping[str, str] = MappingProxyType({})
# Settings of confluent-kafka that are Python objects: a file cannot hold them.
_OBJECTS = frozenset(
    {
        "default.topic.config",
        "error_cb",
        "logger",
        "oauth_cb",
        "on_commit",
        "on_delivery",
        "stats_cb",
        "throttle_cb",
    }
)

OnCommit = Callable[[KafkaError | None, list[TopicPartition]], None]

HOPELESS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE})
_UNREACHABLE = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT})
# Refused for want of a right, and the one that is missing, as docs/security.md grants it.
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "Read on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: (
        "Read on the consumer group (a replier's --group) or Describe on requestor-* (a requestor's)"
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "Create on the cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "Write on the transactional id",
}
# What librdkafka writes around the reason: whom it talked to, and for how long.
_WHO = re.compile(r"^\w+://(?P<server>[^/]+)/\w+: ")
_HOW_LONG = re.compile(r" \(after \d+ms in state \w+[^)]*\)")
_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})


class Clients:
    """The clients of one connection. `failure` is what a callback noticed and nobody raised yet."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.failure: TransportError | None = None
        self._quiet_until = 0.0  # time.monotonic()
        self._connected = False

    def admin(self) -> AdminClient:
        """A client for topics and metadata. Keep it while its futures run."""
        admin: AdminClient = self._make(AdminClient)
        return admin

    def producer(self, transactional_id: str | None = None, *, one_by_one: bool = False) -> Producer:
        """A producer. It connects in the background. `one_by_one`: each message is a batch of Kafka's."""
        defaults, fixed = _PRODUCER, {}
        if transactional_id is not None:
            defaults = {**_PRODUCER, **_TRANSACTIONS}
            fixed["transactional.id"] = transactional_id
        if one_by_one:
            fixed["batch.num.messages"] = "1"
        producer: Producer = self._make(Producer, defaults, fixed)
        return producer

    def consumer(self, group: str, on_commit: OnCommit) -> Consumer:
        """A consumer of a group, not yet subscribed. Its polls tell `on_commit` the result of each commit."""
        consumer: Consumer = self._make(Consumer, _CONSUMER, {"group.id": group, "on_commit": on_commit})
        return consumer

    def raise_failure(self) -> None:
        """Raise what was noticed since the last call, if anything."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def note(self, failure: TransportError) -> None:
        """Keep a failure for the next call; the first one is the cause of the others."""
        self.failure = self.failure or failure

    def _make(
        self,
        kind: Callable[[dict[str, Any]], Any],
        defaults: Mapping[str, str] = _NOTHING,
        fixed: Mapping[str, Any] = _NOTHING,
    ) -> Any:
        """A client of librdkafka, which checks every setting of the file, whichever kind it is for.

        The file cannot change what is `fixed`.
        """
        theirs = self.settings
        for key in _OBJECTS & theirs.keys():
            raise ConfigError(f"{theirs.where(key)}: {key} is for programs: a file cannot set it")
        both = {**_COMMON, **defaults, **theirs, **fixed, "error_cb": self._on_error, "logger": driver_log}
        if theirs.get("group.protocol") == "consumer":  # there these are the broker's to say
            both = {key: value for key, value in both.items() if key not in _CLASSIC_GROUP or key in theirs}
        try:
            return kind(both)
        except KafkaException as error:
            raise self._refused(error.args[0].str()) from None

    def _refused(self, reason: str) -> ConfigError:
        """librdkafka's refusal as one line: which key on which line, and never a value."""
        kind, _, conflict = reason.partition(": ")
        if kind.startswith("Failed to create"):  # each setting is right by itself, but not with the others
            return self._conflicting(self.settings.redact(conflict))
        for key, value in self.settings.items():
            alone: dict[str, Any] = {key: value, "logger": driver_log}
            try:
                AdminClient(alone)
            except KafkaException as error:
                reason = error.args[0].str().strip()
                if reason.startswith("No such"):
                    return ConfigError(f"{self.settings.where(key)}: unknown setting {key}")
                if not reason.startswith("Failed to create"):
                    # Its other reasons repeat the value, which may be a secret.
                    range_ = reason.find("outside ")
                    wrong = reason[range_:] if range_ >= 0 else "not one it may have"
                    return ConfigError(f"{self.settings.where(key)}: the value of {key} is {wrong}")
        return ConfigError(f"{self.settings.path}: {self.settings.redact(reason)}")

    def _conflicting(self, conflict: str) -> ConfigError:
        theirs = self.settings
        if "SASL mechanism" in conflict:
            key = next((key for key in ("sasl.mechanism", "sasl.mechanisms") if key in theirs), "")
            where = theirs.where(key or "security.protocol")
            return ConfigError(
                f"{where}: sasl.mechanism is to be PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
            )
        key = next((key for key in theirs if key in conflict), "")
        if key.endswith(".location") and not Path(theirs[key]).exists():
            conflict = f"{key} names a file that is not there"
        elif key and "::" in conflict:  # OpenSSL's numbers and rooms before its reason
            conflict = f"{key} cannot be used: {conflict.rpartition('::')[2]}"
        return ConfigError(f"{theirs.where(key)}: {conflict}")

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka's news between the calls. Never raises: that would throw away a batch."""
        servers = self.settings["bootstrap.servers"]
        code = error.code()
        if self.failure is not None:
            return  # the first one is the cause of the others
        if code == KafkaError._RESOLVE and (self._connected or "," in servers):
            return  # name servers come back, and another broker may have a name that they know
        if code in HOPELESS:
            self.note(ConnectionFailed(self._why_refused(error)))
        elif error.fatal():
            # The client's next call says it, unless it was thrown away and nobody has a call for it.
            log.debug("a client is of no use any more: %s", error.str())
        elif code in _UNREACHABLE and (now := time.monotonic()) > self._quiet_until:
            down = code == KafkaError._ALL_BROKERS_DOWN or not anyone_listens(servers)
            self._quiet_until = now + (DOWN_SECONDS if down else KNOCK_PAUSE)
            if down:
                log.warning("no broker answers at %s; trying again", servers)

    def _why_refused(self, error: KafkaError) -> str:
        """One line for what no trying again will mend: the setting to look at, the broker, the reason."""
        theirs = self.settings
        reason = theirs.redact(_HOW_LONG.sub("", error.str()))
        who = _WHO.match(reason)
        server = who["server"] if who else theirs["bootstrap.servers"]
        reason = _WHO.sub("", reason)
        if error.code() == KafkaError._RESOLVE:
            return f"{theirs.where('bootstrap.servers')}: {reason}"
        if error.code() == KafkaError._SSL:
            trouble = certificate_trouble(server, theirs) if "certificate verify failed" in reason else None
            key, reason = trouble or ("ssl.ca.location", reason)
            return f"{theirs.where(key)}: the certificate of {server} is refused: {reason}; see {key}"
        keys, hint = ["sasl.password", "sasl.username"], "sasl.username and sasl.password"
        if "Unsupported SASL mechanism" in reason:
            keys, hint = ["sasl.mechanism", "sasl.mechanisms"], "sasl.mechanism"
        elif "SASL state" in reason:
            keys, hint, reason = ["security.protocol"], "security.protocol", "it asks for none"
        elif "OAUTHBEARER" in reason:
            keys, hint = (
                ["sasl.oauthbearer.config", "sasl.mechanism", "sasl.mechanisms"],
                "sasl.oauthbearer.*",
            )
            if keys[0] in reason:  # it goes on with a piece of the value
                reason = f"{keys[0]} cannot be read"
        key = next((key for key in keys if key in theirs), keys[0])
        return f"{theirs.where(key)}: {server} refuses the login: {reason}; see {hint}"

    # --- opening -------------------------------------------------------------------------------

    def connect(self, admin: AdminClient) -> set[str]:
        """The topics there are, once a broker answers; `ConnectionFailed` with the cause when none does.

        Each failure looks the same from `list_topics`; the cause comes through `error_cb` in `poll`, or
        from a look at what speaks at the other end.
        """
        start = time.monotonic()
        self.failure = None
        self._quiet_until = start + DOWN_SECONDS  # the error says it, if it comes to that
        while True:
            try:
                topics = set(admin.list_topics(timeout=1.0).topics)
            except KafkaException as error:
                admin.poll(0)
                self.raise_failure()
                waited = time.monotonic() - start
                if waited > SUSPICION_SECONDS[0]:
                    self._check_protocol(waited)
                if waited > CONNECT_SECONDS:
                    raise ConnectionFailed(self._why_silent(error.args[0].str())) from None
            else:
                self._connected = True
                self._quiet_until = 0.0  # from now on it is news when no broker answers
                return topics

    def _check_protocol(self, waited: float) -> None:
        """Raise `ConnectionFailed` when one side speaks TLS and the other does not."""
        where = self.settings.where(
            "security.protocol" if "security.protocol" in self.settings else "bootstrap.servers"
        )
        for server in self.settings["bootstrap.servers"].split(","):
            tls = speaks_tls(server)
            if tls and not wants_tls(self.settings):
                raise ConnectionFailed(
                    f"{where}: {server} speaks TLS: set security.protocol to SASL_SSL or SSL"
                )
            if tls is False and wants_tls(self.settings) and waited > SUSPICION_SECONDS[1]:
                raise ConnectionFailed(
                    f"{where}: {server} does not speak TLS: another port, or another security.protocol"
                )

    def _why_silent(self, reason: str) -> str:
        servers = self.settings["bootstrap.servers"]
        silent = f"no broker answers at {servers} ({self.settings.where('bootstrap.servers')})"
        if any(speaks_tls(server) is not None for server in servers.split(",")):
            protocol = self.settings.get("security.protocol", "PLAINTEXT")
            return f"{silent}, but something listens there: does it want a login? security.protocol is {protocol}"
        return f"{silent}: {reason}; python3 -m imagebus.broker starts one on this machine"

    def create_topics(self, admin: AdminClient, topics: Sequence[str], partitions: int) -> None:
        """Create topics with the broker's default replication, and wait until they can be used.

        Raises `AccessDenied` where the right is missing. Another program may create the same at once.
        """
        if not topics:
            return
        wanted = [NewTopic(topic, num_partitions=partitions, replication_factor=-1) for topic in topics]
        for topic, created in admin.create_topics(wanted).items():
            try:
                created.result()
                log.info("created topic %s with %d partitions", topic, partitions)
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.TOPIC_ALREADY_EXISTS:  # the other script was faster
                    continue
                if code in DENIED:
                    raise AccessDenied(
                        f"topic {topic!r} is missing, or hidden, and these credentials may not create it: "
                        f"create it or grant Create on it, or Read or Write where it exists"
                    ) from None
                raise TransportError(f"topic {topic!r} could not be created: {error.args[0].str()}") from None
        # The brokers confirm a topic before all of them list it; producing to it then would fail.
        deadline = time.monotonic() + TOPIC_SECONDS
        while not all(_has_leaders(admin, topic) for topic in topics):
            if time.monotonic() > deadline:
                raise TransportError(f"the created topics have no leaders after {TOPIC_SECONDS:.0f} s")
            admin.poll(LOOK_SECONDS)


def _has_leaders(admin: AdminClient, topic: str) -> bool:
    metadata = admin.list_topics(topic, timeout=TOPIC_SECONDS).topics[topic]
    if metadata.error is not None and metadata.error.code() in DENIED:
        raise translate(metadata.error, f"describing topic {topic!r}")
    return bool(metadata.partitions) and all(each.leader >= 0 for each in metadata.partitions.values())


def translate(error: KafkaError, doing: str) -> TransportError:
    """librdkafka's error as this project's, with what was being done."""
    code = error.code()
    if code in DENIED:
        right = DENIED[code]
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED and not doing.startswith(("reading", "committing")):
            right = "Write on the topic"
        return AccessDenied(f"{doing}: these credentials lack the right {right}: {error.str()}")
    if code in HOPELESS:
        return ConnectionFailed(f"{doing}: {error.str()}")
    if code in _FENCED:
        return TransportError(
            f"{doing}: another replier has the same transactional id and took over: give each its own --name"
        )
    if is_too_large(error):
        return TooLarge(
            f"{doing}: larger than message.max.bytes of this client or max.message.bytes of the topic"
        )
    if code in (KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
        return PublishFailed(f"{doing}: not confirmed by the brokers: {error.str()}")
    return TransportError(f"{doing}: {error.str()}")


def is_too_large(error: KafkaError) -> bool:
    """Whether a message can never be sent, however often it is tried."""
    return error.code() == KafkaError.MSG_SIZE_TOO_LARGE


def raise_translated(error: KafkaException, doing: str) -> NoReturn:
    """Raise what `translate` makes of a driver's exception."""
    raise translate(error.args[0], doing) from error
