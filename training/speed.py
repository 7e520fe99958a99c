"""How many images per second the saved networks classify, compared with a plain network of two convolutions.

    python3 -m training.speed     # on a quiet machine; writes models/speed.json and the cards

They are timed in turns, so that a slow moment of the machine affects them all. The file keeps the last run on each kind
of machine, the newest first.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from training.card import main as write_cards
from training.data import Images
from training.facts import Speed, SpeedRun, read_speed, write_speed
from training.sizes import MODELS, SIZES, file_name

YARDSTICK = "two convolutions"  # the network of many tutorials
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
BATCH_ON_ONE_THREAD = 64  # images; the most that a replier puts into one run
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
    """ONNX Runtime with a model file. Threads: 0 for one per core, its default."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def version_in(content: bytes) -> str:
    """The version that a model file states; "" if it states none."""
    version: str = session(content, 1).get_modelmeta().custom_metadata_map.get("version", "")
    return version


def images_per_second(session: Any, images: Images, seconds: float) -> float:
    """The images of one run, divided by the median duration of the runs that fit into `seconds`."""
    session.run(None, {"images": images})
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, {"images": images})
        times.append(time.perf_counter() - start)
    return len(images) / statistics.median(times)


def measure(folder: Path, rounds: int = ROUNDS, seconds: float = SECONDS) -> SpeedRun:
    """The speed of all networks in a folder, medians of the rounds."""
    paths = [folder / f"{file_name(size)}.onnx" for size in SIZES]
    contents = {path.stem: path.read_bytes() for path in paths if path.is_file()}
    contents[YARDSTICK] = two_convolutions()
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 28, 28), np.uint8)

    def medians(threads: int, batch: int) -> dict[str, int]:
        # The sessions of one kind at a time: threads of others that still spin would take a core.
        sessions = {name: session(content, threads) for name, content in contents.items()}
        speeds: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(rounds):
            for name, each in sessions.items():
                speeds[name].append(images_per_second(each, images[:batch], seconds))
        return {name: round(statistics.median(each)) for name, each in speeds.items()}

    on_all, on_one = medians(0, BATCH), medians(1, BATCH_ON_ONE_THREAD)
    *networks, yardstick = (
        Speed(name, version_in(content), on_all[name], on_one[name]) for name, content in contents.items()
    )
    runtime = f"ONNX Runtime {ort.__version__}"
    return SpeedRun(machine(), runtime, BATCH, BATCH_ON_ONE_THREAD, yardstick, networks)


def machine() -> str:
    """The processor, in words, with or without VNNI, which multiplies 8-bit numbers four at a time."""
    name, flags = platform.machine(), ""
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = (line.partition(":") for line in information.read_text(encoding="utf-8").splitlines())
        about = {key.strip(): value.strip() for key, _, value in lines}
        name, flags = about.get("model name", name), about.get("flags", "")
    return f"{os.cpu_count()} cores of {name} {'with' if 'vnni' in flags else 'without'} VNNI"


def main(folder: Path = MODELS) -> None:
    """Time, write, print."""
    run = measure(folder)
    others = [each for each in read_speed(folder) if each.machine != run.machine]
    write_speed(folder, [run, *others])
    write_cards(folder)
    print(f"{run.machine}, {run.runtime}")
    for each in (*run.networks, run.yardstick):
        compared = each.images_per_second / run.yardstick.images_per_second
        print(
            f"{each.name:20} {each.images_per_second:9,} images/s  {compared:5.2f} x  "
            f"{each.on_one_thread:9,} on one thread"
        )


if __name__ == "__main__":
    main()
