"""Write the first files of the corpus: python3 -m fuzz.seeds

One file for each kind of request and reply, and for mistakes that are one step from many others.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from fuzz.decode_request import AlwaysTheFirst
from imagebus.errors import BadMessage
from imagebus.wire import openinference
from imagebus.wire.envelope import JPEG, PNG, V2_JSON
from imagebus.wire.pixels import encode_request
from imagebus.wire.replies import encode_error, encode_reply
from imagebus.wire.requests import read_request

CORPUS = Path(__file__).resolve().parent / "corpus"


def main() -> None:
    for target, seeds in (("decode_request", requests()), ("decode_reply", replies())):
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds:
            (folder / name).write_bytes(content)


def requests() -> Iterator[tuple[str, bytes]]:
    """Requests as `fuzz.decode_request` reads them."""
    blank = bytes(784)
    yield "raw", record(blank, "sha256: right", "shape: 1,28,28", "dtype: uint8")
    yield "raw-784", record(blank, "shape: 1,784", "top: 2")
    yield "raw-without-headers", b"key: 1\n\n" + blank
    yield "raw-short", record(blank[1:], "shape: 1,28,28")
    yield "raw-shape-without-value", record(blank, "shape")
    yield "hash-wrong", record(b"x", "sha256: 00")
    yield "empty", record(b"")
    yield "no-id", b"\n\nx"
    yield "bad-id", b"correlation_id: ../x\n\nx"
    yield "reply-to", record(b"x", "reply_to: requests")
    yield "a-reply", record(b"x", "status: ok")
    yield "late", record(b"x", "deadline: 1")
    yield "format", record(b"x", "content-type: image/gif")

    def tensor(data: object, shape: object = (1, 28, 28), datatype: str = "UINT8") -> bytes:
        inputs = [{"name": "i", "shape": shape, "datatype": datatype, "data": data}]
        return json.dumps({"id": "1", "inputs": inputs}, separators=(",", ":")).encode()

    v2 = f"content-type: {V2_JSON}; charset=utf-8"
    yield "v2-flat", record(tensor([0] * 784), v2)
    yield "v2-nested", record(tensor([[[0.5] * 28] * 28], datatype="FP32"), v2)
    yield "v2-id-in-body", f"{v2}\n\n".encode() + tensor([0])
    yield "v2-texts", record(tensor(["0", None, True, {}]), v2)
    yield "v2-twice", record(tensor([0] * 784).replace(b'"name"', b'"data":0,"name"'), v2)
    yield "v2-escaped", record(tensor([0] * 784).replace(b"data", b"d\\u0061ta"), v2)

    noise = np.random.default_rng(0).integers(0, 256, (6, 7, 4), np.uint8)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = Image.fromarray(noise).convert(mode)
        yield f"png-{mode}", record(encoded(image, "PNG"), f"content-type: {PNG}", "mend-crc")
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) << 8)
    yield "png-16-bit", record(encoded(deep, "PNG"), f"content-type: {PNG}", "mend-crc")
    about = PngImagePlugin.PngInfo()
    about.add_text("a", "b" * 100, zip=True)
    about.add_itxt("c", "d", zip=True)
    decorated = io.BytesIO()
    palette = Image.fromarray(noise).convert("P")
    palette.save(decorated, "PNG", pnginfo=about, transparency=0, dpi=(72, 72), icc_profile=b"profile")
    yield "png-decorated", record(decorated.getvalue(), f"content-type: {PNG}", "mend-crc")
    moving = io.BytesIO()
    frames = [Image.fromarray(noise), Image.fromarray(noise[::-1])]
    frames[0].save(moving, "PNG", save_all=True, append_images=frames[1:])
    yield "png-animated", record(moving.getvalue(), f"content-type: {PNG}", "mend-crc")
    for mode in ("L", "RGB", "CMYK"):
        image = Image.fromarray(noise).convert(mode)
        yield f"jpeg-{mode}", record(encoded(image, "JPEG"), f"content-type: {JPEG}")
    progressive = io.BytesIO()
    Image.fromarray(noise).convert("RGB").save(progressive, "JPEG", progressive=True, quality=20)
    yield "jpeg-progressive", record(progressive.getvalue(), f"content-type: {JPEG}")


def replies() -> Iterator[tuple[str, bytes]]:
    """The values of replies."""
    classifier = AlwaysTheFirst()
    images = np.zeros((2, 28, 28), np.uint8)
    request = encode_request(images, "requests", id="1")
    own = read_request(request, classifier.spec, reply_topics=()).envelope
    v2 = own._replace(dialect=openinference.NAME)
    answer = classifier.predict(images)
    for name, envelope in (("own", own), ("v2", v2)):
        reply = encode_reply(envelope, "replies", classifier.model, classifier.labels, answer)
        yield f"{name}-ok", reply.value
        yield f"{name}-error", encode_error(envelope, "replies", BadMessage("SHAPE", "text")).value
    reply = encode_reply(own, "replies", classifier.model, classifier.labels, answer)
    yield "label-escaped", reply.value.replace(b'"a"', b'"\\u001b[2J"')
    yield "probability-above-one", reply.value.replace(b"1.0", b"1e9")
    yield "id-number", reply.value.replace(b'"id":"1"', b'"id":1')
    yield "cut-off", reply.value[:-1]
    yield "nothing", b""
    yield "list", b"[]"


def record(value: bytes, *headers: str) -> bytes:
    """A record with an id, as `fuzz.decode_request` reads it."""
    return "\n".join(["correlation_id: 1", *headers]).encode() + b"\n\n" + value


def encoded(image: Image.Image, format: str) -> bytes:
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
