"""One broker and one Pub/Sub emulator for a whole test run, however many processes run its tests.

`make test` runs the tests in several processes. The one that hands them out lends the others what they share: it
starts it when the first of them asks, and ends it after the last.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Self, cast
from xmlrpc.client import ServerProxy
from xmlrpc.server import SimpleXMLRPCServer

from imagebus.broker import EmbeddedBroker
from imagebus.broker.jars import kafka_jars
from tools.pubsub_emulator import PubSubEmulator


class LentBroker(EmbeddedBroker):
    """A broker that a lender started, and ends."""

    def __init__(self, port: int, pids: list[int]) -> None:
        super().__init__(port)
        self._pids = pids

    @property
    def pids(self) -> list[int]:
        return self._pids


class Lender:
    """Starts what is asked for, once. Use it with `with`; thread-safe."""

    def __init__(self) -> None:
        # Some tests let members of a group die, and have it missed sooner.
        self._broker = EmbeddedBroker(config={"group.min.session.timeout.ms": "1000"})
        self._emulator = PubSubEmulator()
        self._fetching, self._starting_broker, self._starting_emulator = (threading.Lock() for _ in range(3))
        self._open = ExitStack()

    def fetch_kafka(self) -> str:
        """Fetch Apache Kafka where it is not there yet; raises BrokerError where it cannot be had."""
        with self._fetching:
            return str(kafka_jars()[0].parent)

    def broker(self) -> tuple[int, list[int]]:
        """Port and process ids of a broker with one node."""
        with self._starting_broker:
            if not self._broker.pids:
                self._open.enter_context(self._broker)
        return self._broker.ports[0], self._broker.pids

    def emulator(self) -> int:
        """The emulator's port."""
        with self._starting_emulator:
            if not self._emulator.processes():
                self._open.enter_context(self._emulator)
        return self._emulator.port

    def serve(self) -> str:
        """Answer other processes too; the URL for their `lender_at`."""
        server = _Server(("127.0.0.1", 0), logRequests=False)
        self._open.callback(server.server_close)
        self._open.callback(server.shutdown)
        for question in (self.fetch_kafka, self.broker, self.emulator):
            server.register_function(question)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


class _Server(ThreadingMixIn, SimpleXMLRPCServer):
    """A thread for each question: who asks for the broker does not wait for the emulator."""

    daemon_threads = True


def lender_at(url: str) -> Lender:
    """The lender of another process, which answers the same; what it raises is an `xmlrpc.client.Fault`."""
    return cast(Lender, ServerProxy(url))
