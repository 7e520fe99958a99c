"""What a serving process is tuned to."""

from __future__ import annotations

import subprocess
import sys

from imagebus.process import OBJECTS_BETWEEN_LOOKS, SWITCH_SECONDS


def test_a_tuned_process_looks_for_cycles_seldom_and_changes_threads_often() -> None:
    code = (
        "import gc, sys, imagebus; imagebus.tune_for_serving(); "
        "print(gc.get_threshold()[0], gc.get_freeze_count() > 0, sys.getswitchinterval())"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed == f"{OBJECTS_BETWEEN_LOOKS} True {SWITCH_SECONDS}\n"
