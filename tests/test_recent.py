"""A request that comes again is answered without the model."""

from __future__ import annotations

import numpy as np
import pytest

from imagebus import recent
from imagebus.answering import Answering
from imagebus.recent import RecentAnswers
from imagebus.wire.envelope import TOP
from imagebus.wire.message import Message
from imagebus.wire.pixels import Images, encode_request
from imagebus.wire.results import ErrorReply, Probabilities, Reply, decode_reply

from .fakes import FirstPixel, package


class FailsOnce(FirstPixel):
    """Fails on its first two calls: a package that fails alone is tried once more."""

    def predict(self, images: Images) -> Probabilities:
        if len(self.batches) < 2:
            self.batches.append(len(images))
            raise RuntimeError("not now")
        return super().predict(images)


def answering(model: FirstPixel) -> Answering:
    return Answering(model, replies="replies", dead_letter_topic="requests.dlt")


def request(id: str, *classes: int, top: int = TOP) -> Message:
    return encode_request(package(*classes), "requests", id=id, top=top)


def predictions(message: Message) -> tuple[str, ...]:
    reply = decode_reply(message)
    assert isinstance(reply, Reply)
    return tuple(prediction.label for prediction in reply.predictions)


def test_copies_in_one_batch_are_one_for_the_model() -> None:
    model = FirstPixel()
    batch = [request("a", 1, 2), request("b", 3), request("a", 1, 2), request("a", 1, 2)]

    outcomes = answering(model).answer(batch)

    assert model.batches == [3]
    assert [predictions(each) for each in outcomes] == [("b", "c"), ("d",), ("b", "c"), ("b", "c")]
    assert [each.header("correlation_id") for each in outcomes] == ["a", "b", "a", "a"]


def test_a_copy_in_a_later_batch_does_not_reach_the_model() -> None:
    model = FirstPixel()
    answer = answering(model).answer

    first = answer([request("a", 1, 2)])
    second = answer([request("b", 5), request("a", 1, 2)])

    assert model.batches == [2, 1]
    assert second[1].value == first[0].value
    assert predictions(second[0]) == ("f",)


def test_a_copy_with_other_headers_gets_what_it_asks_for() -> None:
    model = FirstPixel()
    answer = answering(model).answer

    answer([request("a", 1)])
    (outcome,) = answer([request("a", 1, top=7)])

    reply = decode_reply(outcome)
    assert isinstance(reply, Reply)
    assert len(reply.predictions[0].top) == 7
    assert model.batches == [1]


@pytest.mark.parametrize(
    "other", [request("a", 2), request("b", 1), request("a", 1, 1)], ids=["images", "id", "count"]
)
def test_what_is_no_copy_is_predicted(other: Message) -> None:
    model = FirstPixel()
    answer = answering(model).answer

    answer([request("a", 1)])
    answer([other])

    assert len(model.batches) == 2


def test_the_same_bytes_in_another_shape_are_other_images() -> None:
    model = FirstPixel()
    flat = request("a", 1, 2)
    others = [header for header in flat.headers if header[0] != "shape"]
    one = flat._replace(headers=[*others, ("shape", b"1,28,28")])
    answer = answering(model).answer

    answer([flat])
    refused = decode_reply(answer([one])[0])

    assert isinstance(refused, ErrorReply)


def test_a_failure_is_not_remembered() -> None:
    model = FailsOnce()
    answering_ = answering(model)

    first = decode_reply(answering_.answer([request("a", 1)])[0])
    assert isinstance(first, ErrorReply)
    assert answering_.model_failures == 1
    assert predictions(answering_.answer([request("a", 1)])[0]) == ("b",)
    assert answering_.model_failures == 0


def test_copies_do_not_hide_that_the_model_fails() -> None:
    model = FirstPixel()
    answering_ = answering(model)
    answering_.answer([request("a", 1)])

    answering_.answer([request("b", 255)])
    answering_.answer([request("a", 1)])
    answering_.answer([request("c", 255), request("a", 1)])

    assert answering_.model_failures == 2


@pytest.mark.parametrize(("bound", "value", "labels"), [("REQUESTS", 10, 10), ("BYTES", 40_000, 1000)])
def test_only_so_much_is_remembered(
    monkeypatch: pytest.MonkeyPatch, bound: str, value: int, labels: int
) -> None:
    monkeypatch.setattr(recent, bound, value)
    answers = RecentAnswers()

    for number in range(100):
        answers.keep({str(number): np.zeros((1, labels), np.float32)})

    kept = answers.find(map(str, range(100)))
    assert 10 <= len(kept) <= 20
    assert "99" in kept
