"""One function a fault. Each starts its repliers and the load, does its harm, and lets the load recover.

What must be true afterwards is the same for all and is checked by `ledger.judge`.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time

import orjson

from bench.measure import resident_mb
from imagebus.resends import ANSWERS_EACH, BUDGET

from .fragile import POINTS
from .rig import Scene

SETTLE = 50  # answers to wait for after a fault: the load flows again


def repliers_killed_at_every_point(scene: Scene, kills: int = 52) -> None:
    """SIGKILL before producing, after producing, after the confirmation, after the commit; then a restart."""
    scene.begin()
    dice = random.Random(1)
    points = [point for point in POINTS if point != "after-confirmation" or not scene.exactly_once]
    for number in range(kills):
        point, batch = points[number % len(points)], str(dice.randrange(1, 6))
        fragile = scene.replier(point, batch, module="tests.faults.fragile", name="fragile")
        scene.gone(fragile)
        assert fragile.wait() == -signal.SIGKILL, fragile
        scene.interruptions += 2  # its own batches, and those of the neighbour whose partitions it took
    scene.load.wait_for_answers(SETTLE)


def repliers_stopped_and_started(scene: Scene, stops: int = 6) -> None:
    """SIGTERM and SIGINT under load: the batch is finished, and nothing is repeated."""
    scene.begin()
    for number in range(stops):
        old = scene.repliers[0]
        scene.replier().wait_for(" ready: ")
        scene.load.wait_for_answers(SETTLE)
        scene.gone(old)
        status = old.stop((signal.SIGTERM, signal.SIGINT)[number % 2])
        if status:
            scene.problems.append(f"a stopped replier ended with {status}")
    scene.load.wait_for_answers(SETTLE)


def rebalance_storm(scene: Scene, seconds: float = 180.0) -> None:
    """Four repliers; every 2 to 5 seconds one is started, stopped or killed."""
    scene.begin(4)
    dice = random.Random(2)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if len(scene.repliers) < 4:
            scene.replier()
        else:
            victim = dice.choice(scene.repliers)
            scene.gone(victim)
            victim.send(dice.choice([signal.SIGTERM, signal.SIGKILL]))
            scene.interruptions += 1
        # A change takes partitions from those that are busy with them.
        scene.interruptions += len(scene.repliers)
        time.sleep(dice.uniform(2, 5))
    scene.load.wait_for_answers(SETTLE)


def replier_frozen_beyond_its_session(scene: Scene) -> None:
    """SIGSTOP until its partitions went to the other one, then SIGCONT: its stale work is dropped."""
    scene.begin(2)
    frozen, other = scene.repliers
    frozen.send(signal.SIGSTOP)
    other.wait_for("partitions now: 0, 1, 2, 3, 4, 5")
    scene.load.wait_for_answers(SETTLE)
    frozen.send(signal.SIGCONT)
    scene.interruptions += 3
    scene.load.wait_for_answers(6 * SETTLE)


def model_slower_than_max_poll_interval(scene: Scene) -> None:
    """Each batch takes longer than max.poll.interval.ms: the partitions stay."""
    slow = scene.replier("slow-model", "8", module="tests.faults.fragile")
    slow.wait_for(" ready: ")
    scene.load.start()
    scene.load.wait_for_answers(SETTLE)
    if any("partitions now" in line for line in slow.err):
        scene.problems.append("the slow replier lost its partitions")


def brokers_killed_in_turn(scene: Scene, nodes: int = 3) -> None:
    """Each broker in turn is killed and restarted: partition leaders, group coordinator and controller among them."""
    scene.begin(2)
    for node in range(nodes):
        scene.brokers.kill(node)
        scene.load.wait_for_answers(SETTLE)
        scene.brokers.restart(node)
        scene.interruptions += 2
        scene.load.wait_for_answers(SETTLE)


def leader_frozen(scene: Scene) -> None:
    """A broker stops answering without closing its connections."""
    scene.begin()
    scene.brokers.pause(0)
    scene.load.wait_for_answers(SETTLE)
    scene.brokers.resume(0)
    scene.interruptions += 2
    scene.load.wait_for_answers(SETTLE)


def one_partition_of_the_replies_takes_no_writes(scene: Scene, answers: int = 1000) -> None:
    """One of its two replicas is gone, and it must have both: only its own replies wait."""
    scene.begin()
    scene.brokers.kill(0)
    scene.load.wait_for_answers(answers)
    scene.brokers.restart(0)
    scene.interruptions += 2
    scene.load.wait_for_answers(SETTLE)


# Nodes are numbered from 1 here; `min.insync.replicas` of a cluster of three is 2.
one_partition_of_the_replies_takes_no_writes.replicas = (  # type: ignore[attr-defined]
    [[1, 2], [2, 3], [3, 2], [2, 3], [3, 2], [2, 3]]
)


def two_of_three_brokers_killed(scene: Scene) -> None:
    """No majority for ten seconds: requests wait, none fails."""
    scene.begin()
    scene.brokers.kill(0, 1)
    time.sleep(10)
    scene.brokers.restart(0, 1)
    scene.interruptions += 2
    scene.load.wait_for_answers(SETTLE)


def all_brokers_killed(scene: Scene) -> None:
    """The whole cluster dies and comes back on its data."""
    scene.begin()
    scene.brokers.kill(0, 1, 2)
    time.sleep(5)
    scene.brokers.restart(0, 1, 2)
    scene.interruptions += 2
    scene.load.wait_for_answers(SETTLE)


def requestor_killed_and_restarted(scene: Scene, kills: int = 8) -> None:
    """SIGKILL with packages open: the next run asks for them again, and each is shown once.

    Only the one that was shown last may be shown again: it was not noted yet when the process died.
    """
    scene.begin()
    dice = random.Random(3)
    last_shown: list[str] = []  # by each that was killed
    with tempfile.TemporaryDirectory(prefix="imagebus-state-") as state:
        for number in range(kills + 1):
            last = number == kills
            count = "20" if last else "0"
            requestor = scene.requestor("--state", state, "--json", "--interval", "0.005", "--count", count)
            if last:
                if status := requestor.wait():
                    scene.problems.append(f"the last requestor ended with {status} instead of 0")
            else:
                requestor.wait_for('"predictions"', times=dice.randrange(20, 200))
                requestor.send(signal.SIGKILL)
                requestor.wait()
            lines = [line for line in requestor.out if line.endswith("\n")]  # a kill may cut one in two
            shown = [orjson.loads(line)["id"] for line in lines]
            scene.load.note_shown(shown, again=last_shown)
            last_shown += shown[-1:]


def backlog_at_ten_times_the_speed(scene: Scene, packages: int = 8000) -> None:
    """Requests come ten times as fast as they are answered: the replier's memory stays flat, nothing is dropped."""
    replier = scene.replier("sluggish", "800", module="tests.faults.fragile")  # 128 packages in 800 ms
    replier.wait_for(" ready: ")
    scene.load.send_at(10 * 128 / 0.8)
    scene.load.start()
    scene.load.wait_for_requests(packages)
    scene.load.send_at(10)
    resident = []
    while scene.load.client.in_flight > SETTLE:
        resident.append(resident_mb(replier.pid)[0])
        scene.load.wait_for_answers(1)
        time.sleep(1)
    warm = resident[len(resident) // 4 :]  # its queue is full by then, and empty at the end
    if max(warm) > 1.1 * warm[0]:
        scene.problems.append(f"the replier's memory grew from {warm[0]:.0f} to {max(warm):.0f} MB")


def outage_under_open_loop(scene: Scene, seconds: float = 40.0) -> None:
    """No replier for a while at 80 % of its capacity, and callers that do not wait: copies must not add to the load."""
    slow = ("sluggish", "80", "--max-batch-size", "8")  # 100 packages a second
    first = scene.replier(*slow, module="tests.faults.fragile")
    first.wait_for(" ready: ")
    scene.load.start()
    scene.load.wait_for_answers(SETTLE)
    first.send(signal.SIGKILL)
    scene.gone(first)
    scene.interruptions += 1
    time.sleep(seconds)
    scene.replier(*slow, module="tests.faults.fragile")
    while scene.load.client.in_flight > SETTLE:
        scene.load.wait_for_answers(SETTLE)
    resent, answered = scene.load.client.resent, len(scene.load.ledger.answered_at)
    if resent > BUDGET + answered / ANSWERS_EACH:
        scene.problems.append(f"{resent} requests were sent again, of {answered} that were answered")
