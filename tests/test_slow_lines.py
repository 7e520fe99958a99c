"""A slow line and a far broker: both programs start, and answer everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from imagebus.broker import EmbeddedBroker
from imagebus.broker.ports import free_ports

from .buses import Bus
from .cut_connection import Cable
from .fakes import package

LINES: dict[str, dict[str, float]] = {"NEAR": {}, "SLOW": {"rate": 400_000}, "FAR": {"delay": 0.5}}


@pytest.fixture(scope="module")
def bootstraps(kafka_jars_here: None) -> Iterator[dict[str, str]]:
    """One broker that is reached over each of the lines."""
    names = (*LINES, "NODES", "CONTROLLER")
    ports = free_ports(len(names) + len(LINES))
    own = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=False)}
    ends = {name: f"127.0.0.1:{port}" for name, port in zip(LINES, ports[len(names) :], strict=True)}
    config = {
        "listeners": ",".join(f"{name}://{address}" for name, address in own.items()),
        "advertised.listeners": ",".join(
            f"{name}://{address}" for name, address in {**ends, "NODES": own["NODES"]}.items()
        ),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
        "inter.broker.listener.name": "NODES",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@{own['CONTROLLER']}",
    }
    with ExitStack() as stack:
        for name, line in LINES.items():
            stack.enter_context(Cable(own[name], int(ends[name].rpartition(":")[2]), **line))
        stack.enter_context(EmbeddedBroker(ports[0], config=config))
        yield ends


def config(folder: Path, bootstrap: str) -> Path:
    path = folder / f"{bootstrap.rpartition(':')[2]}.config"
    path.write_text(f"bootstrap.servers = {bootstrap}\n")
    return path


@pytest.mark.full
def test_what_waits_behind_a_slow_line_is_answered(bootstraps: dict[str, str], tmp_path: Path) -> None:
    near, slow = (Bus(config(tmp_path, bootstraps[line])) for line in ("NEAR", "SLOW"))
    slow.requests, slow.replies = near.requests, near.replies
    try:
        with near.client() as client:
            futures = [client.submit(package(*range(5))) for _ in range(1000)]
            slow.start("replier.py")

            answered = [len(future.result().predictions) for future in futures]
    finally:
        slow.close()

    assert answered == [5] * 1000


@pytest.mark.full
def test_both_programs_start_over_a_round_trip_of_a_second(
    bootstraps: dict[str, str], tmp_path: Path
) -> None:
    far = Bus(config(tmp_path, bootstraps["FAR"]))
    try:
        far.replier()
        requestor = far.start("requestor.py", "--count", "3", "--interval", "0")

        assert requestor.wait() == 0, requestor
    finally:
        far.close()

    assert "sent 3, answered 3" in "".join(requestor.out)
