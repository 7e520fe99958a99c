"""Common to all contenders: one broker, one backlog, one model, one set of known answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bench.program import BenchFailed
from bench.replies import Topic
from imagebus import OnnxClassifier, connect, load_images
from imagebus.wire.message import Message
from imagebus.wire.pixels import Images, encode_request
from imagebus.wire.results import Probabilities


class Encode(Protocol):
    """A package as a request, in the format that a server reads: `encode_request` is one."""

    def __call__(self, images: Images, topic: str, *, id: str) -> Message:
        """`images` is uint8 (N, 28, 28)."""
        ...


PACKAGE = 5  # images in each
REQUESTS = "requests"  # the backlog, which every contender reads from its start, in a group of its own
# Two classes closer than this are both correct: the size of a batch changes the order of its sums.
_SAME = 0.001


@dataclass(frozen=True)
class Ground:
    """The same for all contenders, in all rounds. `expected` is (len(images), 10), by the same model."""

    bootstrap: str
    config: Path
    model: Path
    model_name: str  # and version
    keras_model: Path
    packages: int
    singles: int
    keras_seconds: float
    load_seconds: float  # of each load in `bench/peers`
    images: Images
    labels: tuple[str, ...]
    expected: Probabilities

    def package(self, number: int) -> Images:
        """The images of package `number`, (5, 28, 28); the sample starts over at its end."""
        return self.images[self._rows(number)]

    def is_correct(self, number: int, labels: list[str]) -> bool:
        """Whether `labels` are the model's for package `number`."""
        if len(labels) != PACKAGE or not set(labels) <= set(self.labels):
            return False
        likely = self.expected[self._rows(number)]
        chosen = likely[np.arange(PACKAGE), [self.labels.index(label) for label in labels]]
        return bool((chosen > likely.max(axis=1) - _SAME).all())

    def _rows(self, number: int) -> slice:
        start = number * PACKAGE % len(self.images)
        return slice(start, start + PACKAGE)


def lay_ground(
    bootstrap: str,
    folder: Path,
    model: Path,
    *,
    packages: int,
    singles: int,
    keras_seconds: float,
    load_seconds: float = 0.0,
) -> Ground:
    """Write the config file, load the sample, predict it once, and fill the backlog."""
    config = folder / "kafka.config"
    config.write_text(f"bootstrap.servers = {bootstrap}\n", encoding="utf-8")
    sample = load_images().images
    images = sample[: len(sample) - len(sample) % PACKAGE]  # whole packages only
    classifier = OnnxClassifier(model)
    ground = Ground(
        bootstrap=bootstrap,
        config=config,
        model=model,
        model_name=f"{classifier.model.name} {classifier.model.version}",
        keras_model=model.with_suffix(".keras"),
        packages=packages,
        singles=singles,
        keras_seconds=keras_seconds,
        load_seconds=load_seconds,
        images=images,
        labels=classifier.labels,
        expected=classifier.predict(images),
    )
    # The dead-letter topic is the replier's to make, but not while it is timed.
    open_topics(ground, REQUESTS, f"{REQUESTS}.dlt")
    fill(ground, REQUESTS)
    return ground


def open_topics(ground: Ground, *topics: str) -> None:
    """Create `topics` before anything is timed."""
    connect("kafka", ground.config, topics=topics).close()


def fill(ground: Ground, topic: str, encode: Encode = encode_request) -> None:
    """Put the whole backlog into a topic that is there."""
    with Topic(ground.bootstrap, topic) as requests:
        requests.skip()
        with connect("kafka", ground.config, topics=[topic]) as bus:
            for number in range(ground.packages):
                bus.publish(encode(ground.package(number), topic, id=str(number)))
        if requests.count() != ground.packages:
            raise BenchFailed(f"the backlog has {requests.count()} packages instead of {ground.packages}")
