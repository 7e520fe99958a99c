"""Which messages are in hand, for how long, and what one is that comes again."""

from __future__ import annotations

import pytest

from imagebus.transports.pubsub import leases as pubsub_leases
from imagebus.transports.pubsub.leases import LONGEST_SECONDS, SHORTEST_SECONDS, Leases, Taken


def test_a_message_that_comes_again_while_it_is_in_hand_only_gets_its_new_lease() -> None:
    leases = Leases()
    assert leases.take("1", "first") is Taken.NEW

    assert leases.take("1", "second") is Taken.KNOWN

    assert leases.answered(["1"]) == ["second"]


def test_a_message_that_comes_again_after_it_was_answered_is_told() -> None:
    leases = Leases()
    leases.take("1", "ack")
    leases.answered(["1"])

    assert leases.take("1", "again") is Taken.ANSWERED
    assert leases.ack_ids() == []


def test_what_was_answered_is_remembered_for_so_long_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub_leases, "REMEMBERED", 2)
    leases = Leases()

    leases.answered(["1", "2", "3"])

    assert [leases.take(id, "ack") for id in "123"] == [Taken.NEW, Taken.ANSWERED, Taken.ANSWERED]


def test_a_message_whose_lease_ended_while_it_waited_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub_leases, "SHORTEST_SECONDS", 0)
    leases = Leases()
    leases.take("1", "ack")
    leases.take("2", "other")
    leases.extended(["other"], 60)

    assert [leases.keep("1"), leases.keep("2")] == [False, True]

    assert leases.take("1", "ack") is Taken.NEW
    assert leases.take("2", "other") is Taken.KNOWN


def test_leases_are_as_long_as_twice_the_work_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("imagebus.transports.pubsub.leases.time.monotonic", lambda: now)
    leases = Leases()
    seconds = [leases.seconds()]
    for took in (0.1, 15.0, 100.0):
        leases.take(str(took), "ack")
        now += took
        leases.answered([str(took)])
        seconds.append(leases.seconds())

    assert seconds == [SHORTEST_SECONDS, SHORTEST_SECONDS, 30, LONGEST_SECONDS]
