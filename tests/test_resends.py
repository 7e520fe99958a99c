"""When a request is sent again: on a sign that it is lost, and never so often that an outage becomes an overload."""

from __future__ import annotations

import pytest

from imagebus.pending import RECONSIDER_SECONDS
from imagebus.resends import BUDGET, SETTLED_SECONDS, SILENCE_SECONDS, Resends
from imagebus.wire.message import Position

START = 1000.0


@pytest.fixture
def resends() -> Resends:
    resends = Resends()
    resends.tick(START)
    return resends


def at(offset: int, partition: int = 0) -> Position:
    return Position(partition, offset, 0)


def settle(resends: Resends, now: float) -> float:
    """Let enough time pass that what was seen so far counts as settled."""
    for _ in range(2):
        now += SETTLED_SECONDS
        resends.tick(now)
    return now


def test_without_any_answer_a_few_are_sent_again_and_no_more(resends: Resends) -> None:
    places = [resends.confirmed(at(offset)) for offset in range(1000)]

    sent = [resends.due(place, START + SILENCE_SECONDS) for place in places]

    assert sum(sent) == BUDGET


def test_answers_pay_for_one_in_ten(resends: Resends) -> None:
    for offset in range(100):
        resends.due(resends.confirmed(at(offset)), START)
    places = [resends.confirmed(at(offset, partition=1)) for offset in range(100)]

    for _ in range(50):
        resends.answered(None, START)

    assert sum(resends.due(place, START) for place in places) == 1 + 5  # the first costs nothing


def test_all_that_is_lost_is_sent_again_by_a_caller_with_no_other_requests(resends: Resends) -> None:
    """Each second's re-sends are answered, and pay for the next second's."""
    lost = [resends.confirmed(at(offset)) for offset in range(50)]

    now, seconds = START + SILENCE_SECONDS, 0
    while lost:
        sent = [place for place in lost if resends.due(place, now)]
        lost = [place for place in lost if place not in sent]
        assert sent
        delay = 0.3 if seconds % 2 else 0.1  # so some answers are less than a second apart
        for _ in sent:
            resends.answered(None, now + delay)
        now, seconds = now + 1, seconds + 1

    assert seconds <= 41  # ten in the first, and at least one in each other


@pytest.mark.parametrize("latency", [0.005, 0.05, 0.4, 2.0])
@pytest.mark.parametrize(("count", "spread"), [(11, 3.0), (50, 0.5), (50, 3.0), (200, 1.0)])
def test_all_that_is_lost_is_sent_again_whenever_each_request_is_looked_at(
    resends: Resends, count: int, spread: float, latency: float
) -> None:
    """Each is looked at once a second, in a phase of its own, and the answers come in between."""
    look_at = {
        resends.confirmed(at(offset)): START + SILENCE_SECONDS + spread * offset / count
        for offset in range(count)
    }
    answers: list[float] = []
    now = START

    while look_at:
        now += 0.1
        assert now < START + SILENCE_SECONDS + 5 * count
        for answered_at in [each for each in answers if each <= now]:
            resends.answered(None, answered_at)
            answers.remove(answered_at)
        for place in [place for place, look in look_at.items() if look <= now]:
            if resends.due(place, now):
                del look_at[place]
                answers.append(now + latency)
            else:
                look_at[place] = now + RECONSIDER_SECONDS


def test_an_outage_pays_for_nothing_however_long_it_takes(resends: Resends) -> None:
    waiting = [resends.confirmed(at(offset)) for offset in range(100)]

    sent = 0
    for second in range(600):
        now = START + SILENCE_SECONDS + second
        resends.tick(now)
        sent += sum(resends.due(place, now) for place in waiting)

    assert sent == BUDGET


def test_a_request_whose_partition_is_being_answered_waits_for_its_turn(resends: Resends) -> None:
    first, waiting = resends.confirmed(at(0)), resends.confirmed(at(1))
    resends.answered(first, START)

    assert not resends.due(waiting, START + SILENCE_SECONDS / 2)
    assert resends.due(waiting, START + SILENCE_SECONDS)


def test_a_request_that_was_passed_is_sent_again_once_later_answers_have_settled(resends: Resends) -> None:
    lost, later = resends.confirmed(at(0)), resends.confirmed(at(1))
    resends.answered(later, START)
    assert not resends.due(lost, START)

    now = settle(resends, START)
    resends.answered(resends.confirmed(at(2)), now)

    assert resends.due(lost, now)


def test_an_answer_to_one_of_several_copies_passes_nobody(resends: Resends) -> None:
    waiting = resends.confirmed(at(0))
    resends.answered(None, START)
    now = settle(resends, START)
    resends.answered(resends.confirmed(at(0, partition=1)), now)
    resends.answered(None, now)

    assert resends.due(waiting, now)  # for silence alone
    assert not resends.due(resends.confirmed(at(1, partition=1)), now)


def test_requests_of_a_topic_that_was_made_again_are_all_due_at_once(resends: Resends) -> None:
    places = [resends.confirmed(at(offset)) for offset in range(100)]
    settle(resends, START)
    topic = resends.topic

    anew = resends.confirmed(at(0))

    assert resends.topic != topic
    assert all(resends.due(place, START) for place in places)
    assert anew.topic == resends.topic


def test_reports_that_come_out_of_order_are_no_new_topic(resends: Resends) -> None:
    resends.confirmed(at(100))
    resends.tick(START + SETTLED_SECONDS)
    topic = resends.topic

    resends.confirmed(at(99))

    assert resends.topic == topic


def test_on_a_bus_without_positions_requests_count_in_the_order_of_their_confirmations(
    resends: Resends,
) -> None:
    lost, later = resends.confirmed(None), resends.confirmed(None)
    resends.answered(later, START)

    now = settle(resends, START)
    resends.answered(resends.confirmed(None), now)

    assert resends.due(lost, now)
    assert not resends.due(resends.confirmed(None), now)
