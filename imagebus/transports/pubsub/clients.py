"""Google's clients made from a service account, and their errors as this project's: the one door for both.

Calls made once go through Google's generated clients; calls made for each message are five on plain protocol
buffers, on the same connection.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1 import types as wrapped
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from imagebus.errors import AccessDenied, ConfigError, ConnectionFailed, TransportError
from imagebus.forking import after_fork
from imagebus.transports.pubsub.account import ServiceAccount
from imagebus.transports.pubsub.login import fetch_token, one_line

log = logging.getLogger(__name__)

EMULATOR = "PUBSUB_EMULATOR_HOST"
RETRY_PAUSES = (0.1, 2.0)  # seconds before a retry: the first, and the longest

# In place of HOST: a name, an IPv4 address, or an IPv6 address in brackets. gRPC takes more, and reads a port of
# 99999 as 34463.
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
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


_left_behind = False  # gRPC was in use in the process of which this one is a forked child


def _leave_behind(_: object) -> None:
    global _left_behind
    _left_behind = True


class Clients:
    """One connection to Pub/Sub, or to the emulator that `PUBSUB_EMULATOR_HOST` names.

    Raises `ConnectionFailed` where no token comes for the account, `ConfigError` for what is no address of an
    emulator, `TransportError` in a forked child of a process that had one; makes no other call yet.
    """

    def __init__(self, account: ServiceAccount) -> None:
        if (
            _left_behind
        ):  # it leaves out what a fork needs while other threads call it, and ends the child some time
            raise TransportError(
                "gRPC was in use before this process was forked, and is of no use here: connect to Pub/Sub after the "
                "fork only, or start processes with multiprocessing's 'spawn'"
            )
        after_fork(self, _leave_behind)
        self._account = account
        self.project = account.project_id
        emulator = _emulator()
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

    def no_project(self, error: Any) -> ConfigError:
        """The error of a topic that has nowhere to be created."""
        reason = one_line(error.message or "no reason was given")
        return ConfigError(f"{self._account.path}: project_id {self.project!r}: {self.host} says: {reason}")


def _emulator() -> str | None:
    """HOST:PORT of the emulator, if one is named; raises `ConfigError` for anything else."""
    value = os.environ.get(EMULATOR)
    if not value:
        return None
    match = _HOST_AND_PORT.fullmatch(value.strip())
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ConfigError(f"{EMULATOR} is {value!r}: expected HOST:PORT, such as 127.0.0.1:8085")
    return value.strip()


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
