"""How many images a second the saved networks classify, beside a plain network of two convolutions.

    python3 -m training.speed     # on a quiet machine; writes models/speed.json and the cards

All are timed in turns, so that a slower moment of the machine meets each of them. The file keeps the last run on each
kind of machine, the newest first.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read on import; else a thread of it starts

import numpy as np
import onnxruntime as ort

from training.card import MODELS, SPEED
from training.card import main as write_cards
from training.vocabulary import SIZES, Images, file_name

YARDSTICK = "two convolutions"  # what a first lesson on images builds
TWO_CONVOLUTIONS = """
<ir_version: 8, opset_import: ["": 17]>
two_convolutions (uint8[N, 28, 28] images) => (float[N, 10] probabilities) {
    scale = Constant<value_float = 0.00392156862>()
    axis = Constant<value_ints = [1]>()
    levels = Cast<to = 1>(images)
    scaled = Mul(levels, scale)
    picture = Unsqueeze(scaled, axis)
    edges = Conv<kernel_shape = [3, 3]>(picture, w1, b1)
    edges_above_0 = Relu(edges)
    edges_halved = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(edges_above_0)
    parts = Conv<kernel_shape = [3, 3]>(edges_halved, w2, b2)
    parts_above_0 = Relu(parts)
    parts_halved = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(parts_above_0)
    flat = Flatten(parts_halved)
    hidden = Gemm<transB = 1>(flat, w3, b3)
    hidden_above_0 = Relu(hidden)
    logits = Gemm<transB = 1>(hidden_above_0, w4, b4)
    probabilities = Softmax(logits)
}
"""
TWO_CONVOLUTIONS_WEIGHTS = {
    "w1": (32, 1, 3, 3),
    "b1": (32,),
    "w2": (64, 32, 3, 3),
    "b2": (64,),
    "w3": (128, 1600),
    "b3": (128,),
    "w4": (10, 128),
    "b4": (10,),
}
BATCH = 100  # images
BATCH_ON_ONE_THREAD = 64  # images; what a replier puts into one run
ROUNDS = 9
SECONDS = 0.3  # for one network, in one round


def two_convolutions() -> bytes:
    """The yardstick as an ONNX file, with random weights: 225,034 of them."""
    import onnx

    model = onnx.parser.parse_model(TWO_CONVOLUTIONS)
    rng = np.random.default_rng(0)
    for name, shape in TWO_CONVOLUTIONS_WEIGHTS.items():
        weights = rng.normal(0, 1 / math.sqrt(math.prod(shape[1:])), shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    content: bytes = model.SerializeToString()
    return content


def session(content: bytes, threads: int) -> Any:
    """ONNX Runtime with a model file; 0 threads: one for each core, as it has by default."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def images_per_second(session: Any, images: Images, seconds: float) -> float:
    """The images in one run, divided by the median time of the runs that fit into `seconds`."""
    session.run(None, {"images": images})
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, {"images": images})
        times.append(time.perf_counter() - start)
    return len(images) / statistics.median(times)


def measure(folder: Path, rounds: int = ROUNDS, seconds: float = SECONDS) -> dict[str, Any]:
    """The speed of all networks in a folder, medians of the rounds."""
    paths = [folder / f"{file_name(size)}.onnx" for size in SIZES]
    contents = {path.stem: path.read_bytes() for path in paths if path.is_file()}
    contents[YARDSTICK] = two_convolutions()
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 28, 28), np.uint8)
    rows: dict[str, dict[str, Any]] = {}
    for threads, batch, column in (
        (0, BATCH, "images_per_second"),
        (1, BATCH_ON_ONE_THREAD, "on_one_thread"),
    ):
        # The sessions of one kind at a time: threads of others that still spin would take a core.
        sessions = {name: session(content, threads) for name, content in contents.items()}
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(rounds):
            for name, each in sessions.items():
                times[name].append(images_per_second(each, images[:batch], seconds))
        for name, each in sessions.items():
            version = each.get_modelmeta().custom_metadata_map.get("version", "")
            row = rows.setdefault(name, {"name": name, "version": version})
            row[column] = round(statistics.median(times[name]))
    return {
        "machine": machine(),
        "runtime": f"ONNX Runtime {ort.__version__}",
        "batch": BATCH,
        "batch_on_one_thread": BATCH_ON_ONE_THREAD,
        "yardstick": YARDSTICK,
        "rows": list(rows.values()),
    }


def machine() -> str:
    """The processor, in words, and whether it multiplies 8-bit numbers four at a time (VNNI)."""
    name, flags = platform.machine(), ""
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = (line.partition(":") for line in information.read_text(encoding="utf-8").splitlines())
        about = {key.strip(): value.strip() for key, _, value in lines}
        name, flags = about.get("model name", name), about.get("flags", "")
    return f"{os.cpu_count()} cores of {name} {'with' if 'vnni' in flags else 'without'} VNNI"


def main(folder: Path = MODELS) -> None:
    """Time, write, print."""
    speed = measure(folder)
    path = folder / SPEED
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    others = [run for run in before if run["machine"] != speed["machine"]]
    path.write_text(json.dumps([speed, *others], indent=1) + "\n", encoding="utf-8")
    write_cards(folder)
    print(f"{speed['machine']}, {speed['runtime']}")
    yardstick = next(row for row in speed["rows"] if row["name"] == YARDSTICK)["images_per_second"]
    for row in speed["rows"]:
        each = row["images_per_second"]
        print(
            f"{row['name']:20} {each:9,} images/s  {each / yardstick:5.2f} x  {row['on_one_thread']:9,} on one thread"
        )


if __name__ == "__main__":
    main()
