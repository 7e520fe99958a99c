"""The ten labels of the shipped networks, and which spellings of a label are the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

SHIPPED = (  # Fashion-MNIST's, in the order of its class numbers
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def key(label: str) -> str:
    """The same for all spellings of a label: letters and digits alone, in lower case; a class number is its label."""
    number = _number(label)
    return _plain(label if number is None else SHIPPED[number])


def as_shipped(labels: Sequence[str]) -> tuple[str, ...]:
    """Each label as the shipped networks spell it, where it is one of theirs: `t-shirt_top`, `AnkleBoot`, `bags`.

    A class number, 0 to 9, is one of theirs where there are no other numbers: beside `10` or `2024` it is another's.
    """
    spelt = {label: _spelt(label) for label in set(labels)}
    numbers = {label: _number(label) for label in spelt}
    if not any(label.isdecimal() and numbers[label] is None for label in spelt):
        spelt |= {label: SHIPPED[number] for label, number in numbers.items() if number is not None}
    return tuple(spelt[label] or label for label in labels)


def _spelt(label: str) -> str | None:
    """The shipped label that has this spelling, also with its class number before it, as in `9_Ankle_boot`."""
    if found := _SPELLINGS.get(_plain(label)):
        return found
    numbered = re.fullmatch(r"([0-9]{1,2})(\D.*)", label)
    if (
        numbered
        and (found := _SPELLINGS.get(_plain(numbered[2])))
        and SHIPPED.index(found) == int(numbered[1])
    ):
        return found
    return None


def _number(label: str) -> int | None:
    return int(label) if re.fullmatch(r"0?[0-9]", label) else None


def _plain(label: str) -> str:
    folded = unicodedata.normalize("NFKC", label).casefold()
    return "".join(letter for letter in folded if letter.isalnum()) or label


def _spellings(label: str) -> Iterable[str]:
    for name in (label, label.partition("/")[0]):
        yield from (_plain(name), _plain(name) + "s", _plain(name) + "es")


_SPELLINGS = {spelling: label for label in SHIPPED for spelling in _spellings(label)}
