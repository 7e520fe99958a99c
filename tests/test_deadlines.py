"""Deadlines where clocks do not agree."""

from __future__ import annotations

import pytest

from imagebus import deadlines
from imagebus.deadlines import Deadlines
from imagebus.wire.message import Message


def expired(deadline: int, replier_time: int) -> Message:
    headers = [("deadline", str(deadline).encode()), ("replier_time", str(replier_time).encode())]
    return Message("replies", b"{}", headers=headers)


@pytest.mark.parametrize(("known", "later"), [(600.0, 86_400_000), (-1.0, 0)])
def test_a_clock_that_was_ahead_once_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, known: float, later: int
) -> None:
    monkeypatch.setattr(deadlines, "KNOWN_SECONDS", known)
    learnt = Deadlines()
    plain = learnt.after(30)

    assert learnt.learn(expired(plain, plain + 86_400_000), plain)

    assert learnt.after(30) == pytest.approx(plain + later, abs=40_000)
