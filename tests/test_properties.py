"""What is true of whatever comes: hypothesis makes it up. tests/bad_input/ has the named cases."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz import decode_reply, decode_request
from imagebus.answering import Answering
from imagebus.errors import BadMessage, ConfigError, ErrorCode
from imagebus.open_packages import OpenPackages, Package
from imagebus.transports.kafka.config import read_settings
from imagebus.wire.envelope import sha256_hex
from imagebus.wire.message import Message
from imagebus.wire.pixels import FASHION, encode_request
from imagebus.wire.replies import encode_error, encode_reply
from imagebus.wire.requests import read_request
from imagebus.wire.results import ErrorReply, Model, Reply
from imagebus.wire.results import decode_reply as read_reply

from .fakes import FirstPixel, envelope_of

ids = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=64)
shown = st.text(max_size=30).filter(str.isprintable)
seeds = st.integers(0, 2**32 - 1)

# --- records -----------------------------------------------------------------------------------

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
numbers = st.integers(-1, 256) | st.floats(-1, 256)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("images"),
        "shape": json_values | st.sampled_from([[1, 28, 28], [2, 784], [1, 28, 28, 1], [0, 28, 28]]),
        "datatype": json_values | st.sampled_from(["UINT8", "FP32", "BYTES"]),
        "data": json_values
        | st.lists(numbers, min_size=1, max_size=3).map(lambda some: (some * 784)[:784])
        | st.just([[[0] * 28] * 28]),
    },
)
v2_bodies = st.fixed_dictionaries(
    {}, optional={"id": ids | json_values, "inputs": st.lists(tensors, max_size=2) | json_values}
).map(orjson.dumps)
values = (
    st.binary(max_size=2000)
    | st.integers(0, 3).map(lambda count: bytes(784 * count))
    | v2_bodies
    | json_values.map(lambda value: orjson.dumps(value))
    | st.binary(max_size=300).map(lambda rest: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + rest)
    | st.binary(max_size=300).map(lambda rest: b"\xff\xd8\xff" + rest)
)
known_headers = {
    "correlation_id": ids.map(str.encode),
    "sha256": st.sampled_from([sha256_hex(bytes(784)).encode(), b"0" * 64]),
    "content-type": st.sampled_from(
        [b"application/octet-stream", b"image/png", b"image/jpeg", b"application/json", b"text/plain"]
    ),
    "shape": st.sampled_from([b"1,28,28", b"2,784", b"0,28,28", b"-1,28,28", b"99999999999999999999,28,28"]),
    "dtype": st.sampled_from([b"uint8", b"float32"]),
    "reply_to": st.sampled_from([b"replies", b"requests", b"__consumer_offsets"]),
    "deadline": st.sampled_from([b"1", b"9" * 18, b"soon"]),
    "top": st.sampled_from([b"0", b"2", b"9" * 18]),
    "status": st.sampled_from([b"ok", b"error"]),
    "traceparent": st.just(b"00-00-00-00"),
}
texts = st.none() | st.binary(max_size=100) | st.sampled_from([b"x" * 2000, b"\xff"])
headers = st.lists(
    st.one_of(
        *(st.tuples(st.just(name), likely | texts) for name, likely in known_headers.items()),
        st.tuples(st.text(max_size=20), texts),
    ),
    max_size=12,
)
keys = st.none() | ids.map(str.encode) | st.binary(max_size=100)
messages = st.builds(
    lambda value, key, headers: Message("requests", value, key, headers), values, keys, headers
)


@given(messages)
@example(Message("requests", b""))
@example(Message("requests", b"[" * 5000, b"1", [("content-type", b"application/json")]))
def test_any_record_has_one_outcome_of_the_right_kind(message: Message) -> None:
    decode_request.check(message)


@given(st.lists(messages, min_size=2, max_size=8))
def test_records_of_a_batch_have_the_outcomes_that_they_have_alone(batch: list[Message]) -> None:
    def answering() -> Answering:
        return Answering(FirstPixel(), replies="replies", dead_letter_topic="dlt")

    together = answering().answer(batch)
    alone = [outcome for message in batch for outcome in answering().answer([message])]

    assert timeless(together) == timeless(alone)


def timeless(messages: list[Message]) -> list[Message]:
    """The same without the time of the answer, which one that came too late tells."""
    return [
        message._replace(
            value=re.sub(rb"passed [0-9.]+ s before", b"passed before", message.value),
            headers=[(name, value) for name, value in message.headers if name != "replier_time"],
        )
        for message in messages
    ]


@given(
    seed=seeds,
    count=st.integers(1, 20),
    id=st.none() | ids,
    reply_to=st.none() | st.just("replies"),
    deadline=st.none() | st.integers(10**15, 10**18 - 1),
    top=st.integers(1, 1000),
)
def test_a_request_comes_back_as_it_was_made(
    seed: int, count: int, id: str | None, reply_to: str | None, deadline: int | None, top: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)

    message = encode_request(images, "requests", id=id, reply_to=reply_to, deadline=deadline, top=top)
    envelope, read_back = read_request(message, FASHION, reply_topics=["replies"], require_hash=True)

    np.testing.assert_array_equal(read_back, images)
    assert (envelope.reply_to, envelope.deadline, envelope.top) == (reply_to, deadline, top)
    assert id in (None, envelope.id)


# --- replies -----------------------------------------------------------------------------------


def asked(id: str, top: int = 3) -> Message:
    return encode_request(np.zeros((1, 28, 28), np.uint8), "requests", id=id, top=top)


@given(
    id=ids,
    seed=seeds,
    count=st.integers(1, 20),
    labels=st.lists(shown, min_size=1, max_size=12, unique=True),
    names=st.tuples(shown, shown, shown),
    top=st.integers(1, 12),
)
def test_a_reply_comes_back_as_it_was_predicted(
    id: str, seed: int, count: int, labels: list[str], names: tuple[str, str, str], top: int
) -> None:
    envelope = envelope_of(asked(id, top))
    probabilities = np.random.default_rng(seed).dirichlet([1.0] * len(labels), count).astype(np.float32)

    reply = read_reply(encode_reply(envelope, "replies", Model(*names), labels, probabilities))

    assert isinstance(reply, Reply)
    assert (reply.id, reply.sha256, reply.model) == (id, envelope.sha256, Model(*names))
    likely = [labels[index] for index in probabilities.argmax(axis=1)]
    assert [prediction.label for prediction in reply.predictions] == likely
    for row, prediction in zip(probabilities.tolist(), reply.predictions, strict=True):
        assert len(prediction.top) == min(top, len(labels))
        assert all(abs(row[labels.index(label)] - p) < 1e-4 for label, p in prediction.top)


@given(id=ids, code=st.sampled_from(list(ErrorCode)), text=shown, retryable=st.booleans())
def test_an_error_reply_comes_back_as_it_was_made(
    id: str, code: ErrorCode, text: str, retryable: bool
) -> None:
    envelope = envelope_of(asked(id))

    reply = read_reply(encode_error(envelope, "replies", BadMessage(code, text), retryable=retryable))

    assert reply == ErrorReply(id, envelope.sha256, code, text, retryable)


replies = st.fixed_dictionaries(
    {"id": ids | json_values, "sha256": st.just("0" * 64) | json_values},
    optional={
        "error": json_values
        | st.fixed_dictionaries(
            {"code": shown | json_values, "message": shown | json_values, "retryable": json_values}
        ),
        "model": json_values
        | st.fixed_dictionaries({"name": shown, "version": shown, "sha256": shown | json_values}),
        "predictions": json_values
        | st.lists(
            st.fixed_dictionaries(
                {
                    "label": shown | json_values,
                    "probability": st.floats(0, 1) | json_values,
                    "top": json_values | st.lists(st.tuples(shown, st.floats(0, 1)), max_size=3),
                }
            ),
            max_size=3,
        ),
    },
)


@given(
    st.binary() | json_values.map(lambda value: orjson.dumps(value)) | replies.map(lambda r: orjson.dumps(r))
)
def test_any_reply_is_read_or_refused_as_malformed(value: bytes) -> None:
    decode_reply.check(value)


# --- files -------------------------------------------------------------------------------------

KEYS = [
    "bootstrap.servers",
    "sasl.password",
    "sasl.username",
    "acks",
    "group.id",
    "isolation.level",
    "ssl.key.pem",
]
SECRET = "Canary7"  # with an upper-case letter, so that no key has it
anything_but_a_line_end = st.text(
    st.characters(
        exclude_categories=["Cs"], exclude_characters="=$#{" + "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    ),
    max_size=20,
)


@contextmanager
def written(content: bytes) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "left.open"
        path.write_bytes(content)
        path.chmod(0o600)
        yield path


def read_as_config(content: bytes) -> str:
    """What the reader says, or how it shows what it read; it raises nothing else."""
    with written(content) as path:
        try:
            said = repr(read_settings(path))
        except ConfigError as refused:
            said = str(refused)
    assert "\n" not in said
    return said


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_file_is_a_config_or_a_config_error(content: bytes) -> None:
    read_as_config(content)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KEYS) | anything_but_a_line_end,
            st.sampled_from(["=", " = ", "==", ":", " ", "\t"]),
            anything_but_a_line_end,
            anything_but_a_line_end,
        ),
        max_size=6,
    )
)
def test_no_value_of_a_config_file_is_shown(lines: list[tuple[str, str, str, str]]) -> None:
    text = "".join(f"{key}{between}{before}{SECRET}{after}\n" for key, between, before, after in lines)

    said = read_as_config(text.encode())

    assert SECRET not in said


open_packages = st.builds(
    lambda id, number, seed, count, labels: Package(
        np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8),
        None if labels is None else tuple(labels[0] for _ in range(count)),
        number,
        id,
    ),
    ids,
    st.integers(1, 10**12),
    seeds,
    st.integers(1, 5),
    st.none() | st.lists(st.text(max_size=10), min_size=1, max_size=1),
)


@given(open_packages)
def test_an_open_package_comes_back_as_it_was_left(package: Package) -> None:
    with TemporaryDirectory() as folder:
        packages = OpenPackages(folder)
        packages.add(package)

        (left,) = packages.load()
        packages.remove(package.id)

        assert (left.id, left.number, left.truths) == (package.id, package.number, package.truths)
        np.testing.assert_array_equal(left.images, package.images)
        assert packages.load() == []
        packages.close()


abouts = st.fixed_dictionaries(
    {},
    optional={
        "id": ids | json_values,
        "number": st.integers().filter(lambda number: abs(number) < 2**63) | json_values,
        "truths": st.lists(st.text(max_size=5), max_size=3) | json_values,
    },
)


@given(
    st.binary(max_size=100)
    | st.builds(
        lambda about, count, rest: orjson.dumps(about) + b"\n" + bytes(784 * count) + rest,
        abouts,
        st.integers(0, 3),
        st.sampled_from([b"", b"\0"]),
    )
)
def test_any_file_of_a_state_folder_is_a_package_or_a_config_error(content: bytes) -> None:
    with written(content) as path:
        packages = OpenPackages(path.parent)
        problem = ""
        left: list[Package] = []
        try:
            left = packages.load()
        except ConfigError as refused:
            problem = str(refused)
        packages.close()

    assert len(left) == (0 if problem or not content else 1)
    assert not problem or str(path) in problem
    assert all(len(package.truths or package.images) == len(package.images) for package in left)
