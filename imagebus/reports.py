"""What the two scripts report: a replier that it is ready, and its counts; a requestor its summary."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebus.durations import Durations
from imagebus.errors import ImageBusError, RequestTimeout

if TYPE_CHECKING:
    from imagebus.judging import Verdict
    from imagebus.streaming import Outcome
    from imagebus.wire.results import ModelIdentity

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0  # between two lines of counts, while they change
_FEW = 3  # names in one line of a summary


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
    judged: int = 0  # images whose true label is known and one of the model's
    foreign: Counter[str] = field(default_factory=Counter)  # other truths, of so many images
    round_trips: Durations = field(default_factory=Durations)  # of the answered packages

    def add(self, outcome: Outcome, verdicts: Sequence[Verdict]) -> None:
        """Count one package, with a verdict for each image that was answered."""
        result = outcome.result
        if isinstance(result, RequestTimeout):
            self.lost += 1
        elif isinstance(result, ImageBusError):
            self.failed += 1
        else:
            self.round_trips.add(result.round_trip)
            self.judged += sum(verdict is not None for verdict in verdicts)
            self.correct += sum(verdict is True for verdict in verdicts)
            if outcome.package.truths is not None:
                pairs = zip(outcome.package.truths, verdicts, strict=True)
                self.foreign.update(truth for truth, verdict in pairs if verdict is None)

    def __str__(self) -> str:
        """One to four lines."""
        answered = len(self.round_trips)
        left = self.sent - answered - self.failed - self.lost
        lines = [f"sent {self.sent}, answered {answered}, failed {self.failed}, lost {self.lost}"]
        if left:
            lines[0] += f", open {left}"
        if self.judged:
            lines.append(f"accuracy {self.correct / self.judged:.1%} of {self.judged} images")
        if self.foreign:
            lines.append(
                f"not judged {self.foreign.total()} images: no reply has the label {_few(self.foreign)}"
            )
        if answered > 1:
            p50, p99 = (self.round_trips.percentile(percent) * 1000 for percent in (50, 99))
            lines.append(f"round trip p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        return "\n".join(lines)


def _few(texts: Counter[str]) -> str:
    """The commonest of many texts, for one line."""
    listed = ", ".join(printable(text) for text, _ in texts.most_common(_FEW))
    return listed + f" and {len(texts) - _FEW} more" * (len(texts) > _FEW)


def printable(text: str) -> str:
    """A text of others as it may be shown on a terminal: control characters escaped."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
