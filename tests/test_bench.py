"""The bench runs, measures all it promises, notices bad replies, and leaves nothing behind."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import measure, replies, table
from bench.contenders import CONTENDERS
from bench.growth import picture
from imagebus import ConfigError

ROOT = Path(__file__).parent.parent
TINY = ["--rounds", "1", "--packages", "200", "--singles", "20", "--keras-seconds", "1"]


class Record:
    """What is read of a reply."""

    def __init__(self, number: int, *labels: str, at: int = 0) -> None:
        self._number, self._labels, self._at = number, labels, at

    def key(self) -> bytes:
        return str(self._number).encode()

    def value(self) -> bytes:
        return json.dumps({"predictions": [{"label": label} for label in self._labels]}).encode()

    def timestamp(self) -> tuple[int, int]:
        return (2, self._at)


@pytest.mark.full
def test_a_tiny_run_measures_every_contender(kafka_jars_here: None, tmp_path: Path) -> None:
    written = tmp_path / "bench.json"

    run = subprocess.run(
        [sys.executable, "-m", "bench", *TINY, "--json", written],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert run.returncode == 0, run.stderr
    figures = json.loads(written.read_bytes())["figures"]
    assert list(figures) == list(CONTENDERS)
    for each in figures.values():
        assert all(math.isfinite(figure["median"]) and figure["median"] >= 0 for figure in each.values())
    served = {name: figure["median"] for name, figure in figures["replier"].items()}
    zero = {"lost", "repeated", "wrong", "tensorflow"}
    assert {name for name, value in served.items() if value == 0} == zero
    assert {"images_of_keras_loop", "cpu_of_bare", "images_of_bare", "ready_s", "resident_mb"} <= set(served)
    assert {"p50_ms", "p99_ms", "p50_of_echo"} <= set(figures["replier-alone"])
    assert figures["keras-loop"]["tensorflow"]["median"] == 1
    assert len([line for line in run.stdout.splitlines() if line.startswith("|")]) == 2 + 7
    assert "0 lost, 0 repeated, 0 wrong" in run.stdout


def test_ctrl_c_ends_every_process_and_removes_every_file(kafka_jars_here: None, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *TINY, "--singles", "1000000", "--only", "replier-alone"],
        cwd=ROOT,
        # ONNX Runtime leaves a file there when it is imported, unless its telemetry is off.
        env={**os.environ, "TMPDIR": str(tmp_path), "ORT_DISABLE_TELEMETRY": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr
        # The line comes when the broker runs and the contenders are about to.
        assert any("filling the backlog" in line for line in run.stderr)
        run.send_signal(signal.SIGINT)
        run.stderr.read()

    assert run.returncode == 128 + signal.SIGINT
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes that run in `folder` or name it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = str((process / "cwd").readlink())
        except OSError:  # it has just ended, or is not ours
            continue
        if str(folder) in command or where.startswith(str(folder)):
            found.append(command)
    return found


@pytest.mark.parametrize(
    ("bench", "name", "known"), [("bench", "bare-7", "bare-100"), ("bench.growth", "package", "packages")]
)
def test_an_unknown_name_is_refused(bench: str, name: str, known: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", bench, "--only", name], cwd=ROOT, capture_output=True, text=True
    )

    assert run.returncode == 2
    assert f"{name}: expected some of {known}" in run.stderr


def test_lost_repeated_and_wrong_replies_are_noticed() -> None:
    records = [Record(0, "a", at=1000), Record(1, "b", at=4000), Record(1, "b", at=3000), Record(2, "x")]

    outcome = replies.check(records, lambda number, labels: labels == ["abc"[number]])

    assert outcome == replies.Outcome(distinct=3, repeated=1, wrong=1, last=4.0)


def test_ratios_are_taken_within_a_round() -> None:
    bare = [{"images_per_s": 100.0, "cpu_ms_per_1000": 10.0}, {"images_per_s": 50.0, "cpu_ms_per_1000": 20.0}]
    replier = [
        {"images_per_s": 80.0, "cpu_ms_per_1000": 11.0},
        {"images_per_s": 45.0, "cpu_ms_per_1000": 21.0},
    ]

    rounds = table.with_ratios({"bare-100": bare, "replier": replier})

    assert [each["images_of_bare"] for each in rounds["replier"]] == [0.8, 0.9]
    assert [each["cpu_of_bare"] for each in rounds["replier"]] == [1.1, 1.05]


def test_a_cell_shows_the_median_and_half_the_range() -> None:
    rounds = {"bare-100": [{"images_per_s": value} for value in (90.0, 100.0, 130.0)]}

    assert "| 100 ±20% |" in table.render(rounds)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the bench needs Linux's /proc")
def test_a_process_is_measured_from_outside() -> None:
    now, most = measure.resident_mb(os.getpid())

    assert 0 < now <= most
    assert measure.cpu_seconds(os.getpid()) > 0
    assert measure.has_loaded(os.getpid(), "libc")
    assert not measure.has_loaded(os.getpid(), "libnowhere")


def test_the_picture_of_growth_has_every_line_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")

    curves = picture.read_curves(page)
    picture.draw(curves, tmp_path / "growth.png")

    drawn = sum(len(curve.grown) for lines in curves.values() for curve in lines)
    capacity = page[page.index("\n## Capacity") :]
    rows = [line for line in capacity.splitlines() if line.startswith("|")]
    assert drawn == len(rows) - 2 * len(picture.GROWS)  # a head and a rule each
    assert [curve.name for curve in curves["Requestors"]] == ["all", "its own"]
    assert curves["Packages"][0].grown == [1, 5, 50, 500]
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_a_table_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="'Packages' of the page has no table with a column 'images in a package'"
    ):
        picture.read_curves("# Growth\n\n### Repliers\n")
