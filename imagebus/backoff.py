"""Pauses before retries: each twice as long as the last one, up to a limit."""

from __future__ import annotations


class Backoff:
    """Pauses in seconds, from `first` on and never above `longest`."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def next(self) -> float:
        """The pause to make now; the one after it is twice as long."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause

    def reset(self) -> None:
        """After a success, start again at the first pause."""
        self._next = self._first
