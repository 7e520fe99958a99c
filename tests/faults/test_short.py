"""The faults that matter most, in a short form; `make faults` runs all of them in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, update_wrapper

import pytest

from . import faults
from .rig import Rig, Scene

EXACTLY_ONCE = ("--guarantee", "exactly-once")


@pytest.fixture(scope="module")
def rig(kafka_jars_here: None) -> Iterator[Rig]:
    """Three brokers."""
    with Rig() as rig:
        yield rig


def shorter(fault: Callable[..., None], **less: float) -> Callable[[Scene], None]:
    """A fault with smaller numbers, under the same name."""
    return update_wrapper(partial(fault, **less), fault)


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        (shorter(faults.repliers_killed_at_every_point, kills=8), ()),
        (shorter(faults.repliers_killed_at_every_point, kills=6), EXACTLY_ONCE),
        pytest.param(shorter(faults.rebalance_storm, seconds=20), (), marks=pytest.mark.full),
        (faults.replier_frozen_beyond_its_session, ()),
        (shorter(faults.one_partition_of_the_replies_takes_no_writes, answers=300), ()),
        pytest.param(shorter(faults.brokers_killed_in_turn, nodes=2), (), marks=pytest.mark.full),
    ],
)
def test_the_promise_is_kept(rig: Rig, fault: Callable[[Scene], None], options: tuple[str, ...]) -> None:
    verdict = rig.run(fault, options)

    print(verdict)
    assert verdict.problems == []
    assert verdict.lost == 0
    assert verdict.answered == verdict.sent > 0
