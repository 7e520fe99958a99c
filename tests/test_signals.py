"""A signal ends a program whenever it comes, also as process 1, which every container has."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagebus.broker.ports import free_ports
from imagebus.broker.processes import descendants

from .programs import ROOT, SECONDS, Program

ALONE = ("unshare", "--pid", "--fork", "--kill-child")  # in a process namespace, where the first is number 1
Start = Callable[..., Program]


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """The programs heed every signal, also where the tests run under nohup or behind a shell's `&`."""
    numbers = (signal.SIGHUP, signal.SIGQUIT)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def alone() -> tuple[str, ...]:
    """What starts a command as process 1; skips where the system lets nobody do that."""
    for command in (ALONE, (*ALONE, "--user", "--map-root-user")):
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
        except FileNotFoundError:  # macOS
            break
    pytest.skip("no process namespaces here")


@pytest.fixture
def start(alone: tuple[str, ...]) -> Iterator[Start]:
    """Starts a program of this project as process 1."""
    programs: list[Program] = []

    def started(*command: str | Path) -> Program:
        programs.append(Program(*alone, sys.executable, *command))
        return programs[-1]

    yield started
    for program in programs:
        program.kill()


def send(program: Program, number: signal.Signals) -> None:
    """To the program itself: a child of `unshare`, beside the shell that watches this."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(program.pid)], capture_output=True, text=True, check=True
    ).stdout
    (pid,) = [line.split()[0] for line in listed.splitlines() if line.split()[1] != "sh"]
    subprocess.run(["kill", "-s", str(int(number)), pid], check=True)


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("program", ["requestor.py", "replier.py", "imagebus.replay"])
def test_process_1_ends_while_no_broker_answers(
    start: Start, silent_server: socket.socket, tmp_path: Path, program: str, number: signal.Signals
) -> None:
    config = tmp_path / "kafka.config"
    config.write_text(f"bootstrap.servers = 127.0.0.1:{silent_server.getsockname()[1]}\n")
    name = [ROOT / program] if program.endswith(".py") else ["-m", program]
    connecting = start(*name, "-f", config)
    assert select.select([silent_server], [], [], SECONDS)[0], connecting

    send(connecting, number)

    assert connecting.wait() == 128 + number
    assert connecting.err == []


def test_process_1_ends_during_its_imports(start: Start, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import signal\nprint('importing', flush=True)\nsignal.pause()\n")
    (tmp_path / "kafka.config").write_text("bootstrap.servers = 127.0.0.1:1\n")
    first = f"import sys, runpy; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; sys.argv = ['requestor.py', '-f', "
    rest = f"{str(tmp_path / 'kafka.config')!r}]; runpy.run_path({str(ROOT / 'requestor.py')!r}, run_name='__main__')"
    importing = start("-c", first + rest)
    importing.wait_for("importing")

    send(importing, signal.SIGTERM)

    assert importing.wait() == 128 + signal.SIGTERM
    assert importing.err == []


IN_A_LIBRARY = """
import sys
from imagebus.signals import end_at_once_on_signals
end_at_once_on_signals()
from confluent_kafka.admin import AdminClient
AdminClient({"bootstrap.servers": sys.argv[1]}).list_topics(timeout=600)
"""


def test_process_1_ends_while_a_library_does_not_return(start: Start, silent_server: socket.socket) -> None:
    program = start("-c", IN_A_LIBRARY, f"127.0.0.1:{silent_server.getsockname()[1]}")
    assert select.select([silent_server], [], [], SECONDS)[0], program

    send(program, signal.SIGTERM)

    assert program.wait() == 128 + signal.SIGTERM


@pytest.mark.usefixtures("kafka_jars_here")
def test_the_broker_as_process_1_stops_in_order(start: Start) -> None:
    (port,) = free_ports(1)
    broker = start("-m", "imagebus.broker", "--port", str(port))
    broker.wait_for("ready: Apache Kafka")
    kafka = descendants(broker.pid)

    send(broker, signal.SIGTERM)

    assert broker.wait() == 0
    assert len(kafka) > 1


FINISHING = """
import signal, time
from imagebus.signals import on_stop_signal
on_stop_signal(lambda: print("stopping", flush=True))
print("up", flush=True)
while True:
    time.sleep(60)
"""


def test_the_second_signal_ends_process_1_too(start: Start) -> None:
    program = start("-c", FINISHING)
    program.wait_for("up")

    send(program, signal.SIGTERM)
    program.wait_for("stopping")
    send(program, signal.SIGTERM)

    assert program.wait() == 128 + signal.SIGTERM


def test_a_closed_terminal_stops_a_program_in_order_but_not_one_under_nohup() -> None:
    command = (sys.executable, "-c", FINISHING)
    programs = [Program(*command), Program("sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *command)]
    for program in programs:
        program.wait_for("up")
        program.send(signal.SIGHUP)

    with_terminal, under_nohup = programs
    with_terminal.wait_for("stopping")
    under_nohup.send(signal.SIGTERM)
    under_nohup.wait_for("stopping")

    assert with_terminal.stop(signal.SIGHUP) == -signal.SIGHUP
    assert under_nohup.out == ["up\n", "stopping\n"]
    assert under_nohup.stop(signal.SIGTERM) == -signal.SIGTERM
