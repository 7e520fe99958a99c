"""Which predictions are correct, of images whose true label is known and is one of the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagebus.errors import ImageBusError
from imagebus.labels import key

if TYPE_CHECKING:
    from imagebus.streaming import Outcome

Verdict = bool | None  # None: the truth is not known, or is no label of the model

# A requestor with truths asks for so many labels, if the model has them: a model of fewer lists all it has. With the
# largest package, and labels as long as Fashion-MNIST's, the reply stays below Kafka's default limit of 1 MB.
LABELS_ASKED = 25


class Judge:
    """Compares truths with predictions, by the labels that the model has shown in its replies.

    A truth that is none of them, as far as they are known, is not judged: the model cannot give it, so another
    answer is no mistake of the model's. Spellings of one label are the same (`imagebus.labels.key`).
    """

    def __init__(self) -> None:
        self._labels: dict[str, set[str]] = {}  # by the digest of a model, exactly as it spells them
        self._keys: dict[str, set[str]] = {}

    def __call__(self, outcome: Outcome) -> list[Verdict]:
        """A verdict for each image of a package; none for a package without an answer."""
        result, truths = outcome.result, outcome.package.truths
        if isinstance(result, ImageBusError):
            return []
        if truths is None:
            return [None] * len(result.predictions)
        labels = self._labels.setdefault(result.model.sha256, set())
        keys = self._keys.setdefault(result.model.sha256, set())
        new = {label for prediction in result.predictions for label, _ in prediction.top} - labels
        labels |= new
        keys |= set(map(key, new))
        return [
            prediction.label == truth
            if truth in labels
            else key(prediction.label) == key(truth)
            if key(truth) in keys
            else None
            for prediction, truth in zip(result.predictions, truths, strict=True)
        ]
