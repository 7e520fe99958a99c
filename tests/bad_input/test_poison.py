"""The kinds of bad packages that `python -m bench.poison` sends, one at a time."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.poison import DEAD, KINDS, OK, Load, Spoil
from imagebus.wire.pixels import encode_request

from ..fakes import package
from .rig import outcome


@pytest.mark.parametrize(("code", "spoil"), KINDS)
def test_each_kind_has_the_outcome_that_the_run_expects(code: str, spoil: Spoil) -> None:
    came = outcome(spoil(encode_request(package(1, 2, 3, 4, 5), "requests", id="1")))

    assert (came.code, came.answered) == (code, code == OK or code not in DEAD)


def test_one_package_in_twenty_is_bad_and_each_kind_comes_about_as_often() -> None:
    load = Load.draw(20_000, seed=0)

    often = Counter(load.kinds.values())

    assert len(load.kinds) == 1_000
    assert set(often) == set(range(len(KINDS)))
    assert max(often.values()) - min(often.values()) <= 1
    assert load == Load.draw(20_000, seed=0) != Load.draw(20_000, seed=1)
