"""Google's clients made from a service account, and their errors as this project's: the one door for both.

Calls made once go through Google's generated clients; calls made for each message are five on plain protocol
buffers, on the same connection.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, NotFound
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1 import types as wrapped
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from imagebus.errors import AccessDenied, ConfigError, ConnectionFailed, TransportError
from imagebus.transports.pubsub.account import ServiceAccount
from imagebus.transports.pubsub.login import fetch_token, one_line

log = logging.getLogger(__name__)

EMULATOR = "PUBSUB_EMULATOR_HOST"
CONNECT_SECONDS = 10.0  # Pub/Sub answers within 1 s; an emulator that is just starting within 5
CALL_SECONDS = 10.0  # for a call about a topic or a subscription
RETRY_PAUSES = (0.1, 2.0)  # seconds before a retry: the first, and the longest
CONNECT_PAUSE_SECONDS = 0.2  # between two tries to connect
RETENTION = timedelta(days=7)  # of a topic created here, for groups that join later
KEPT_FOR_A_REQUESTOR = timedelta(minutes=10)  # the least that a subscription may keep its messages
LIFE_OF_AN_INBOX = timedelta(days=1)  # the least after which Pub/Sub deletes an unused subscription
# Deliveries before Pub/Sub itself dead-letters a message: a net under this project's own dead letters.
MAX_DELIVERIES = 100

_NAME = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,199}")  # 255, less what is appended here
_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),  # detects a connection cut without notice
    # Not shared: each bus has a connection, and reconnects, of its own.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]

# The call may succeed the next time.
PASSING = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)


def plain(wrapper: Any) -> Any:
    """The protocol-buffer class behind one of Google's wrappers."""
    return type(wrapper.pb(wrapper()))


PublishRequest: Any = plain(wrapped.PublishRequest)
AcknowledgeRequest: Any = plain(wrapped.AcknowledgeRequest)
ModifyAckDeadlineRequest: Any = plain(wrapped.ModifyAckDeadlineRequest)
PullRequest: Any = plain(wrapped.PullRequest)
StreamingPullRequest: Any = plain(wrapped.StreamingPullRequest)


class Clients:
    """One connection to Pub/Sub, or to the emulator that `PUBSUB_EMULATOR_HOST` names.

    Raises `ConnectionFailed` where no token comes for the account; makes no other call yet.
    """

    def __init__(self, account: ServiceAccount) -> None:
        self._account = account
        self.project = account.project_id
        emulator = os.environ.get(EMULATOR)
        self.is_emulator = bool(emulator)
        if emulator:
            log.info("using the emulator at %s (%s), without a login", emulator, EMULATOR)
            self.host = emulator
            direct = ("grpc.enable_http_proxy", 0)  # it is on this machine or near it
            self._channel = grpc.insecure_channel(emulator, options=[*_CHANNEL, direct])
        else:
            credentials = fetch_token(account)  # now, so that a refused login shows at once
            self.host = f"pubsub.{account.universe_domain}"
            self._channel = PublisherGrpcTransport.create_channel(
                f"{self.host}:443", credentials=credentials, options=_CHANNEL
            )
        self.publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self.subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))

        def unary(path: str, request: Any, response: Any) -> Any:
            path = f"/google.pubsub.v1.{path}"
            return self._channel.unary_unary(path, request.SerializeToString, response.FromString)

        self.publish = unary("Publisher/Publish", PublishRequest, plain(wrapped.PublishResponse))
        self.acknowledge = unary("Subscriber/Acknowledge", AcknowledgeRequest, Empty)
        self.modify_ack_deadline = unary("Subscriber/ModifyAckDeadline", ModifyAckDeadlineRequest, Empty)
        self.pull = unary("Subscriber/Pull", PullRequest, plain(wrapped.PullResponse))
        self.streaming_pull: Callable[..., Any] = self._channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            StreamingPullRequest.SerializeToString,
            plain(wrapped.StreamingPullResponse).FromString,
        )

    def topic(self, name: str) -> str:
        """The full name of a topic."""
        return f"projects/{self.project}/topics/{name}"

    def subscription(self, name: str) -> str:
        """The full name of a subscription."""
        return f"projects/{self.project}/subscriptions/{name}"

    # --- opening -------------------------------------------------------------------------------

    def create_topics(self, names: Iterable[str]) -> None:
        """Create the missing ones, once Pub/Sub answers.

        Raises `ConfigError` for names that it does not take, `ConnectionFailed`, `AccessDenied`.
        """
        deadline = time.monotonic() + CONNECT_SECONDS
        for name in names:
            check_name(name)
        for name in names:
            while True:
                try:
                    self._create_topic(name)
                    break
                except GoogleAPICallError as error:
                    if error.grpc_status_code not in PASSING or time.monotonic() > deadline:
                        raise self.translate(error, f"topic {name!r}", "pubsub.topics.get") from None
                    time.sleep(CONNECT_PAUSE_SECONDS)

    def _create_topic(self, name: str) -> None:
        try:
            self.publisher.get_topic(request={"topic": self.topic(name)}, retry=None, timeout=CALL_SECONDS)
        except NotFound:
            request = {"name": self.topic(name), "message_retention_duration": RETENTION}
            try:
                self.publisher.create_topic(request=request, retry=None, timeout=CALL_SECONDS)
                log.info("created topic %s", name)
            except AlreadyExists:  # another program was faster
                pass
            except GoogleAPICallError as error:
                raise self.translate(error, f"topic {name!r}", "pubsub.topics.create") from None

    def join(self, topic: str, group: str, dead_letter_topic: str | None) -> str:
        """The full name of the subscription that a group's members share, created if missing.

        A new one starts at the oldest message that the topic keeps.
        """
        name = self.subscription(check_name(f"{topic}-{group}"))
        try:
            self.subscriber.get_subscription(request={"subscription": name}, retry=None, timeout=CALL_SECONDS)
        except NotFound:
            pass
        except GoogleAPICallError as error:
            raise self.translate(error, name, "pubsub.subscriptions.get") from None
        else:
            return name
        request: dict[str, Any] = {
            "name": name,
            "topic": self.topic(topic),
            "ack_deadline_seconds": 10,
            "expiration_policy": {},  # never: an idle month must not cost the group its place
        }
        if dead_letter_topic is not None:
            request["dead_letter_policy"] = {
                "dead_letter_topic": self.topic(dead_letter_topic),
                "max_delivery_attempts": MAX_DELIVERIES,
            }
        try:
            self.subscriber.create_subscription(request=request, retry=None, timeout=CALL_SECONDS)
        except AlreadyExists:
            return name
        except GoogleAPICallError as error:
            raise self.translate(error, name, "pubsub.subscriptions.create") from None
        log.info("created subscription %s-%s", topic, group)
        self._seek(name, datetime.now(UTC) - RETENTION)
        return name

    def open_inbox(self, topic: str, requestor: str) -> str:
        """The full name of a new subscription to everything from now on that is not another requestor's."""
        name = self.subscription(check_name(f"{topic}-requestor-{requestor}"))
        request = {
            "name": name,
            "topic": self.topic(topic),
            "ack_deadline_seconds": 10,
            "filter": f'NOT attributes:requestor OR attributes.requestor = "{requestor}"',
            "message_retention_duration": KEPT_FOR_A_REQUESTOR,
            "expiration_policy": {"ttl": LIFE_OF_AN_INBOX},
        }
        try:
            self.subscriber.create_subscription(request=request, retry=None, timeout=CALL_SECONDS)
        except GoogleAPICallError as error:
            raise self.translate(error, name, "pubsub.subscriptions.create") from None
        if self.is_emulator:  # where a new subscription begins with the topic's retained messages
            self._seek(name, datetime.now(UTC))
        return name

    def _seek(self, subscription: str, start: datetime) -> None:
        """Continue it with messages sent after `start`."""
        request = {"subscription": subscription, "time": start}
        try:
            self.subscriber.seek(request=request, retry=None, timeout=CALL_SECONDS)
        except GoogleAPICallError as error:
            log.warning("%s: what was sent before now is not seen: %s", subscription, error.message)

    def delete_inbox(self, name: str) -> None:
        """Delete a requestor's subscription; if that fails, it expires after a day."""
        try:
            self.subscriber.delete_subscription(
                request={"subscription": name}, retry=None, timeout=CALL_SECONDS
            )
        except GoogleAPICallError as error:
            log.debug("a subscription stays for a day: %s", error.message)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    # --- errors --------------------------------------------------------------------------------

    def translate(self, error: Any, what: str, right: str) -> TransportError:
        """An error of gRPC or of Google's clients, met at `what`, where `right` is needed."""
        code = code_of(error)
        said = error.message if isinstance(error, GoogleAPICallError) else error.details()
        reason = one_line(said or "no reason was given")
        if code == grpc.StatusCode.PERMISSION_DENIED:
            return AccessDenied(
                f"{what}: {self._account.client_email} lacks the right {right} in project {self.project}: {reason}"
            )
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return ConnectionFailed(f"{self._account.path}: {self.host} refuses the login: {reason}")
        if code == grpc.StatusCode.NOT_FOUND:
            return TransportError(f"{what} is not there any more: {reason}")
        if code in PASSING:
            where = f" ({EMULATOR})" if self.is_emulator else ""
            return ConnectionFailed(f"no answer from {self.host}{where}: {reason}")
        return TransportError(f"{what}: {reason}")


def code_of(error: Any) -> grpc.StatusCode:
    """The status of a failed call, of gRPC or of Google's clients."""
    code = error.grpc_status_code if isinstance(error, GoogleAPICallError) else error.code()
    return code or grpc.StatusCode.UNKNOWN


def check_name(name: str) -> str:
    """A valid name of a topic or a subscription; raises `ConfigError` for any other."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a topic or subscription of Pub/Sub: "
            "3 to 200 of A-Z a-z 0-9 - . _ ~ + %, the first a letter, and not goog"
        )
    return name


def in_parts(items: Sequence[Any], count: int) -> Iterable[Sequence[Any]]:
    """`items` in parts of at most `count`."""
    return (items[start : start + count] for start in range(0, len(items), count))
