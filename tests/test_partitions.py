"""What a member of a Kafka group knows of its partitions, without a broker."""

from __future__ import annotations

from imagebus.transports.kafka.partitions import FEW, Partitions, Progress, attempts_in, begun

LIMIT = 128


def partitions(**metadata: str) -> Partitions:
    """Partitions p0, p1 ... with 1,000 records each, and what the group remembers of offset 0 of each."""
    known = Partitions()
    for name, text in metadata.items():
        known.add(int(name[1:]), 0, text, end=1000)
    assert known.have_suspects(LIMIT) == any(metadata.values())
    return known


def records(number: int, *offsets: int) -> list[tuple[int | None, int | None]]:
    return [(number, offset) for offset in offsets]


def test_where_nobody_died_a_whole_batch_goes_together() -> None:
    known = partitions(p0="", p1="")

    received = records(0, *range(100)) + records(1, *range(100))

    assert known.go_together(received, LIMIT) == list(range(LIMIT))


def test_after_one_death_a_few_are_tried_and_after_two_one() -> None:
    received = records(0, *range(LIMIT))

    assert known_places(begun(1), received) == list(range(FEW))
    assert known_places(begun(2), received) == [0]


def known_places(metadata: str, received: list[tuple[int | None, int | None]]) -> list[int]:
    return partitions(p0=metadata).go_together(received, LIMIT)


def test_the_other_partitions_are_not_slowed_down_by_a_suspect() -> None:
    known = partitions(p0=begun(2), p1="")

    received = records(1, *range(100)) + records(0, 0, 1, 2) + records(1, 100, 101)
    first = known.go_together(received, LIMIT)
    left = [record for place, record in enumerate(received) if place not in first]

    assert [received[place] for place in first] == records(1, *range(102))
    assert [left[place] for place in known.go_together(left, LIMIT)] == records(0, 0)


def test_of_suspects_with_one_death_and_with_two_the_latter_are_tried_alone() -> None:
    known = partitions(p0=begun(1), p1=begun(2))

    received = records(0, *range(3)) + records(1, 0) + records(0, 3)

    assert known.go_together(received, LIMIT) == [0, 1, 2]
    assert known.go_together(received[3:], LIMIT) == [0]


def test_what_stands_behind_a_suspect_does_not_overtake_it() -> None:
    known = partitions(p0=begun(2), p1="")
    last_suspect = FEW - 1

    received = records(1, 0) + records(0, last_suspect, FEW, FEW + 1) + records(1, 1)

    assert known.go_together(received, LIMIT) == [0, 4]


def test_an_error_in_place_of_a_record_goes_with_the_others() -> None:
    nowhere: list[tuple[int | None, int | None]] = [(None, None), (5, None)]

    assert partitions(p0=begun(1)).go_together(nowhere, LIMIT) == [0, 1]


def test_all_is_as_usual_once_the_suspects_are_answered() -> None:
    known = partitions(p0=begun(2), p1="")
    receipts = [known.receive(0, offset) for offset in range(FEW)]
    assert [known.attempt(0, offset) for offset in (0, 1, FEW - 1, FEW)] == [3, 3, 3, 1]

    known.mark_answered(receipts, committed=True)

    assert not known.have_suspects(LIMIT)
    assert known.go_together(records(0, *range(FEW, 100)), LIMIT) == list(range(100 - FEW))


def test_who_gives_suspects_back_untried_tells_the_next_one_of_the_deaths() -> None:
    known = partitions(p0=begun(3), p1="")

    assert known.ahead([0, 1], given_back=True) == {}  # the group remembers it as it should be


def test_what_stood_behind_the_first_suspect_does_not_inherit_its_deaths() -> None:
    known = partitions(p0=begun(3))
    first = known.receive(0, 0)
    known.mark_answered([first], committed=True)

    given_back = known.ahead([0], given_back=True)

    assert attempts_in((given_back.get(0) or known.by_number[0].asked or Progress(0, "")).metadata) == 1


def test_what_nobody_died_with_is_given_back_as_in_nobodys_hands() -> None:
    known = partitions(p0=begun(1), p1="")
    known.mark_answered([known.receive(0, offset) for offset in range(LIMIT * 3)], committed=True)

    assert known.ahead([0], given_back=True) == {0: Progress(LIMIT * 3, "")}


def test_a_refused_claim_is_made_again_and_the_start_of_a_new_group_is_left_behind() -> None:
    known = Partitions()
    known.add(0, 5, None, end=9, is_new=True)
    claim = known.unclaimed()

    known.ask(claim)
    known.confirm(0, claim[0], remembered=False)

    assert known.unclaimed() == claim == {0: Progress(5, begun(1))}
    # What retention deletes from there on would not be counted otherwise.
    assert known.ahead([0], given_back=True) == {0: Progress(5, "")}


def test_a_topic_that_was_made_anew_starts_anew() -> None:
    known = partitions(p0="")
    old = [known.receive(0, offset) for offset in range(1000)]
    known.mark_answered(old[:990], committed=False)

    new = [known.receive(0, offset) for offset in range(300)]
    known.mark_answered(old[990:], committed=False)
    known.mark_answered(new, committed=False)

    assert known.by_number[0].answered == 300
