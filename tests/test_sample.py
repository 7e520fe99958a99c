"""The shipped sample: what it holds, and that it is what its tool draws."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from imagebus.images import SAMPLE, load_images
from tools import make_sample
from training.data import LABELS, load_data


def test_the_sample_has_a_hundred_labelled_images_of_each_class() -> None:
    sample = load_images()

    assert sample.images.shape == (1000, 28, 28)
    assert sample.truths is not None
    assert Counter(sample.truths) == dict.fromkeys(LABELS, 100)


def test_the_sample_is_small_enough_for_a_checkout() -> None:
    assert SAMPLE.stat().st_size < 600_000


def test_the_first_packages_of_the_sample_show_several_classes() -> None:
    sample = load_images()

    for number in range(20):
        _, truths = sample.package(number, 5)
        assert truths is not None
        assert len(set(truths)) > 1


def test_the_sample_names_its_source_and_carries_its_licence() -> None:
    text = (SAMPLE.parent / "README.md").read_text(encoding="utf-8")

    for needed in (
        "https://github.com/zalandoresearch/fashion-mnist",
        "The MIT License (MIT)",
        "Copyright © 2017 Zalando SE",
        "shall be included in all copies or\n    substantial portions",
    ):
        assert needed in text


def test_the_tool_draws_the_shipped_sample(tmp_path: Path) -> None:
    try:
        load_data()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))

    make_sample.main(sample=tmp_path / "again.npz")

    with np.load(SAMPLE) as shipped, np.load(tmp_path / "again.npz") as drawn:
        assert set(shipped) == set(drawn)
        for name in shipped:
            np.testing.assert_array_equal(shipped[name], drawn[name])
