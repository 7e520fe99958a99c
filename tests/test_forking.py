"""A forked child: what its parent made is refused at once there, and the parent's goes on."""

from __future__ import annotations

import copy
import os
import pickle
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from textwrap import dedent, indent

import numpy as np
import pytest
from confluent_kafka import Producer

from imagebus.broker import EmbeddedBroker
from imagebus.classifier import OnnxClassifier
from imagebus.client import Client
from imagebus.open_packages import Package
from imagebus.shipped import shipped
from imagebus.transports.memory import MemoryBroker, MemoryBus
from imagebus.wire.message import Message
from imagebus.worker import Worker

from .buses import Bus
from .fakes import FirstPixel, package
from .programs import SECONDS, Program
from .test_client import Answerer

ONE = package(1)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def in_child(ask: Callable[[], object]) -> str:
    """What `ask` returns or raises in a forked child, which ends without cleaning up."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = repr(ask())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    answered, _, _ = select.select([reading], [], [], SECONDS)
    if not answered:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read() or "it hung"


@pytest.fixture
def memory() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def client(memory: MemoryBroker) -> Iterator[Client]:
    with Client(MemoryBus(memory), timeout=SECONDS) as client:
        yield client


CALLS: dict[str, Callable[[Client], object]] = {
    "submit": lambda client: client.submit(ONE),
    "predict": lambda client: client.predict(ONE),
    "map": lambda client: list(client.map([ONE])),
    "stream": lambda client: next(client.stream([Package(ONE)])),
    "with": lambda client: client.__enter__(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_client_is_refused_in_the_child_and_the_parents_goes_on(
    client: Client, memory: MemoryBroker, call: Callable[[Client], object]
) -> None:
    answerer = Answerer(memory)

    said = in_child(lambda: call(client))

    future = client.submit(ONE)
    answerer.answer(answerer.request())
    assert future.result(SECONDS).predictions
    assert said == (
        "TransportError: this Client belongs to the process that made it: make one in each process, after a fork"
    )


def test_a_future_that_is_open_fails_in_the_child_and_not_in_the_parent(
    client: Client, memory: MemoryBroker
) -> None:
    answerer = Answerer(memory)
    future = client.submit(ONE)
    called: list[object] = []
    future.add_done_callback(called.append)

    said = in_child(future.result)

    assert said.startswith("TransportError: this Client belongs to the process that made it")
    answerer.answer(answerer.request())
    assert future.result(SECONDS).predictions


def test_a_fork_while_the_clients_locks_are_held_refuses_all_the_same(client: Client) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with client._lock:
            held.set()
            go_on.wait(SECONDS)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(SECONDS)

    said = in_child(lambda: client.predict(ONE))
    closed = in_child(client.close)  # the method that was found before the fork, as `atexit` keeps it
    go_on.set()
    holder.join()

    assert said.startswith("TransportError: this Client belongs to the process that made it")
    assert closed == "None"


def test_a_stream_that_is_under_way_ends_in_the_child(client: Client, memory: MemoryBroker) -> None:
    answerer = Answerer(memory)
    stream = client.stream(Package(ONE, number=number) for number in (1, 2))
    waiting: Future[object] = Future()
    thread = threading.Thread(target=lambda: waiting.set_result(next(stream)))
    thread.start()
    answerer.answer(answerer.request())
    thread.join()

    said = in_child(lambda: next(stream))

    assert said.startswith("TransportError: this Stream belongs to the process that made it")
    answerer.answer(answerer.request())
    assert [outcome.package.number for outcome in stream] == [2]


def test_a_bus_an_inbox_a_member_and_a_worker_are_refused_too(memory: MemoryBroker) -> None:
    bus = MemoryBus(memory)
    inbox, member = bus.inbox("replies"), bus.join("requests", "repliers")
    worker = Worker(member, FirstPixel(), replies="replies", dead_letter_topic="requests.dlt")
    calls: dict[str, Callable[[], object]] = {
        "MemoryBus": lambda: bus.publish(Message("requests", b"")),
        "MemoryInbox": lambda: inbox.receive(1, SECONDS),
        "MemoryMember": lambda: member.receive(1, SECONDS),
        "Worker": lambda: worker.run(),
    }

    said = {name: in_child(call) for name, call in calls.items()}

    assert said == {
        name: f"TransportError: this {name} belongs to the process that made it: "
        "make one in each process, after a fork"
        for name in calls
    }
    assert in_child(bus.close) == in_child(worker.stop) == "None"
    assert not bus.closed


def test_a_child_makes_a_client_of_its_own(client: Client) -> None:
    def ask() -> object:
        memory = MemoryBroker()
        with Client(MemoryBus(memory), timeout=SECONDS) as ours:
            answerer = Answerer(memory)
            future = ours.submit(ONE)
            answerer.answer(answerer.request())
            return len(future.result(SECONDS).predictions)

    assert in_child(ask) == "1"
    assert client.failure is None


def test_a_model_that_was_loaded_before_the_fork_predicts_in_the_child() -> None:
    classifier = OnnxClassifier(shipped("models/fashion.onnx"), threads=2)
    images = np.zeros((200, 28, 28), np.uint8)  # so many that several threads share them
    expected = classifier.predict(images)

    said = in_child(lambda: bool(np.array_equal(classifier.predict(images), expected)))

    assert said == "True"


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda each: each.__name__)
def test_a_client_does_not_travel_to_another_process(
    client: Client, copied: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match="this Client belongs to the process that made it"):
        copied(client)


def test_a_child_neither_stops_the_parents_broker_nor_deletes_its_data(kafka_jars_here: None) -> None:
    with EmbeddedBroker() as broker:
        said = [in_child(broker.close), in_child(lambda: broker.__exit__(None, None, None))]

        broker.check()
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        assert producer.list_topics(timeout=SECONDS).brokers
        assert broker._folder is not None
        assert broker._folder.exists()
    assert said == ["None", "None"]


# How a child may end: with all that an interpreter does at its end, or without.
FORKS = {
    "os.fork and sys.exit": """
        pid = os.fork()
        if not pid:
            child()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """,
    "os.fork and the end of the program": """
        pid = os.fork()
        if not pid:
            child()
        elif os.waitpid(pid, 0)[1]:
            sys.exit("the child failed")
    """,
    "multiprocessing": """
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
        pid = 1
    """,
    "a pool of processes": """
        with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
            pool.submit(child).result()
        pid = 1
    """,
}
PROGRAM = """
    import atexit, concurrent.futures, gc, multiprocessing, os, sys
    import numpy as np
    import imagebus

    cloud, config, requests, replies = sys.argv[1:]
    images = np.zeros((1, 28, 28), np.uint8)

    def make():
        bus = imagebus.connect(cloud, config, topics=[requests, replies])
        return imagebus.Client(bus, requests=requests, replies=replies, timeout=60)

    def child():
        global client, dropped
        for call in (lambda: client.predict(images), lambda: client.submit(images), lambda: client._bus.inbox("x")):
            try:
                call()
            except imagebus.TransportError as error:
                print(error, flush=True)
        client.close()
        try:
            with make() as ours:
                print(len(ours.predict(images)), "of its own", flush=True)
        except imagebus.TransportError as error:
            print(error, flush=True)
        client = dropped = None
        gc.collect()

    with make() as client:
        dropped = make()
        atexit.register(dropped.close)
        atexit.register(dropped._bus.close)
        print(len(client.predict(images)), "before", flush=True)
        FORK
        if pid:
            print(len(client.predict(images)), "afterwards", flush=True)
            dropped.close()
"""


def forks(bus: Bus, how: str) -> None:
    bus.replier()
    program = dedent(PROGRAM).replace("    FORK", indent(dedent(FORKS[how]).strip(), "    "))
    running = Program(sys.executable, "-c", program, bus.cloud, bus.config, bus.requests, bus.replies)

    status = running.wait()

    # gRPC says at a fork that it leaves its own threads as they are.
    assert (status, [line for line in running.err if "fork_posix" not in line]) == (0, []), running
    kafka = bus.cloud == "kafka"
    assert [re.split(" belongs| before this", line)[0].strip() for line in running.out] == [
        "1 before",
        "this Client",
        "this Client",
        "this KafkaBus" if kafka else "this PubSubBus",
        "1 of its own" if kafka else "gRPC was in use",
        "1 afterwards",
    ]


@pytest.mark.parametrize("how", FORKS)
def test_on_kafka_the_child_is_refused_and_ends_and_the_parents_client_goes_on(bus: Bus, how: str) -> None:
    forks(bus, how)


def test_on_pubsub_the_child_is_refused_and_ends_and_the_parents_client_goes_on(google_config: Path) -> None:
    bus = Bus(google_config, "google")
    try:
        forks(bus, "os.fork and sys.exit")
    finally:
        bus.close()
