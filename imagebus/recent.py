"""What the model said lately, for requests that come again.

A caller that hears nothing sends a request again, and the bus delivers a batch again whose commit failed. After an
outage such copies wait behind the first ones; answered from here, they cost next to nothing, so they cannot keep a
busy replier from catching up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from imagebus.wire.envelope import Envelope
from imagebus.wire.results import Probabilities

# Of one generation; the one before is kept as well. 20 s of 200 requests/s: a copy is that far behind its first one.
REQUESTS = 4096
BYTES = 4 << 20  # of keys and probabilities


def key_of(envelope: Envelope) -> str:
    """Equal for copies of one request only: same id, and same images by hash and by how they are read.

    The id is part of it, so that a benchmark that sends the same images again and again still measures the model.
    """
    return f"{envelope.id} {envelope.sha256} {envelope.content_type} {envelope.shape!r} {envelope.dtype!r}"


class RecentAnswers:
    """Probabilities by `key_of`, for the last 4,096 to 8,192 requests, or 4 to 8 MiB. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._young: dict[str, Probabilities] = {}
        self._old: dict[str, Probabilities] = {}
        self._bytes = 0  # of the young ones

    def find(self, keys: Iterable[str]) -> dict[str, Probabilities]:
        """What is known of these."""
        with self._lock:
            found = {}
            for key in keys:
                answer = self._young.get(key)
                if answer is None:
                    answer = self._old.get(key)
                if answer is not None:
                    found[key] = answer
            return found

    def keep(self, answers: Mapping[str, Probabilities]) -> None:
        """Remember these, and forget the oldest."""
        with self._lock:
            self._young.update(answers)
            self._bytes += sum(len(key) + answer.nbytes for key, answer in answers.items())
            if len(self._young) >= REQUESTS or self._bytes >= BYTES:
                self._old, self._young, self._bytes = self._young, {}, 0
