"""What the two scripts report: a replier that it is ready, and its counts; a requestor its summary."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebus.durations import Durations
from imagebus.errors import ImageBusError, RequestTimeout

if TYPE_CHECKING:
    from imagebus.streaming import Outcome
    from imagebus.wire.results import ModelIdentity

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0  # between two lines of counts, while they change


class Announcer:
    """Logs once that a replier is ready, and from then on which partitions it has: for `on_assigned`."""

    def __init__(self, model: ModelIdentity, topic: str, group: str) -> None:
        self._model = model
        self._where = f"{topic} as group {group}"
        self._ready = False

    def __call__(self, partitions: Sequence[int]) -> None:
        listed = ", ".join(map(str, partitions)) or "none"
        if self._ready:
            log.info("partitions now: %s", listed)
            return
        self._ready = True
        model = self._model
        log.info(
            "ready: model %s %s (sha256 %s), reading %s, partitions %s",
            model.name,
            model.version,
            model.sha256[:12],
            self._where,
            listed,
        )


@contextmanager
def counts_logged(counts: object) -> Iterator[None]:
    """Meanwhile, log `counts` every few seconds if they have changed, and once more at the end."""
    ended = threading.Event()

    def report() -> None:
        last = str(counts)
        while not ended.wait(REPORT_SECONDS):
            now = str(counts)
            if now != last:
                log.info(now)
            last = now

    reporter = threading.Thread(target=report, name="imagebus-report", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()
    log.info("stopped: %s", counts)


@dataclass
class Summary:
    """Counts over the outcomes that were added. `sent` is for the caller to set."""

    sent: int = 0
    failed: int = 0
    lost: int = 0
    correct: int = 0
    judged: int = 0  # images whose true label is known
    round_trips: Durations = field(default_factory=Durations)  # of the answered packages

    def add(self, outcome: Outcome) -> None:
        """Count one package."""
        result, truths = outcome.result, outcome.package.truths
        if isinstance(result, RequestTimeout):
            self.lost += 1
        elif isinstance(result, ImageBusError):
            self.failed += 1
        else:
            self.round_trips.add(result.round_trip)
            if truths is not None:
                self.judged += len(truths)
                pairs = zip(result.predictions, truths, strict=True)
                self.correct += sum(prediction.label == truth for prediction, truth in pairs)

    def __str__(self) -> str:
        """One to three lines."""
        answered = len(self.round_trips)
        left = self.sent - answered - self.failed - self.lost
        lines = [f"sent {self.sent}, answered {answered}, failed {self.failed}, lost {self.lost}"]
        if left:
            lines[0] += f", open {left}"
        if self.judged:
            lines.append(f"accuracy {self.correct / self.judged:.1%} of {self.judged} images")
        if answered > 1:
            p50, p99 = (self.round_trips.percentile(percent) * 1000 for percent in (50, 99))
            lines.append(f"round trip p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        return "\n".join(lines)
