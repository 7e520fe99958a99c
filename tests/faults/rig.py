"""What the faults act on: a cluster, repliers as processes, and a steady load with a ledger."""

from __future__ import annotations

import itertools
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does export them

from imagebus import Client, Message, OnnxClassifier, Reply, TransportError, load_images
from imagebus.broker import EmbeddedBroker
from imagebus.transports.base import OnDelivery
from imagebus.transports.kafka import KafkaBus
from imagebus.transports.kafka.config import read_settings
from imagebus.wire.message import Position

from ..programs import ROOT, Program, python
from .ledger import Committed, Ledger, Verdict, ends, judge

GROUP = "repliers"
IN_HAND = 2 * 128  # answers that may come again: a batch that is being confirmed, and one being committed
PATIENCE = 240.0  # seconds until a request of the load is given up: longer than any fault
SAMPLE_SECONDS = 1.0  # between two looks at what the group has committed

# A cluster that misses a dead node, and a group that misses a dead member, sooner than Kafka's defaults do:
# the same faults in a third of the time.
QUICK_BROKERS = {
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.min.session.timeout.ms": "1000",
    "controlled.shutdown.enable": "true",
}
QUICK_MEMBERS = "session.timeout.ms = 2500\nheartbeat.interval.ms = 500\nmax.poll.interval.ms = 6000\n"


class WatchedBus(KafkaBus):
    """The caller's bus, which writes down what was sent and what the brokers confirmed."""

    ledger: Ledger

    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        id = message.header("correlation_id") or ""

        def delivered(fate: TransportError | Position | None) -> None:
            if not isinstance(fate, TransportError):
                self.ledger.confirmed.setdefault(id, time.monotonic())
            if on_delivery is not None:
                on_delivery(fate)

        self.ledger.sent.setdefault(id, time.monotonic())
        super().publish(message, delivered)


class Load:
    """Packages of the sample at a steady rate, until `finish`."""

    def __init__(self, rig: Rig, name: str, rate: float, replicas: Sequence[Sequence[int]] | None) -> None:
        self.ledger = Ledger()
        self.requests, self.replies = f"requests-{name}", f"replies-{name}"
        if replicas is not None:  # of each partition of the replies
            admin = AdminClient({"bootstrap.servers": rig.brokers.bootstrap})
            topic = NewTopic(
                self.replies,
                num_partitions=len(replicas),
                replica_assignment=[list(each) for each in replicas],
            )
            admin.create_topics([topic])[self.replies].result()
        self._rig = rig
        self._pause = 1 / rate
        self._sending = threading.Event()
        self._stop = threading.Event()
        self._open: list[Future[Reply]] = []
        bus = WatchedBus(
            read_settings(rig.config), topics=[self.requests, self.replies, f"{self.requests}.dlt"]
        )
        bus.ledger = self.ledger
        self.client = Client(bus, requests=self.requests, replies=self.replies, timeout=PATIENCE)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._sample)]

    def start(self) -> None:
        """Begin, once there is a first replier that answers."""
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        due = time.monotonic()
        for number in itertools.count():
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            due += self._pause
            images, _ = self._rig.sample.package(number, 5)
            id = str(uuid.uuid4())
            future = self.client.submit(images, id=id)
            future.add_done_callback(partial(self._ended, number, id))
            self._open.append(future)

    def _ended(self, number: int, id: str, future: Future[Reply]) -> None:
        error = future.exception()
        ledger = self.ledger
        with ledger.lock:
            if error is not None:
                ledger.outcomes[id].append(type(error).__name__)
                return
            reply = future.result()
            ledger.outcomes[id].append("answered")
            ledger.answered_at.append(time.monotonic())
            if [each.label for each in reply.predictions] != self._rig.expected(number):
                ledger.wrong.append(id)

    def _sample(self) -> None:
        """Write down what the group has committed, each second."""
        with Committed(self._rig.brokers.bootstrap, GROUP, self.requests) as committed:
            while not self._stop.wait(SAMPLE_SECONDS):
                try:
                    offsets = committed.offsets()
                except KafkaException:  # no coordinator just now
                    continue
                self.ledger.committed.append((round(time.time() * 1000), offsets))

    def send_at(self, rate: float) -> None:
        """From now on so many packages a second, or as many as the client can send."""
        self._pause = 1 / rate

    def wait_for_answers(self, count: int) -> None:
        """Wait until so many more answers came."""
        wanted = len(self.ledger.answered_at) + count
        deadline = time.monotonic() + PATIENCE
        while len(self.ledger.answered_at) < wanted:
            self._rig.brokers.check()  # those that the fault did not kill
            assert time.monotonic() < deadline, f"{len(self.ledger.answered_at)} answers came, not {wanted}"
            time.sleep(0.02)

    def wait_for_requests(self, count: int) -> None:
        """Wait until so many were sent in all."""
        deadline = time.monotonic() + PATIENCE
        while len(self.ledger.sent) < count:
            assert time.monotonic() < deadline, f"{len(self.ledger.sent)} requests were sent, not {count}"
            time.sleep(0.02)

    def note_shown(self, ids: Sequence[str], *, again: Sequence[str] = ()) -> None:
        """What a requestor of its own process showed as answered; `again` may be what one before it showed."""
        now = time.monotonic()
        with self.ledger.lock:
            for id in ids:
                if id in again:
                    continue
                self.ledger.sent.setdefault(id, now)
                self.ledger.confirmed.setdefault(id, now)
                self.ledger.outcomes[id].append("answered")

    def wait_until_all_is_committed(self) -> None:
        """Wait until the group has committed every request, those that were asked twice included."""
        admin = AdminClient({"bootstrap.servers": self._rig.brokers.bootstrap, "log_level": 0})
        numbers = sorted(admin.list_topics(self.requests).topics[self.requests].partitions)
        deadline = time.monotonic() + PATIENCE
        with Committed(self._rig.brokers.bootstrap, GROUP, self.requests) as committed:
            while time.monotonic() < deadline:
                done = committed.offsets()
                if done == {**done, **ends(admin, self.requests, numbers, IsolationLevel.READ_COMMITTED)}:
                    return
                time.sleep(0.2)

    def finish(self) -> None:
        """Send no more, wait for every outcome, and let go."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for future in self._open:
            future.exception(timeout=PATIENCE + 60)
        self.client.close()


@dataclass
class Rig:
    """Three brokers for all faults; topics, repliers and a load anew for each."""

    nodes: int = 3
    rate: float = 80.0  # packages a second: three brokers and a replier that starts again and again keep up
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.brokers = self._stack.enter_context(EmbeddedBroker(nodes=self.nodes, config=QUICK_BROKERS))
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="imagebus-faults-")))
        self.config = folder / "kafka.config"
        self.config.write_text(f"bootstrap.servers = {self.brokers.bootstrap}\n{QUICK_MEMBERS}")
        self.sample = load_images()
        model = OnnxClassifier(ROOT / "models" / "fashion.onnx")
        self._labels = [model.labels[index] for index in model.predict(self.sample.images).argmax(axis=1)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def expected(self, number: int) -> list[str]:
        """The labels that the model gives to package `number`, asked without a bus."""
        return [self._labels[(number * 5 + place) % len(self._labels)] for place in range(5)]

    def run(self, fault: Callable[[Scene], None], options: Sequence[str] = ()) -> Verdict:
        """One fault under load, from the first answer to the verdict. `options` are the repliers'."""
        name = fault.__name__.replace("_", "-")
        suffix = "-".join(("", *(option.strip("-") for option in options)))
        with ExitStack() as stack:
            load = Load(self, f"{name}{suffix}", self.rate, getattr(fault, "replicas", None))
            scene = Scene(self, load, options)
            stack.callback(scene.close)
            try:
                fault(scene)
            finally:
                load.finish()
            load.wait_until_all_is_committed()
            for replier in scene.repliers:
                scene.problems += scene.stop(replier)
        bound = 0 if "exactly-once" in options else scene.interruptions * IN_HAND
        verdict = judge(
            f"{name}{suffix}", load.ledger, self.brokers.bootstrap, load.requests, load.replies, GROUP, bound
        )
        verdict.problems.extend(scene.problems)
        if verdict.problems:
            scene.tell()
        return verdict


class Scene:
    """One fault's stage. `interruptions` counts what may leave a batch half done."""

    def __init__(self, rig: Rig, load: Load, options: Sequence[str]) -> None:
        self.brokers = rig.brokers
        self.load = load
        self.repliers: list[Program] = []
        self.interruptions = 0
        self.problems: list[str] = []
        self.exactly_once = "exactly-once" in options
        self._bus = ("-f", rig.config, "-t1", load.requests, "-t2", load.replies)
        self._options = options
        self._names = itertools.count()
        self._gone: list[Program] = []

    def replier(self, *options: str, module: str = "replier.py", name: str = "") -> Program:
        """Start a replier, or a module that acts as one; under a name of its own, or that of one that ended."""
        name = f"{self.load.requests}-{name or next(self._names)}"
        serving = ("--group", GROUP, "--name", name, *self._options)
        program = python(module, *options, *self._bus, *serving)
        self.repliers.append(program)
        return program

    def requestor(self, *options: str) -> Program:
        """Start a requestor beside the load."""
        program = python("requestor.py", *self._bus, *options)
        self._gone.append(program)
        return program

    def begin(self, repliers: int = 1, *options: str) -> None:
        """Start repliers and the load, and wait for the first answers."""
        for _ in range(repliers):
            self.replier(*options)
        for replier in self.repliers:
            replier.wait_for(" ready: ")
        self.load.start()
        self.load.wait_for_answers(20)

    def gone(self, replier: Program) -> None:
        """A replier that ended, or is about to, and is not to be stopped at the end."""
        self.repliers.remove(replier)
        self._gone.append(replier)

    def stop(self, replier: Program) -> list[str]:
        """Stop a replier as a user would; what is wrong with how it ended."""
        status = replier.stop()
        problems = [] if status == 0 else [f"a replier ended with {status} instead of 0"]
        if "Traceback" in str(replier):
            problems.append(f"a replier printed a traceback: {''.join(replier.err[-6:])}")
        return problems

    def tell(self) -> None:
        """What each program said, for whoever looks for the cause."""
        for program in (*self._gone, *self.repliers):
            print(program, file=sys.stderr)

    def close(self) -> None:
        """Whatever happened: nothing is left running."""
        for program in (*self.repliers, *self._gone):
            program.kill()
