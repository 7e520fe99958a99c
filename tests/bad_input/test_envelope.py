"""Envelope, identity, hash and headers: what is wrong before any pixel is looked at."""

from __future__ import annotations

import hashlib
import time

import pytest

from imagebus.answering import Answering
from imagebus.errors import BadMessage
from imagebus.metrics import Metrics
from imagebus.wire.dead_letters import DEAD_LETTER_BYTES, DEAD_LETTER_CUT
from imagebus.wire.message import MAX_BYTES, MAX_HEADERS, Message
from imagebus.wire.replies import encode_error, encode_reply

from ..fakes import LABELS, FirstPixel, envelope_of, package
from .rig import (
    CANARY,
    IMAGE,
    PNG,
    RAW,
    V2,
    frugally,
    message,
    outcome,
    refused,
    request,
    served,
    set_aside,
    v2,
)

BUS_TAKES = 1_000_000  # bytes with key and headers: librdkafka's default limit of one message


# --- envelope ----------------------------------------------------------------------------------


def test_a_request_without_a_value_is_empty() -> None:
    assert refused(request(b"")) == "EMPTY"  # what a null value becomes, too


def test_one_without_value_and_id_is_a_dead_letter() -> None:
    assert set_aside(message(b"")) == "NO_ID"


@pytest.mark.parametrize("content_type", [RAW, PNG, V2])
def test_a_value_over_the_limit_is_too_large_whatever_it_is(content_type: str) -> None:
    assert frugally(refused, request(bytes(MAX_BYTES + 1), content_type=content_type)) == "TOO_LARGE"


def test_a_value_over_the_limit_is_not_decoded_to_find_an_id_in_it() -> None:
    body = v2([0] * 784, id="1").ljust(MAX_BYTES + 1)

    assert frugally(set_aside, request(body, id=None, content_type=V2)) == "TOO_LARGE"


@pytest.mark.parametrize(
    "content_type",
    [
        "image/gif",
        "image/jpg",
        "text/plain",
        "application/json2",
        f"{RAW},{PNG}",
        ";",
        f"; {RAW}",
        "\0",
        "é",
        CANARY,
        b"\xff\xfe",
        f"{CANARY}/{'x' * 10_000}",
    ],
)
def test_an_unknown_content_type_is_none_of_ours(content_type: str | bytes) -> None:
    assert refused(request(content_type=content_type)) == "FORMAT"


@pytest.mark.parametrize(
    "content_type",
    [RAW, RAW.upper(), f" {RAW} ", f"{RAW};x=y", f"{RAW}; charset=utf-8; q={'x' * 10_000}", "", None],
)
def test_a_content_type_may_have_parameters_and_any_case(content_type: str | None) -> None:
    assert served(request(content_type=content_type))


def test_a_reply_put_among_the_requests_is_of_the_wrong_type() -> None:
    model = FirstPixel()
    for content_type in (RAW, V2):
        envelope = envelope_of(request(content_type=content_type))
        answer = encode_reply(envelope, "requests", model.model, LABELS, model.predict(package(1)))
        error = encode_error(envelope, "requests", BadMessage("SHAPE", "text"))

        assert refused(answer) == "WRONG_TYPE"
        assert refused(error) == "WRONG_TYPE"


def test_an_error_for_a_reply_put_among_the_requests_does_not_pass_for_its_request_s() -> None:
    model = FirstPixel()
    asked = request()
    answer = encode_reply(envelope_of(asked), "requests", model.model, LABELS, model.predict(package(1)))

    error = outcome(answer).message

    assert error.header("correlation_id") == "1"
    assert error.header("sha256") != envelope_of(asked).sha256


def test_what_is_late_is_not_served() -> None:
    assert refused(request(deadline=str(round(time.time() * 1000) - 1))) == "EXPIRED"
    assert refused(request(deadline="0")) == "EXPIRED"


@pytest.mark.parametrize("deadline", ["", "-1", "soon", "1e3", "9" * 5_000, "٣", b"\xff", None])
def test_a_deadline_that_is_none_is_no_deadline(deadline: str | bytes | None) -> None:
    assert served(request(deadline=deadline))


@pytest.mark.parametrize("top", ["0", "-1", "2.5", "9" * 18, "9" * 5_000, "²", b"\xff", None])
def test_a_wrong_number_of_labels_is_bounded(top: str | bytes | None) -> None:
    came = outcome(request(top=top))

    assert came.code == "ok"
    assert len(came.message.value) < 1000


# --- identity ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nameless",
    [
        message(IMAGE),
        message(IMAGE, [("correlation_id", None)]),
        message(IMAGE, key=b""),
        message(IMAGE, [("Correlation_ID", "1"), ("correlation-id", "1"), (" correlation_id", "1")]),
        message(b"{}", [("content-type", V2)]),
        message(b'{"id": 7}', [("content-type", V2)]),
        message(b'{"id": null}', [("content-type", V2)]),
        message(b'{"id": ["1"]}', [("content-type", V2)]),
        message(b'{"id": {"id": "1"}}', [("content-type", V2)]),
        message(b'{"id": "\\ud800"}', [("content-type", V2)]),
        message(b'["id", "1"]', [("content-type", V2)]),
        message(b'"id"', [("content-type", V2)]),
        message(b'{"id": "1"', [("content-type", V2)]),
        message(b'{"a":' * 100_000, [("content-type", V2)]),
        message(b'{"id": "1"}', [("content-type", PNG)]),
    ],
)
def test_without_an_id_anywhere_it_is_a_dead_letter(nameless: Message) -> None:
    assert set_aside(nameless) in ("NO_ID", "TOO_LARGE")


BAD_IDS = [
    "",
    " ",
    "x" * 65,
    "x" * 10_000,
    "a\nb",
    "a\n",
    "\r\n",
    "a\0b",
    "\x1b[2J",
    "../x",
    "a/b",
    "a b",
    "é",
    "\uff11",
    "a\u200bb",
    "\ufeff1",
    "%s",
    "{0}",
    "$(id)",
    CANARY + "!",
    b"\xff\xfe",
    bytes(range(16)),
]


@pytest.mark.parametrize("id", BAD_IDS)
def test_a_bad_id_in_the_header_is_a_dead_letter(id: str | bytes) -> None:
    assert set_aside(request(id=id)) == "BAD_ID"


@pytest.mark.parametrize("id", BAD_IDS[1:])
def test_a_bad_id_as_key_is_a_dead_letter(id: str | bytes) -> None:
    assert set_aside(message(IMAGE, key=id.encode() if isinstance(id, str) else id)) == "BAD_ID"


@pytest.mark.parametrize("id", [id for id in BAD_IDS if isinstance(id, str)])
def test_a_bad_id_in_the_body_is_a_dead_letter(id: str) -> None:
    assert set_aside(request(v2([0] * 784, id=id), id=None, content_type=V2)) == "BAD_ID"


def test_a_bad_id_is_not_made_good_by_another_place() -> None:
    assert set_aside(message(IMAGE, [("correlation_id", "../x")], key=b"1")) == "BAD_ID"
    assert set_aside(message(IMAGE, [("correlation_id", "../x"), ("correlation_id", "1")])) == "BAD_ID"


@pytest.mark.parametrize("id", ["1", ".", "..", "-", "A.b_c-9", "x" * 64])
def test_a_good_id_is_of_letters_digits_and_three_marks(id: str) -> None:
    assert served(request(id=id))


def test_of_two_ids_the_first_counts() -> None:
    came = outcome(
        message(IMAGE, [("correlation_id", None), ("correlation_id", "a"), ("correlation_id", "b")])
    )

    assert came.message.header("correlation_id") == "a"


# --- hash --------------------------------------------------------------------------------------


def test_a_missing_hash_is_accepted_or_refused_by_option() -> None:
    assert served(request())
    assert served(request(sha256=None))
    assert refused(request(), require_hash=True) == "NO_HASH"
    assert refused(request(sha256=None), require_hash=True) == "NO_HASH"


def test_upper_case_is_accepted() -> None:
    digest = hashlib.sha256(IMAGE).hexdigest()

    assert served(request(sha256=digest), require_hash=True)
    assert served(request(sha256=digest.upper()), require_hash=True)


@pytest.mark.parametrize(
    "sha256",
    [
        "0" * 64,
        "",
        hashlib.sha256(IMAGE).hexdigest()[:-1],
        hashlib.sha256(IMAGE).hexdigest() + "0",
        hashlib.sha256(IMAGE).hexdigest() + "\0",
        f"sha256:{hashlib.sha256(IMAGE).hexdigest()}",
        hashlib.sha256(IMAGE).digest(),
        hashlib.md5(IMAGE).hexdigest(),
        "é" * 32,
        CANARY,
        b"\xff" * 64,
        "0" * 1_000_000,
    ],
)
def test_a_wrong_hash_is_a_mismatch(sha256: str | bytes) -> None:
    assert refused(request(sha256=sha256)) == "HASH_MISMATCH"


@pytest.mark.parametrize("content_type", [RAW, PNG, V2, "image/gif"])
def test_a_wrong_hash_comes_before_what_is_wrong_inside(content_type: str) -> None:
    assert refused(request(b"garbage", content_type=content_type, sha256="0" * 64)) == "HASH_MISMATCH"


def test_a_body_with_a_wrong_hash_is_not_decoded_to_find_an_id_in_it() -> None:
    assert (
        set_aside(request(v2([0] * 784, id="1"), id=None, content_type=V2, sha256="0" * 64))
        == "HASH_MISMATCH"
    )


# --- headers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply_to",
    [
        "__consumer_offsets",
        "__transaction_state",
        "requests",
        "requests.dlt",
        "elsewhere",
        "replies ",
        "Replies",
        "replies\0",
        "replies,elsewhere",
        "",
        "../replies",
        CANARY,
        b"\xff",
        "r" * 1_000_000,
    ],
)
def test_a_return_address_outside_the_allow_list_is_refused_at_the_default_one(reply_to: str | bytes) -> None:
    assert refused(request(reply_to=reply_to)) == "REPLY_TO"


def test_the_default_return_address_may_be_named() -> None:
    assert served(request(reply_to="replies"))
    assert served(request(reply_to=None))


@pytest.mark.parametrize("name", ["sha256", "shape", "dtype", "content-type", "reply_to", "deadline", "top"])
def test_a_header_without_a_value_is_none(name: str) -> None:
    assert served(message(IMAGE, [("correlation_id", "1"), (name, None)]))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("correlation_id", "BAD_ID"),
        ("sha256", "HASH_MISMATCH"),
        ("shape", "SHAPE"),
        ("dtype", "DTYPE"),
        ("content-type", "FORMAT"),
        ("reply_to", "REPLY_TO"),
        ("deadline", "ok"),
        ("top", "ok"),
        ("traceparent", "ok"),
    ],
)
@pytest.mark.parametrize("text", [b"\xff", b"\xc3\x28", b"x" * 1_000_000])
def test_a_header_that_cannot_be_read_is_not_taken_for_one_that_is_absent(
    name: str, code: str, text: bytes
) -> None:
    came = outcome(message(IMAGE, [(name, text), ("correlation_id", "1")], key=b"1"))

    assert came.code == code


@pytest.mark.parametrize(
    ("name", "first", "second", "code"),
    [
        ("sha256", "0" * 64, hashlib.sha256(IMAGE).hexdigest(), "HASH_MISMATCH"),
        ("shape", "2,28,28", "1,28,28", "SHAPE"),
        ("reply_to", "requests", "replies", "REPLY_TO"),
        ("shape", "1,28,28", "2,28,28", "ok"),
        ("reply_to", "replies", "requests", "ok"),
        ("content-type", PNG, RAW, "BAD_IMAGE"),
    ],
)
def test_of_two_headers_of_a_name_the_first_counts(name: str, first: str, second: str, code: str) -> None:
    sent = message(IMAGE, [("correlation_id", "1"), (name, first), (name, second)])

    assert outcome(sent).code == code


def test_ten_thousand_headers_are_served_and_not_looked_at() -> None:
    crowd = [(f"x-{number}", CANARY) for number in range(10_000)]

    came = outcome(message(IMAGE, [("correlation_id", "1"), *crowd]))

    assert came.code == "ok"
    assert len(came.message.headers) < 10


def test_a_header_behind_too_many_others_is_not_seen() -> None:
    crowd = [("x", "")] * MAX_HEADERS

    assert set_aside(message(IMAGE, [*crowd, ("correlation_id", "1")])) == "NO_ID"


def size(came: Message) -> int:
    headers = sum(len(name.encode()) + len(text or b"") + 8 for name, text in came.headers)
    return len(came.value) + len(came.key or b"") + headers


@pytest.mark.parametrize(
    "unanswerable",
    [
        message(bytes(BUS_TAKES)),
        message(b"x", [(f"x-{number}", "y" * 1000) for number in range(10_000)]),
        message(b"x", [(f"x-{number}" * 1000, "y") for number in range(100)]),
        message(b"x", [("x", "y" * 1_000_000)]),
        message(b"x", [("x" * 1_000_000, "y")]),
        message(b"x", key=b"/" * 1_000_000),
        message(bytes(DEAD_LETTER_BYTES), [("x" * 600, "y" * 10_000)] * 100, b"/" * 100_000),
    ],
)
def test_a_dead_letter_fits_the_bus_and_says_that_it_was_cut(unanswerable: Message) -> None:
    came = outcome(unanswerable)

    assert not came.answered
    assert size(came.message) < BUS_TAKES
    assert came.message.header(DEAD_LETTER_CUT) == str(len(unanswerable.value))


def test_a_dead_letter_that_was_not_cut_is_whole() -> None:
    sent = message(bytes(DEAD_LETTER_BYTES), [("a", b"\xff" * 1024), ("b", None), ("a", "")], b"/" * 1024)

    came = outcome(sent).message

    assert (came.value, came.key) == (sent.value, sent.key)
    assert [header for header in came.headers if header in sent.headers] == sent.headers
    assert came.header(DEAD_LETTER_CUT) is None


def test_a_sender_cannot_write_the_reason_of_a_dead_letter() -> None:
    sent = message(
        b"x", [("dead_letter_code", "KILLER"), ("dead_letter_cut", "0"), ("dead_letter_rounds", "x")]
    )

    came = outcome(sent).message

    assert came.header("dead_letter_code") == "NO_ID"
    assert [text for name, text in came.headers if name == "dead_letter_code"] == [b"NO_ID"]
    assert came.header(DEAD_LETTER_CUT) is None


def test_a_reply_does_not_carry_a_key_that_the_bus_would_refuse() -> None:
    came = outcome(message(IMAGE, [("correlation_id", "1")], b"k" * (BUS_TAKES - 1000)))

    assert came.code == "ok"
    assert came.message.key == b"1"
    assert size(came.message) < 2000


@pytest.mark.parametrize("traceparent", ["\x1b[2J", "00-\n", b"\xff", "0" * 1000, CANARY])
def test_a_trace_context_that_is_none_is_not_passed_on(traceparent: str | bytes) -> None:
    assert outcome(request(traceparent=traceparent)).message.header("traceparent") is None


# --- all of it together ------------------------------------------------------------------------


def test_bad_and_good_requests_in_one_batch_have_an_outcome_each_in_their_places() -> None:
    metrics = Metrics()
    answering = Answering(FirstPixel(), replies="replies", dead_letter_topic="dlt", observers=[metrics])
    batch = [
        request(),
        message(b""),
        request(b"x", shape="1,28,28"),
        request(id="../x"),
        request(bytes([255]) * 784),
        request(content_type="image/gif"),
        request(id="last"),
    ]

    outcomes = answering.answer(batch)

    assert [(each.topic, each.header("status")) for each in outcomes] == [
        ("replies", "ok"),
        ("dlt", None),
        ("replies", "error"),
        ("dlt", None),
        ("replies", "error"),
        ("replies", "error"),
        ("replies", "ok"),
    ]
    assert metrics.errors == {"SHAPE": 1, "MODEL": 1, "FORMAT": 1}
    assert metrics.dead_letters == {"NO_ID": 1, "BAD_ID": 1}
