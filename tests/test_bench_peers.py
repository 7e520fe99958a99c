"""What `make bench-peers` is made of: load on a schedule, the peers' list and requests, its table."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import replies
from bench.contenders import SERVERS, Figures
from bench.peers import environment, mlserver, report
from bench.peers.open_loop import WARM_UP, Measured, schedule
from bench.peers.rounds import PEERS, ROUND

ROOT = Path(__file__).parent.parent

REPLIER: Figures = {
    "images_per_s": 9000.0,
    "cpu_ms_per_1000": 100.0,
    "images_of_bare": 0.9,
    "cpu_of_bare": 1.1,
    "p50_ms": 2.0,
    "p99_ms": 2.4,
    "half_p50_ms": 2.0,
    "half_p99_ms": 5.0,
    "ready_s": 0.4,
    "resident_mb": 119.0,
    "lost": 0,
    "wrong": 0,
    "killed_packages": 1000,
    "killed_lost": 0,
    "killed_repeated": 7,
    "killed_wrong": 0,
}


# --- load --------------------------------------------------------------------------------------


def test_the_moments_of_a_load_are_the_same_each_time() -> None:
    moments = schedule(rate=1000.0, seconds=8.0)

    assert moments.tolist() == schedule(rate=1000.0, seconds=8.0).tolist()
    assert len(moments) == 8000
    assert (np.diff(moments) > 0).all()
    assert moments[-1] == pytest.approx(8.0, rel=0.1)


def test_callers_know_nothing_of_each_other() -> None:
    pauses = np.diff(schedule(rate=1000.0, seconds=8.0))

    # Of a Poisson process the pauses vary as much as they last.
    assert pauses.std() == pytest.approx(pauses.mean(), rel=0.1)


def test_a_package_that_left_late_waited_from_its_moment_on() -> None:
    intended = np.arange(10) / 1000
    stalled = np.full(10, 0.5)

    figures = Measured(intended, sent=stalled, arrived=stalled + 0.001).figures()

    assert figures["p50_ms"] == pytest.approx(501 - 4.5)
    assert figures["late_p99_ms"] > 490
    assert figures["unanswered"] == 0


def test_a_package_without_an_answer_waited_until_the_end() -> None:
    intended = np.array([0.0, 1.0, 2.0])

    figures = Measured(intended, sent=intended, arrived=np.array([3.0, math.nan, 3.0])).figures()

    assert (figures["packages"], figures["unanswered"]) == (3 + WARM_UP, 1)
    assert figures["p50_ms"] == pytest.approx(2000)


# --- peers -------------------------------------------------------------------------------------


def test_each_line_of_the_peers_list_names_one_version() -> None:
    pins = environment.pins(environment.REQUIREMENTS.read_text(encoding="utf-8"))

    assert set(environment.PEERS.values()) <= set(pins)
    assert all(version and set(version) <= set("0123456789.postabrc") for version in pins.values())


def test_a_list_of_requirements_is_read_without_its_comments() -> None:
    assert environment.pins("# peers\n\none==1.0\ntwo==2.0.post1  # why\n") == {
        "one": "1.0",
        "two": "2.0.post1",
    }


def test_the_peers_run_on_the_projects_onnx_runtime() -> None:
    pins = environment.pins(environment.REQUIREMENTS.read_text(encoding="utf-8"))
    lock = (ROOT / "poetry.lock").read_text(encoding="utf-8")

    for name in ("onnxruntime", "orjson"):
        assert f'name = "{name}"\nversion = "{pins[name]}"\n' in lock


def test_mlserver_is_sent_the_pixels_in_the_open_inference_protocol() -> None:
    images = np.arange(5 * 784, dtype=np.uint8).reshape(5, 28, 28)

    message = mlserver.encode_request(images, "requests", id="7")

    (package,) = json.loads(message.value)["inputs"]
    assert base64.b64decode(package["data"][0]) == images.tobytes()
    assert (message.key, message.header("mlserver-model")) == (b"7", mlserver.MODEL)
    assert message.headers[0] == ("correlation_id", b"7")  # where the load generator puts the id


def test_labels_are_read_from_both_kinds_of_replies() -> None:
    own = b'{"predictions": [{"label": "Bag"}, {"label": "Coat"}]}'
    protocol = b'{"outputs": [{"name": "probabilities"}, {"name": "labels", "data": ["Bag", "Coat"]}]}'

    assert replies.labels(own) == replies.labels(protocol) == ["Bag", "Coat"]
    assert replies.labels(b'{"error": {"code": "SHAPE"}}') == []


def test_only_who_is_in_the_peers_environment_runs_in_it() -> None:
    servers = {**SERVERS, **PEERS}

    elsewhere = {name for name, server in servers.items() if server.python != Path(sys.executable)}

    assert elsewhere == set(PEERS) == {"faststream", "faststream-single", "quix", "mlserver"}
    assert elsewhere < set(ROUND)


# --- table -------------------------------------------------------------------------------------


def test_targets_are_met_or_missed() -> None:
    rounds = {"bare-100": [{"images_per_s": 10_000.0}], "replier": [REPLIER]}

    lines = report.targets(rounds, tiny=False)

    assert lines == [
        "- met: of the images per second of ONNX Runtime alone: 0.9, wanted at least 0.9",
        "- **missed**: times the CPU time of ONNX Runtime alone: 1.1, wanted at most 1.06",
        "- met: p99 at half load, in its p50s: 2.5, wanted at most 3",
        "- met: seconds until it is ready: 0.4, wanted at most 0.5",
        "- met: MB resident: 119, wanted at most 120",
        "- met: of the replier's replies 0 lost, 0 wrong, wanted none",
    ]


def test_a_lost_package_is_missed_also_when_the_replier_was_killed() -> None:
    rounds = {"replier": [REPLIER, REPLIER | {"killed_lost": 1}]}

    assert "- **missed**: of the replier's replies 1 lost, 0 wrong, wanted none" in report.targets(
        rounds, tiny=False
    )


def test_of_a_tiny_network_the_peers_are_the_measure() -> None:
    rounds = {
        "replier": [REPLIER],
        "quix": [{"images_per_s": 3000.0}],
        "mlserver": [{"images_per_s": 3000.0}],
    }

    lines = report.targets(rounds, tiny=True)

    assert "- met: times the images per second of Quix Streams: 3, wanted at least 2.5" in lines
    assert "- **missed**: times the images per second of MLServer: 3, wanted at least 5" in lines


def test_what_a_lone_package_costs_is_compared_with_its_parts() -> None:
    parts = {"bare-5": [{"images_per_s": 10_000.0}], "echo": [{"p50_ms": 1.4, "p99_ms": 2.0}]}

    lines = report.targets({**parts, "replier": [REPLIER]}, tiny=False)

    assert (
        "- met: milliseconds of p50 alone above echo and bare prediction: 0.1, wanted at most 0.15" in lines
    )
    assert "- met: times the echo's p99 alone (2.5 ms where it has 2.0): 1.2, wanted at most 1.25" in lines


def test_a_row_ends_with_what_all_kills_cost() -> None:
    (row,) = [
        line
        for line in report.render({"replier": [REPLIER, REPLIER]}, tiny=False).splitlines()
        if "replier.py" in line
    ]

    assert row.endswith(" 0, 14 of 2,000 |")


def test_what_the_load_generator_adds_is_told() -> None:
    loaded = [
        {"half_late_p99_ms": 0.5, "most_late_p99_ms": 2.46},
        {"half_late_p99_ms": 0.6, "most_late_p99_ms": 1.0},
    ]

    assert report.notes({"replier": loaded, "quix": loaded[1:]}) == [
        "- behind its own moments the load generator was by at most 2.5 ms (p99 of a load)"
    ]


@pytest.mark.full
def test_a_tiny_run_loads_and_kills_the_careful_loop(kafka_jars_here: None, tmp_path: Path) -> None:
    written = tmp_path / "peers.json"
    few = ["--rounds", "1", "--packages", "200", "--singles", "20", "--load-seconds", "2"]

    run = subprocess.run(
        [sys.executable, "-m", "bench.peers", *few, "--only", "echo,careful-loop", "--json", written],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert run.returncode == 0, run.stderr
    figures = json.loads(written.read_bytes())["figures"]["careful-loop"]
    measured = {name: figure["median"] for name, figure in figures.items()}
    assert {"p50_ms", "half_p99_ms", "most_p99_ms", "killed_packages", "resident_mb"} <= set(measured)
    assert [measured[name] for name in ("lost", "wrong", "killed_lost", "killed_wrong")] == [0, 0, 0, 0]
    assert len([line for line in run.stdout.splitlines() if line.startswith("|")]) == 2 + 2
