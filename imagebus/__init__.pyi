__all__: list[str]
from imagebus.classifier import Classifier as Classifier
from imagebus.classifier import OnnxClassifier as OnnxClassifier
from imagebus.client import Client as Client
from imagebus.errors import BadMessage as BadMessage
from imagebus.errors import CommitFailed as CommitFailed
from imagebus.errors import ConfigError as ConfigError
from imagebus.errors import ImageBusError as ImageBusError
from imagebus.errors import RequestFailed as RequestFailed
from imagebus.errors import RequestTimeout as RequestTimeout
from imagebus.errors import TooLarge as TooLarge
from imagebus.errors import TransportError as TransportError
from imagebus.images import ImageSet as ImageSet
from imagebus.images import load_images as load_images
from imagebus.metrics import serve_metrics as serve_metrics
from imagebus.observer import Observer as Observer
from imagebus.open_packages import OpenPackages as OpenPackages
from imagebus.open_packages import Package as Package
from imagebus.process import tune_for_serving as tune_for_serving
from imagebus.streaming import Outcome as Outcome
from imagebus.transports import connect as connect
from imagebus.transports.base import Bus as Bus
from imagebus.transports.memory import MemoryBroker as MemoryBroker
from imagebus.transports.memory import MemoryBus as MemoryBus
from imagebus.wire.message import Message as Message
from imagebus.wire.results import Prediction as Prediction
from imagebus.wire.results import Reply as Reply
from imagebus.worker import Worker as Worker

__version__: str
