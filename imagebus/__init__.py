"""Request/reply image classification over a message bus.

    from imagebus import Client, connect

    with Client(connect("kafka", "kafka.config", topics=["requests", "replies"])) as client:
        print(client.predict(images))  # uint8 (N, 28, 28)

Names are loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagebus.batching import fill
    from imagebus.classifier import Classifier, OnnxClassifier
    from imagebus.client import Client
    from imagebus.errors import (
        AccessDenied,
        BadMessage,
        BrokerError,
        CommitFailed,
        ConfigError,
        ConnectionFailed,
        ImageBusError,
        ModelError,
        PublishFailed,
        RequestFailed,
        RequestTimeout,
        TooLarge,
        TransportError,
    )
    from imagebus.images import ImageSet, load_images
    from imagebus.metrics import serve_metrics
    from imagebus.open_packages import OpenPackages, Package
    from imagebus.process import tune_for_serving
    from imagebus.replay import replay_dead_letters
    from imagebus.streaming import Outcome
    from imagebus.transports import connect
    from imagebus.transports.base import Transport
    from imagebus.transports.memory import MemoryBus, MemoryTransport
    from imagebus.wire.message import Message
    from imagebus.wire.results import Model, Prediction, Reply
    from imagebus.worker import Worker

_HOMES = {
    "imagebus.batching": ["fill"],
    "imagebus.classifier": ["Classifier", "OnnxClassifier"],
    "imagebus.client": ["Client"],
    "imagebus.errors": [
        "AccessDenied",
        "BadMessage",
        "BrokerError",
        "CommitFailed",
        "ConfigError",
        "ConnectionFailed",
        "ImageBusError",
        "ModelError",
        "PublishFailed",
        "RequestFailed",
        "RequestTimeout",
        "TooLarge",
        "TransportError",
    ],
    "imagebus.images": ["ImageSet", "load_images"],
    "imagebus.metrics": ["serve_metrics"],
    "imagebus.open_packages": ["OpenPackages", "Package"],
    "imagebus.process": ["tune_for_serving"],
    "imagebus.replay": ["replay_dead_letters"],
    "imagebus.streaming": ["Outcome"],
    "imagebus.transports": ["connect"],
    "imagebus.transports.base": ["Transport"],
    "imagebus.transports.memory": ["MemoryBus", "MemoryTransport"],
    "imagebus.wire.message": ["Message"],
    "imagebus.wire.results": ["Model", "Prediction", "Reply"],
    "imagebus.worker": ["Worker"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccessDenied",
    "BadMessage",
    "BrokerError",
    "Classifier",
    "Client",
    "CommitFailed",
    "ConfigError",
    "ConnectionFailed",
    "ImageBusError",
    "ImageSet",
    "MemoryBus",
    "MemoryTransport",
    "Message",
    "Model",
    "ModelError",
    "OnnxClassifier",
    "OpenPackages",
    "Outcome",
    "Package",
    "Prediction",
    "PublishFailed",
    "Reply",
    "RequestFailed",
    "RequestTimeout",
    "TooLarge",
    "Transport",
    "TransportError",
    "Worker",
    "connect",
    "fill",
    "load_images",
    "replay_dead_letters",
    "serve_metrics",
    "tune_for_serving",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
