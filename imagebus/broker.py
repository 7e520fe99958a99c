"""The embedded broker: real Apache Kafka on this machine, for the demo, the tests and a first look.

    python3 -m imagebus.broker [--port 9092] [--nodes 1|3] [--data DIR]

One node, or three with every record on all of them, each a Java process that is broker and KRaft
controller in one. They listen on the loopback interface only and cannot outlive this process.
The first start fetches Kafka and Java's share of it into the user's cache (`kafka_jars.py`).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from imagebus.errors import BrokerError, ConfigError
from imagebus.kafka_jars import KAFKA_VERSION, Java, cache_folder, find_java, kafka_jars
from imagebus.processes import Child, kill_child, start_child, stop_child

START_LIMIT = 60.0  # seconds; measured 3.5 on two idle cores, 6 for three nodes
STOP_LIMIT = 10.0  # seconds; measured 0.4
ARCHIVE_LIMIT = 60.0  # seconds that a stop may take when it also writes the class archive; measured 2 to 10
POLL = 0.02  # seconds between two looks at a starting node's log
WATCH = 0.1  # seconds between two looks at the running nodes

# Below the ports that systems give to client sockets (from 32768 on Linux, 49152 on macOS): else a
# client could be sitting on a killed node's port when that node comes back.
FREE_PORTS = range(20000, 32000)

JVM_FLAGS = (
    "-Xmx64m",  # MB of heap; measured enough for the load of the benchmarks
    "-XX:+UseSerialGC",  # the smallest collector, made for heaps like this
    "-XX:TieredStopAtLevel=1",  # the quick compiler alone: starts sooner, needs less memory
    "-XX:+ExitOnOutOfMemoryError",  # a node without memory dies and is seen, instead of limping
    "-XX:-UsePerfData",  # else each JVM leaves a file in /tmp when it is killed
    "-Xlog:all=error",  # remarks about class archives are no help to anyone here
    "-Dlog4j2.configurationFile=log4j2.properties",
)

READY = b"Kafka Server started"  # logged when every listener accepts and the controller knows the node
LOG4J = """\
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.ready.name = kafka.server.KafkaRaftServer
logger.ready.level = info
"""

log = logging.getLogger(__name__)


class EmbeddedBroker:
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
            raise ConfigError(f"--nodes is 1 or 3, not {nodes}")
        if port is not None and not 1 <= port <= 65536 - nodes:
            raise ConfigError(f"--port is between 1 and {65536 - nodes}, not {port}")
        self.ports = _client_ports(port, nodes)
        self.bootstrap = ",".join(f"localhost:{port}" for port in self.ports)
        self.stopping = False
        self._data = Path(data).expanduser().absolute() if data is not None else None
        self._config = dict(config or {})
        self._folder: Path | None = None  # of all nodes, once started
        self._nodes: list[_Node] = []

    def start(self) -> Self:
        """Fetch what is missing, start every node and wait until all are ready."""
        self.stopping = False
        try:
            java, jars = find_java(), kafka_jars()
            _check_free(self.ports)
            if self._data is None:
                self._folder = Path(tempfile.mkdtemp(prefix="imagebus-broker-"))
            else:
                self._folder = self._data
                _check_unused(self._folder)
            cluster_id = _open_cluster(self._folder, len(self.ports))
            self._nodes = self._lay_out(cluster_id, self._folder, _Runtime(java, jars))
            self.restart(*range(len(self._nodes)))
        except OSError as error:
            self.close()
            raise ConfigError(f"the data folder {self._folder} cannot be used: {error.strerror}") from error
        except BaseException:
            self.close()
            raise
        return self

    def _lay_out(self, cluster_id: str, folder: Path, runtime: _Runtime) -> list[_Node]:
        count = len(self.ports)
        inner = _free_ports(2 * count, avoid=self.ports)
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
            nodes.append(_Node(i, folder / f"node-{i}", cluster_id, properties, runtime))
        return nodes

    @property
    def pids(self) -> list[int]:
        """Process ids of the running nodes."""
        return [node.child.pid for node in self._nodes if node.child and node.child.poll() is None]

    def check(self) -> None:
        """Raise BrokerError when a node has died that nobody killed here."""
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
        """Let a frozen node go on."""
        self._nodes[node].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop every node cleanly and remove a temporary folder. Safe to call twice."""
        self.stopping = True
        for node in self._nodes:
            node.ask_to_stop()  # all at once: stopping takes as long as the slowest, not as all together
        for node in self._nodes:
            node.stop()
        if self._data is None and self._folder is not None:
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
