"""What can go wrong, drawn as a tree. To catch all of it, catch `ImageBusError`.

    ImageBusError
    ├── ConfigError         a parameter, a file or a setting is wrong: nothing was started
    ├── BrokerError         the embedded broker could not be fetched or started
    ├── TransportError      the bus did not do its part
    │   ├── ConnectionFailed    no broker answers, or it refuses the login
    │   ├── AccessDenied        a right on a topic or a group is missing
    │   ├── Fenced              another program has the same transactional id
    │   ├── GroupConflict       this member does not fit its consumer group
    │   ├── PublishFailed       a message was not confirmed
    │   │   └── TooLarge            and never will be
    │   └── CommitFailed        the inputs were not marked as done: they come again
    ├── BadMessage          a message from the bus cannot be used: the sender's fault, with a code
    ├── ModelError          the model failed on a batch, or on all of them
    ├── RequestFailed       the replier answered with an error, with its code
    └── RequestTimeout      no answer came in time

The driver's own errors are translated where the driver is called and nowhere else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

__all__ = [
    "AccessDenied",
    "BadMessage",
    "BrokerError",
    "CommitFailed",
    "ConfigError",
    "ConnectionFailed",
    "ErrorCode",
    "Fenced",
    "GroupConflict",
    "ImageBusError",
    "ModelError",
    "PublishFailed",
    "RequestFailed",
    "RequestTimeout",
    "TooLarge",
    "TransportError",
]


class ImageBusError(Exception):
    """The root. `str()` of each error is one line that a user can act on."""


class ConfigError(ImageBusError):
    """A parameter, a file or a setting is wrong, and the text names it. The scripts print it and exit with 2."""


class BrokerError(ImageBusError):
    """The embedded broker could not be fetched, started or kept running."""


class TransportError(ImageBusError):
    """The bus did not do its part; the scripts print it and exit with 1."""


class ConnectionFailed(TransportError):
    """No broker answers at the given address, or it refuses the login or the certificate."""


class AccessDenied(TransportError):
    """The credentials lack a right; the message names the right and the topic or group."""


class Fenced(TransportError):
    """Another live program has the same `transactional_id`, and took over."""


class GroupConflict(TransportError):
    """This member does not fit its consumer group: another has its id, or they share out the partitions differently."""


class PublishFailed(TransportError):
    """The brokers did not confirm a message. It may or may not have been stored."""


class TooLarge(PublishFailed):
    """A message is larger than the client or the topic takes; the text names size and settings."""


class CommitFailed(TransportError):
    """The received messages were not marked as done, so each of them will be received again."""


class ModelError(ImageBusError):
    """The model failed on a batch. A model file that cannot be served is a `ConfigError`."""


class ErrorCode(StrEnum):
    """The fixed words an error reply or a dead letter gives as its reason."""

    NO_ID = "NO_ID"
    BAD_ID = "BAD_ID"
    EMPTY = "EMPTY"
    TOO_LARGE = "TOO_LARGE"
    FORMAT = "FORMAT"
    WRONG_TYPE = "WRONG_TYPE"
    NO_HASH = "NO_HASH"
    HASH_MISMATCH = "HASH_MISMATCH"
    SHAPE = "SHAPE"
    DTYPE = "DTYPE"
    COUNT = "COUNT"
    VALUES = "VALUES"
    JSON = "JSON"
    BAD_IMAGE = "BAD_IMAGE"
    PIXELS_MAX = "PIXELS_MAX"
    REPLY_TO = "REPLY_TO"
    EXPIRED = "EXPIRED"
    MODEL = "MODEL"
    KILLER = "KILLER"


class BadMessage(ImageBusError):
    """A message that cannot be used, and why.

    `code` is one of `ErrorCode`; the text is fixed too and never repeats the sender's. `envelope` is the request's
    (`imagebus.wire.envelope.Envelope`) when it can be answered; None makes it a dead letter.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # what `pickle` makes it anew from
        self.code = code
        self.message = message
        self.envelope: Any = None

    def __str__(self) -> str:
        return self.message


class RequestFailed(ImageBusError):
    """The replier answered a request with an error instead of predictions."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(code, message)  # what `pickle` makes it anew from, in a pool of processes
        self.code = code
        self.message = message
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class RequestTimeout(ImageBusError, TimeoutError):
    """No answer came before the request's deadline. The request may still be answered late."""
