"""The upper bound: ONNX Runtime alone on images that are already in memory.

    python -m bench.references.bare MODEL SAMPLE BATCH IMAGES

It has a thread for each core, which share the work of each image; the replier gives each thread images of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read on import; else a thread of it starts

import numpy as np
import onnxruntime as ort


def main(model: str, sample: str, batch: int, count: int) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images = np.load(sample)["images"]
    batches = [images[start : start + batch] for start in range(0, len(images) - batch + 1, batch)]
    for warm_up in batches[:5]:
        session.run(None, {name: warm_up})

    runs = max(1, count // batch)
    cpu, started = time.process_time(), time.perf_counter()
    for number in range(runs):
        session.run(None, {name: batches[number % len(batches)]})
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print("done:", json.dumps({"images": runs * batch, "seconds": seconds, "cpu": cpu}), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
