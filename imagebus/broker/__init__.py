"""The embedded broker: real Apache Kafka on this machine, for the demo, the tests and a first look.

    python3 -m imagebus.broker [--port 9092] [--nodes 1|3] [--data DIR]

One node, or three with every record on all of them; each is a Java process, broker and KRaft
controller in one. They listen on the loopback interface only and cannot outlive this process. The
first start fetches Apache Kafka, and nothing is installed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from imagebus.broker.jars import find_java, kafka_jars
from imagebus.broker.node import Node, Runtime, new_id
from imagebus.broker.ports import bind_error, free_ports
from imagebus.errors import BrokerError, ConfigError, TransportError
from imagebus.forking import OfOneProcess
from imagebus.signals import is_ignored

START_LIMIT = 60.0  # seconds until all nodes are ready, by a slow machine's first start
POLL = 0.02  # seconds between two checks of starting nodes

SERVER_PROPERTIES = {
    "log.dirs": "log",  # in the node's folder, where its process runs
    "auto.create.topics.enable": "false",  # a misspelled topic is an error; the scripts create theirs
    "num.partitions": "6",  # of a topic made without saying how many: up to six repliers share it
    "group.initial.rebalance.delay.ms": "0",  # a first consumer need not wait three seconds for a second
    "offsets.topic.num.partitions": "5",  # not 50: made when the first group joins, five in a blink
    "transaction.state.log.num.partitions": "5",  # the same for the first transaction
    "log.cleaner.dedupe.buffer.size": "4194304",  # bytes; the default of 128 MB is twice the heap
}


class EmbeddedBroker(OfOneProcess):
    """Apache Kafka on this machine while the `with` block runs.

    `port` is the first node's, the others follow it; None picks free ones. `data` is a folder that
    keeps topics and offsets between runs, on any port; None is a temporary one, removed at the end.
    `config` adds or replaces server properties. Clients meet the listeners `CLIENTS` and, where the
    machine has IPv6, `CLIENTS6`; the nodes talk over `NODES` and `CONTROLLER`.

    `start` blocks until every node answers. It raises ConfigError for a port or folder that cannot
    be used and BrokerError when Kafka cannot be fetched or does not start. Not for use by several
    threads at once.
    """

    def __init__(
        self,
        port: int | None = None,
        nodes: int = 1,
        data: str | Path | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        if nodes not in (1, 3):
            raise ConfigError(f"nodes is 1 or 3, not {nodes}")
        if port is not None and not 1 <= port <= 65536 - nodes:
            raise ConfigError(f"port is between 1 and {65536 - nodes}, not {port}")
        self.ports = list(range(port, port + nodes)) if port else free_ports(nodes)
        self.bootstrap = ",".join(f"localhost:{port}" for port in self.ports)
        self.stopping = False
        self.data = None if data is None else _absolute(data)
        self._config = dict(config or {})
        self._folder: Path | None = None  # of all nodes, once started
        self._nodes: list[Node] = []

    def start(self) -> Self:
        """Fetch what is missing, start every node and wait until all are ready."""
        self.stopping = False
        try:
            java, jars = find_java(), kafka_jars()
            _check_free(self.ports)
            if self.data is None:
                self._folder = Path(tempfile.mkdtemp(prefix="imagebus-broker-"))
            else:
                self._folder = self.data
                _check_unused(self._folder)
            cluster_id = _open_cluster(self._folder, len(self.ports))
            self._nodes = self._lay_out(cluster_id, self._folder, Runtime(java, jars))
            self.restart(*range(len(self._nodes)))
        except OSError as error:
            self.close()
            where = error.filename or self._folder or "a temporary folder"
            raise ConfigError(f"{where} cannot be used: {error.strerror}") from error
        except BaseException:
            self.close()
            raise
        return self

    def _lay_out(self, cluster_id: str, folder: Path, runtime: Runtime) -> list[Node]:
        count = len(self.ports)
        inner = free_ports(2 * count, avoid=self.ports)
        node_ports, controller_ports = inner[:count], inner[count:]
        voters = ",".join(f"{i}@127.0.0.1:{port}" for i, port in enumerate(controller_ports, start=1))
        nodes = []
        for i, (client, node, controller) in enumerate(
            zip(self.ports, node_ports, controller_ports, strict=True), start=1
        ):
            properties = {
                "process.roles": "broker,controller",
                "node.id": str(i),
                "controller.quorum.voters": voters,
                "controller.listener.names": "CONTROLLER",
                "inter.broker.listener.name": "NODES",
                **_listeners(client, node, controller),
                **_replication(count),
                **SERVER_PROPERTIES,
                **self._config,
            }
            nodes.append(Node(i, folder / f"node-{i}", cluster_id, properties, runtime))
        return nodes

    @property
    def pids(self) -> list[int]:
        """Process ids of the running nodes."""
        return [node.child.pid for node in self._nodes if node.child and node.child.poll() is None]

    def check(self) -> None:
        """Raise BrokerError when a node has died that was not killed here."""
        for node in self._nodes:
            node.check()

    def kill(self, *nodes: int) -> None:
        """Kill nodes, counted from 0, as a crash would: SIGKILL."""
        for i in nodes:
            self._nodes[i].kill()

    def restart(self, *nodes: int) -> None:
        """Start nodes again on their data, after a clean stop where they run, and wait until ready.

        Three nodes need two for a quorum: after more were killed, restart them in one call.
        """
        for i in nodes:
            self._nodes[i].stop()
        # The first node writes the class archive, where there is none yet.
        for i in nodes:
            self._nodes[i].start(may_archive=i == 0)
        deadline = time.monotonic() + START_LIMIT
        while not all(self._nodes[i].is_ready() for i in nodes):
            for i in nodes:
                self._nodes[i].check()
            if time.monotonic() > deadline:
                raise BrokerError(f"Apache Kafka was not ready after {START_LIMIT:.0f} seconds")
            time.sleep(POLL)

    def pause(self, node: int) -> None:
        """Freeze a node, counted from 0: it keeps its connections and answers nothing."""
        self._nodes[node].send_signal(signal.SIGSTOP)

    def resume(self, node: int) -> None:
        """Resume a frozen node."""
        self._nodes[node].send_signal(signal.SIGCONT)

    def _left_behind(self, _: TransportError) -> None:
        self._nodes, self._folder = [], None  # the nodes and their data are the parent's to end

    def close(self) -> None:
        """Stop every node cleanly and remove a temporary folder. Safe to call twice."""
        self.stopping = True
        for node in self._nodes:
            node.ask_to_stop()  # all at once: stopping takes as long as the slowest, not as all together
        for node in self._nodes:
            node.stop()
        if self.data is None and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def abort(self) -> None:
        """Kill every node; a `close` that is under way then ends at once."""
        for node in self._nodes:
            node.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _absolute(folder: str | Path) -> Path:
    """The folder, whatever the working directory; ConfigError where `~`, or that, is none."""
    try:
        return Path(folder).expanduser().absolute()
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no home folder"
        raise ConfigError(f"the data folder {folder} cannot be used: {reason}") from None


def _listeners(client: int, node: int, controller: int) -> dict[str, str]:
    """A node's listeners. `localhost` may mean ::1 to a client, so that is served where it exists."""
    listeners = {"CLIENTS": f"127.0.0.1:{client}"}
    if bind_error("::1", client) is None:
        listeners["CLIENTS6"] = f"[::1]:{client}"
    listeners["NODES"] = f"127.0.0.1:{node}"
    advertised = {name: f"127.0.0.1:{node if name == 'NODES' else client}" for name in listeners}
    listeners["CONTROLLER"] = f"127.0.0.1:{controller}"
    return {
        "listeners": ",".join(f"{name}://{address}" for name, address in listeners.items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
    }


def _replication(nodes: int) -> dict[str, str]:
    """Every record on every node; with three, two must have it before a producer hears of success."""
    copies, in_sync = str(nodes), str(min(nodes, 2))
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def _check_free(ports: Sequence[int]) -> None:
    for port in ports:
        error = bind_error("127.0.0.1", port)
        other = bind_error("::1", port)
        if error is None and other and other.errno == errno.EADDRINUSE:  # else: no IPv6 here
            error = other
        if error:
            raise ConfigError(f"port {port} cannot be used ({error.strerror}): choose another port")


def _check_unused(folder: Path) -> None:
    """Raise ConfigError when a live node holds the lock on its part of the folder."""
    for lock in folder.glob("node-*/log/.lock"):
        with lock.open("r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"the data folder {folder} is in use by a running broker") from None


def _open_cluster(folder: Path, nodes: int) -> str:
    """The id of the cluster in `folder`, which is begun where the folder is empty or missing.

    Raises ConfigError for a folder with other things in it, or with another number of nodes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "cluster.json"
    if note.exists():
        try:
            cluster = json.loads(note.read_text(encoding="utf-8"))
            cluster_id, made_for = str(cluster["id"]), int(cluster["nodes"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{note} cannot be read: it is not what a broker left there") from None
        if made_for != nodes:
            raise ConfigError(f"the data folder {folder} was made with nodes={made_for}, not {nodes}")
        return cluster_id
    if any(folder.iterdir()):
        raise ConfigError(f"the data folder {folder} is neither empty nor a broker's: choose another")
    cluster_id = new_id()
    unfinished = folder / "cluster.json.new"
    unfinished.write_text(json.dumps({"id": cluster_id, "nodes": nodes}), encoding="utf-8")
    unfinished.replace(note)
    return cluster_id


def stop_on_signals(broker: EmbeddedBroker) -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt; another one cuts the broker's stop short."""

    def on_signal(_: int, _frame: FrameType | None) -> None:
        if broker.stopping:
            broker.abort()
        else:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or not is_ignored(number):
            signal.signal(number, on_signal)
