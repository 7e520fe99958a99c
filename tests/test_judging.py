"""Which truths are judged, and by which spelling."""

from __future__ import annotations

import json

import numpy as np
import pytest

import requestor
from imagebus import ImageSet, Outcome, Package, Prediction, Reply, RequestTimeout, load_images
from imagebus.judging import LABELS_ASKED, Judge
from imagebus.labels import SHIPPED, as_shipped
from imagebus.reports import Summary
from imagebus.wire.results import Model
from training.data import LABELS

IMAGE = np.zeros((1, 28, 28), np.uint8)


def outcome(truth: str | None, label: str, *others: str, file: str | None = None) -> Outcome:
    """A package of one image, answered by a model that lists these labels."""
    top = tuple((each, 0.5 ** (place + 1)) for place, each in enumerate((label, *others)))
    package = Package(IMAGE, None if truth is None else (truth,), files=None if file is None else (file,))
    reply = Reply(package.id, "0" * 64, Model("m", "1", "1" * 64), (Prediction(label, 0.5, top),), 0.001)
    return Outcome(package, reply)


def test_the_labels_are_those_that_the_shipped_networks_were_trained_with() -> None:
    assert SHIPPED == LABELS
    assert set(load_images().truths or ()) == set(SHIPPED)


@pytest.mark.parametrize(
    ("spelling", "label"),
    [
        ("T-shirt_top", "T-shirt/top"),
        ("t-shirt-top", "T-shirt/top"),
        ("TShirt", "T-shirt/top"),
        ("tshirts", "T-shirt/top"),
        ("AnkleBoot", "Ankle boot"),
        ("ankle boot", "Ankle boot"),
        ("ankle_boots", "Ankle boot"),
        ("BAG", "Bag"),
        ("dresses", "Dress"),
        ("9_Ankle-boot", "Ankle boot"),
        ("09 ankle boot", "Ankle boot"),
        ("0", "T-shirt/top"),
        ("09", "Ankle boot"),
        ("8_Ankle-boot", "8_Ankle-boot"),
        ("10", "10"),
        ("2024", "2024"),
        ("cat", "cat"),
        ("", ""),
        ("---", "---"),
    ],
)
def test_a_spelling_is_the_label_of_the_shipped_networks_or_stays(spelling: str, label: str) -> None:
    assert as_shipped([spelling, "coats"]) == (label, "Coat")


def test_numbers_are_class_numbers_where_no_other_number_is_beside_them() -> None:
    assert as_shipped(["0", "1", "cat"]) == ("T-shirt/top", "Trouser", "cat")
    assert as_shipped(["0", "10"]) == ("0", "10")
    assert as_shipped(["9", "2024"]) == ("9", "2024")


def test_a_truth_that_the_model_can_give_is_judged() -> None:
    judge = Judge()

    assert judge(outcome("Bag", "Bag", "Coat")) == [True]
    assert judge(outcome("Coat", "Bag", "Coat")) == [False]
    assert judge(outcome("coats", "Coat", "Bag")) == [None]
    assert judge(outcome("coat", "Coat", "Bag")) == [True]


def test_a_truth_that_the_model_cannot_give_is_not_judged() -> None:
    judge = Judge()

    assert judge(outcome("2024", *SHIPPED)) == [None]
    assert Judge()(outcome("Sandal", "Bag", "Coat", "Dress")) == [None]
    assert judge(outcome(None, *SHIPPED)) == [None]


def test_what_a_model_has_shown_once_it_can_give() -> None:
    judge = Judge()
    assert judge(outcome("dog", "cat")) == [None]

    judge(outcome("dog", "dog"))

    assert judge(outcome("dog", "cat")) == [False]


def test_labels_that_differ_in_their_spelling_alone_are_two() -> None:
    assert Judge()(outcome("a", "A", "a")) == [False]


def test_a_network_of_digits_is_judged_by_its_numbers() -> None:
    digits = [str(number) for number in range(10)]
    (truth, _) = as_shipped(["0", "9"])

    assert Judge()(outcome(truth, *digits)) == [True]
    assert Judge()(outcome(truth, *reversed(digits))) == [False]


def test_a_package_without_an_answer_has_no_verdict() -> None:
    assert Judge()(Outcome(Package(IMAGE, ("Bag",)), RequestTimeout("late"))) == []


def test_the_summary_counts_what_was_not_judged_apart_from_the_accuracy() -> None:
    judge, summary = Judge(), Summary(sent=6)
    for truth in ("Bag", "Coat", "cat", "dog", "cow", "\x1b[2J"):
        answer = outcome(truth, *SHIPPED[8:], *SHIPPED[:8])
        summary.add(answer, judge(answer))

    lines = str(summary).splitlines()

    assert lines[1] == "accuracy 50.0% of 2 images"
    assert lines[2] == "not judged 4 images: no reply has the label cat, dog, cow and 1 more"
    assert "\x1b" not in str(summary)


def test_the_text_shows_verdict_and_file_and_keeps_long_names_short() -> None:
    def lines(shown: Outcome) -> str:
        return requestor.as_text(shown, Judge()(shown), 1).splitlines()[1]

    assert (
        lines(outcome("Bag", *SHIPPED[8:], file="bags/x.png"))
        == "  Bag          50.0%  right: Bag  bags/x.png"
    )
    assert lines(outcome("cat", "Bag")) == "  Bag          50.0%  not judged: cat"
    assert lines(outcome(None, "Bag", file="x.png")) == "  Bag          50.0%  x.png"
    long = lines(outcome(None, "Bag", file="folder/" * 20 + "x\n.png"))
    assert long.endswith("/folder/x\\n.png")
    assert "  …" in long
    assert len(long) < 70


def test_json_has_verdicts_and_whole_names_of_files() -> None:
    shown = outcome("Coat", "Bag", "Coat", file="folder/" * 20 + "x.png")

    printed = json.loads(requestor.as_json(shown, Judge()(shown), 1))

    assert printed["correct"] == [False]
    assert printed["files"] == ["folder/" * 20 + "x.png"]
    assert len(printed["predictions"][0]["top"]) == 1


def test_packages_carry_the_files_of_their_images() -> None:
    images = ImageSet(np.zeros((3, 28, 28), np.uint8), files=("a", "b", "c"))

    second = list(requestor.packages_of(images, 2, range(1, 3)))[1]

    assert second.files == ("c", "a")


def test_more_labels_are_asked_for_than_the_shipped_networks_have() -> None:
    assert len(SHIPPED) < LABELS_ASKED
