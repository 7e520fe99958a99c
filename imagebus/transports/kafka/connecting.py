"""One connection to a Kafka cluster: opening it, and later failures.

Later failures come through callbacks inside other calls; they are kept, and raised by the calls that can raise.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Set
from concurrent.futures import FIRST_COMPLETED, Future, wait

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata  # type: ignore[attr-defined]  # it does export them

from imagebus.errors import ConnectionFailed, TransportError
from imagebus.transports.kafka.advertised import learned, no_answer, nowhere, unreached
from imagebus.transports.kafka.config import Settings
from imagebus.transports.kafka.errors import HOPELESS
from imagebus.transports.kafka.probe import anyone_listens, certificate_trouble, speaks_tls, wants_tls
from imagebus.transports.kafka.settings import Clients

log = logging.getLogger(__name__)

EVENT_SECONDS = 0.05  # between two looks for an error while the brokers are asked
CONNECT_SECONDS = 10.0  # Confluent Cloud answers within 2 s
# Where there are several and something listens: one may be frozen, which shows after socket.timeout.ms, and another is
# asked then.
FROZEN_SECONDS = 20.0
# For a broker's answer, also over a round trip of 1 s; then another one is asked. librdkafka keeps a question for the
# broker that it chose, even if that one is gone, for all of the question's time.
ANSWER_SECONDS = 3.0
# Of silence: after the first, check whether the other side speaks TLS; after the second, a connection closed at
# the handshake counts as a no. A broker that is just starting or stopping closes it too.
SUSPICION_SECONDS = (3.0, 6.0)
DOWN_SECONDS = 30.0  # between two warnings that no broker answers
KNOCK_PAUSE = 1.0  # seconds between two probes, while librdkafka tries to connect 20 times a second
LEAVE_SECONDS = 10.0  # for a consumer to leave its group

# _BAD_MSG: an answer that is not Kafka's, as another server has the advertised address.
_UNREACHABLE = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._BAD_MSG})
# What librdkafka writes around the reason: the server and the duration.
_WHO = re.compile(r"^\w+://(?P<server>[^/]+)/\w+: ")
_HOW_LONG = re.compile(r" \(after \d+ms in state \w+[^)]*\)")


class Connection:
    """The clients of one connection, and the failures from their callbacks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clients = Clients(settings, self._on_error)
        self._keeping = threading.Lock()  # `publish` is called on any thread
        self._failure: TransportError | None = None  # for good
        self._undelivered: TransportError | None = None  # a message that nobody else is told about
        self._quiet_until = 0.0  # time.monotonic()
        self._connected = False
        self._addresses: Set[str] = frozenset()  # that the brokers gave as their own
        self._unreached: tuple[str, str] | None = None  # the last broker that was not, and why
        self._warned: set[str] = set()  # addresses of such brokers

    def raise_failure(self) -> None:
        """Raise the failure for good, on each call; or, once, that of a message without an `on_delivery`."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)  # which would grow with each raise
        if self._undelivered is None:
            return
        with self._keeping:
            failure, self._undelivered = self._undelivered, None
        if failure is not None:  # another thread was not faster
            raise failure

    def keep_failure(self, failure: TransportError) -> None:
        """Keep a failure for good: a sender that learns of it first must not hide it from the reader."""
        with self._keeping:
            self._failure = self._failure or failure  # the first one is the cause of the others

    def keep_undelivered(self, failure: TransportError) -> None:
        """Keep the failure of one message for the next call."""
        with self._keeping:
            self._undelivered = self._undelivered or failure

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka's errors between calls. Never raises: that would lose a batch."""
        servers = self.settings["bootstrap.servers"]
        code = error.code()
        if self._failure is not None:
            return  # the first one is the cause of the others
        broker = unreached(error.str(), servers)  # one that another has named
        # Name servers come back, and another broker's name may resolve.
        may_resolve = self._connected or "," in servers or broker is not None
        if code in _UNREACHABLE or (code == KafkaError._RESOLVE and may_resolve):
            self._unreached = broker or self._unreached
            self._warn_of_silence(servers, everywhere=code == KafkaError._ALL_BROKERS_DOWN)
        elif code in HOPELESS:
            self.keep_failure(ConnectionFailed(self._why_refused(error)))
        elif error.fatal():
            # The client's next call raises it, unless the client was replaced.
            log.debug("a client is of no use any more: %s", error.str())

    def _warn_of_silence(self, servers: str, *, everywhere: bool) -> None:
        """Warn that no broker answers, or that one does not at its own address; each now and then."""
        now = time.monotonic()
        if now < self._quiet_until:
            return
        listening = anyone_listens(servers)
        down = everywhere or not listening
        self._quiet_until = now + (DOWN_SECONDS if down else KNOCK_PAUSE)
        if listening and self._unreached is not None:
            address = self._unreached[0]
            if down or address not in self._warned:
                log.warning("%s; trying again", no_answer(*self._unreached))
            self._warned.add(address)
        elif down:
            log.warning("no broker answers at %s; trying again", servers)

    def _why_refused(self, error: KafkaError) -> str:
        """One line for an error that retrying cannot mend: the setting to look at, the broker, the reason."""
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

    def admin(self) -> AdminClient:
        """A client for `connect`, and for topics."""
        return self.clients.admin(self._on_statistics)

    def _on_statistics(self, statistics: str) -> None:
        self._addresses = learned(statistics)

    def connect(self, admin: AdminClient) -> set[str]:
        """The existing topics, once a broker answers; raises `ConnectionFailed` with the cause if none does.

        Every failure of `list_topics` looks the same; the cause comes through `error_cb` in `poll`, or from
        probing the other end.
        """
        start = time.monotonic()
        self._failure = None
        self._quiet_until = start + DOWN_SECONDS  # if none answers, the error says so
        next_check = start + SUSPICION_SECONDS[0]
        reason = "Local: Timed out"
        questions = {_metadata(admin, CONNECT_SECONDS)}
        next_question = start + ANSWER_SECONDS
        limit = CONNECT_SECONDS
        metadata: ClusterMetadata | None = None
        while True:
            answered, questions = wait(questions, EVENT_SECONDS, FIRST_COMPLETED)
            for each in answered:
                try:
                    metadata = each.result()
                except KafkaException as error:
                    reason = error.args[0].str()
            if metadata is not None:
                break
            admin.poll(EVENT_SECONDS if answered else 0)  # a question may fail at once
            self.raise_failure()
            waited = time.monotonic() - start
            if waited > limit:
                servers = self.settings["bootstrap.servers"]
                if limit == FROZEN_SECONDS or "," not in servers or not anyone_listens(servers):
                    raise ConnectionFailed(self._why_silent(reason))
                limit = FROZEN_SECONDS
            if not questions or time.monotonic() > next_question:
                questions.add(_metadata(admin, limit - waited))
                next_question = time.monotonic() + ANSWER_SECONDS
            if time.monotonic() > next_check:
                self._check_addresses(self._addresses)
                self._check_protocol(waited)
                next_check = time.monotonic() + KNOCK_PAUSE
        self._check_addresses({f"{each.host}:{each.port}" for each in metadata.brokers.values()})
        self._connected = True
        self._quiet_until = 0.0  # from now on, warn when no broker answers
        return set(metadata.topics)

    def _check_addresses(self, addresses: Set[str]) -> None:
        """Raise `ConnectionFailed` when no broker can be reached at its own address."""
        servers = self.settings["bootstrap.servers"]
        trouble = nowhere(addresses, servers)
        if trouble is not None:
            raise ConnectionFailed(
                f"{servers} answers ({self.settings.where('bootstrap.servers')}), but {trouble}"
            )

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
        if self._unreached is not None:
            where = self.settings.where("bootstrap.servers")
            return f"{servers} answers ({where}), but there is {no_answer(*self._unreached)}"
        silent = f"no broker answers at {servers} ({self.settings.where('bootstrap.servers')})"
        if any(speaks_tls(server) is not None for server in servers.split(",")):
            protocol = self.settings.get("security.protocol", "PLAINTEXT")
            return f"{silent}, but something listens there: does it want a login? security.protocol is {protocol}"
        return f"{silent}: {reason}; python3 -m imagebus.broker starts one on this machine"


def _metadata(admin: AdminClient, seconds: float) -> Future[ClusterMetadata]:
    """The cluster's brokers and topics, requested on another thread: this one has to see errors meanwhile.

    Further requests go out beside the first, which keeps all of its time: once a client knows the brokers' own
    addresses, it no longer asks where `bootstrap.servers` says, and a late answer to a request given up is lost.
    """
    answer: Future[ClusterMetadata] = Future()

    def ask() -> None:
        try:
            answer.set_result(admin.list_topics(timeout=seconds))
        except KafkaException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="imagebus-connecting", daemon=True).start()
    return answer


def close_consumer(consumer: Consumer) -> None:
    """Close it, with the brokers' answer to the last commit; librdkafka waits for that for ever (issue 3740)."""
    closing = threading.Thread(target=consumer.close, name="imagebus-closing", daemon=True)
    closing.start()
    closing.join(LEAVE_SECONDS)
    if closing.is_alive():
        log.warning("the group was not left in %.0f s: no coordinator answers", LEAVE_SECONDS)
