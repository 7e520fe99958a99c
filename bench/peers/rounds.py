"""A round of `make bench-peers` for each server: a backlog, three kinds of load, a kill.

Beside the figures of `bench/contenders.py`: `p50_ms` and `p99_ms` of one package at a time, the same with
`half_` and `most_` before them at half and at 90% of the rate that the server reached on the backlog of the
same round, and `killed_lost` and `killed_repeated` of the `killed_packages` sent, at half load, while the
server was killed and restarted.
"""

from __future__ import annotations

import json
import time
from functools import partial

from bench.contenders import (
    CONTENDERS,
    SERVERS,
    Contender,
    Figures,
    Server,
    backlog,
    loop_command,
    serve_backlog,
)
from bench.ground import PACKAGE, Ground, open_topics
from bench.peers import mlserver
from bench.peers.environment import PYTHON
from bench.program import Program
from bench.replies import Topic, check

HALF, MOST = 0.5, 0.9  # of the rate that a server reached on the backlog
KILL_AFTER = 0.4  # of a load's time: then the server is killed
CALLS_LIMIT = 90.0  # seconds for all answers; an overloaded server needs several times its load's time
ECHO_LIMIT = 60.0  # seconds
ECHO_RATE = 4000.0  # packages a second: 90% of the highest rate with two convolutions on two cores

PEERS = {
    peer.name: peer
    for peer in (
        Server("faststream", partial(loop_command, "bench.peers.faststream_app"), PYTHON),
        Server("faststream-single", partial(loop_command, "bench.peers.faststream_single_app"), PYTHON),
        Server("quix", partial(loop_command, "bench.peers.quix_app"), PYTHON),
        Server(
            "mlserver",
            mlserver.arguments,
            PYTHON,
            encode=mlserver.encode_request,
            wait_until_ready=mlserver.wait_until_ready,
            reads_backlog=False,
        ),
    )
}


def server(which: Server, ground: Ground, round_number: int) -> Figures:
    """All figures of one server in one round."""
    figures = backlog(which, ground, round_number)
    rate = figures["images_per_s"] / PACKAGE
    loads = {"half": HALF * rate, "most": MOST * rate}
    return (
        figures
        | calls(which, ground, f"{which.name}-{round_number}-calls", loads)
        | killed(which, ground, f"{which.name}-{round_number}-killed", HALF * rate)
    )


def echo(ground: Ground, round_number: int) -> Figures:
    """The bus and the load generator without a model: their share of the figures."""
    which = SERVERS["echo"]
    served = serve_backlog(which, ground, f"echo-{round_number}", ECHO_LIMIT)
    measured = calls(which, ground, f"echo-{round_number}-calls", {"check": ECHO_RATE})
    return served.figures | measured | {"check_packages_per_s": ECHO_RATE}


def faststream_single(ground: Ground, round_number: int) -> Figures:
    """FastStream without batches, on as much of the backlog as it can serve in the Keras loop's time."""
    which = PEERS["faststream-single"]
    return serve_backlog(which, ground, f"{which.name}-{round_number}", ground.keras_seconds).figures


def keras_loop(ground: Ground, round_number: int) -> Figures:
    """The Keras loop; under load and killed it would take the time of all others together."""
    which = SERVERS["keras-loop"]
    return CONTENDERS["keras-loop"](ground, round_number) | calls(
        which, ground, f"keras-{round_number}-calls"
    )


def calls(which: Server, ground: Ground, name: str, loads: dict[str, float] | None = None) -> Figures:
    """Latencies: one package at a time, then at each of the loads, in packages a second."""
    requests, replies = f"{name}-requests", f"{name}-replies"
    open_topics(ground, requests, f"{requests}.dlt", replies)
    with which.start(ground, requests, replies, group=name) as program:
        which.wait_until_ready(program, ground, requests, replies)
        figures = call(which, ground, requests, replies, "alone", ground.singles)
        for load, rate in (loads or {}).items():
            measured = call(which, ground, requests, replies, rate, ground.load_seconds)
            figures |= {f"{load}_{figure}": value for figure, value in measured.items()}
    return figures


def call(
    which: Server, ground: Ground, requests: str, replies: str, rate: float | str, amount: float
) -> Figures:
    """The figures of one run of the load generator."""
    with caller(which, ground, requests, replies, rate, amount) as program:
        figures: Figures = json.loads(program.wait_for("done:", CALLS_LIMIT)[1])
    return figures


def caller(
    which: Server, ground: Ground, requests: str, replies: str, rate: float | str, amount: float
) -> Program:
    where = (ground.bootstrap, requests, replies, "raw" if which.reads_backlog else "v2")
    return Program("-m", "bench.peers.open_loop", *where, str(rate), str(amount))


def killed(which: Server, ground: Ground, name: str, rate: float) -> Figures:
    """Kill the server (-9) while packages come, restart it, and look for the answers to all of them."""
    requests, replies = f"{name}-requests", f"{name}-replies"
    open_topics(ground, requests, f"{requests}.dlt", replies)
    with Topic(ground.bootstrap, replies) as topic:
        with which.start(ground, requests, replies, group=name) as program:
            which.wait_until_ready(program, ground, requests, replies)
            topic.skip()
            with caller(which, ground, requests, replies, rate, ground.load_seconds) as load:
                load.wait_for("sending:", CALLS_LIMIT)
                time.sleep(KILL_AFTER * ground.load_seconds)
                program.kill()
                with which.start(ground, requests, replies, group=name):
                    sent = json.loads(load.wait_for("done:", CALLS_LIMIT)[1])["packages"]
        outcome = check(topic.read(), ground.is_correct)
    return {
        "killed_packages": sent,
        "killed_lost": sent - outcome.distinct,
        "killed_repeated": outcome.repeated,
        "killed_wrong": outcome.wrong,
    }


# In the order of each round.
ROUND: dict[str, Contender] = {
    "bare-100": CONTENDERS["bare-100"],
    "bare-5": CONTENDERS["bare-5"],
    "echo": echo,
    "replier": partial(server, SERVERS["replier"]),
    "careful-loop": partial(server, SERVERS["careful-loop"]),
    **{name: partial(server, PEERS[name]) for name in ("faststream", "quix", "mlserver")},
    "faststream-single": faststream_single,
    "keras-loop": keras_loop,
}
