"""Python code in a process of its own, where Keras computes on JAX: a process has one backend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WITHOUT_TENSORFLOW = """
import sys
class WithoutTensorFlow:
    def find_spec(self, name, *_):
        if name == "tensorflow":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, WithoutTensorFlow())
"""

QUICK = "--xla_backend_optimization_level=1"  # compiling takes longer here than all that is computed


def run_on_jax(code: str) -> subprocess.CompletedProcess[str]:
    """Run code on JAX and on the CPU, without TensorFlow."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW + code],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=900,  # compiling an epoch takes its time, and more on a busy machine
    )
