"""`make demo`: from a clean clone to the summary, and nothing left running whenever it is stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagebus.broker.processes import descendants

from .docs.pages import README, blocks, documented
from .programs import ROOT, python, wait_until_gone

pytestmark = pytest.mark.usefixtures("kafka_jars_here")


def without_figures(line: str) -> str:
    """A line as it is printed each time: times, ports and digests differ."""
    return re.sub(r"[0-9a-f]{12}|[0-9]+", "0", line)


def outside_of_make() -> dict[str, str]:
    """The environment of somebody who types `make demo`, although `make test` runs this."""
    ours = {"VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    return {name: value for name, value in os.environ.items() if name not in ours}


@pytest.mark.full
def test_make_demo_works_on_a_clean_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)

    done = subprocess.run(
        [*documented("make demo"), f"PYTHON={sys.executable}"],
        cwd=clone,
        env=outside_of_make(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("environment: .venv, Python 3.")
    assert re.fullmatch(r"packages: (\d+) of \1", lines[1])
    assert "ready" in lines
    assert sum(line.startswith("package ") for line in lines) == 20
    assert "sent 20, answered 20, failed 0, lost 0" in lines
    assert any(line.startswith("accuracy ") and line.endswith(" of 100 images") for line in lines)
    assert any(line.startswith("round trip p50 ") for line in lines)
    (shown,) = blocks(README, "text")
    printed = iter(map(without_figures, lines))
    missing = [
        line for line in shown.text.splitlines() if line != "…" and without_figures(line) not in printed
    ]
    assert missing == [], "the README shows what the demo does not print, or in another order"
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(clone) not in listed


@pytest.mark.parametrize("moment", ["is running on", " ready: ", "package 3 "])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_can_be_stopped_at_any_moment(moment: str, number: signal.Signals) -> None:
    demo = python("tools.demo")
    demo.wait_for(moment)
    started = descendants(demo.pid)

    status = demo.stop(number)

    assert status == 0, demo
    assert "Traceback" not in str(demo)
    assert started
    wait_until_gone(started)
