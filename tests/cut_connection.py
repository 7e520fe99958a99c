"""A cable between clients and a server on this machine that can be cut."""

from __future__ import annotations

import contextlib
import math
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

PIECE = 65536  # bytes carried at a time
SMALL_PIECE = 4096  # on a slow line
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what was not sent yet is thrown away


class Cable:
    """Carries the connections that come to `host` on to a server, also given as host:port.

    `rate` is in bytes a second, each way and for each connection, `delay` in seconds, each way. `watch` is called with
    each piece before it is carried, and may close the cable; not for slow ones.

    `cut` breaks all of them at once; new ones are carried again at once, or after `mend`.
    """

    def __init__(self, server: str, port: int = 0, *, rate: float = math.inf, delay: float = 0.0) -> None:
        name, _, number = server.rpartition(":")
        self._server = (name, int(number))
        self._rate, self._delay = rate, delay
        self.watch: Callable[[bytes], object] = len  # what it returns counts for nothing
        self._listener = socket.create_server(("127.0.0.1", port))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.carried = 0  # connections so far
        self._whole = True
        self._lock = threading.Lock()  # for `_whole` and `_ends`
        self._ends: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut(self, *, mend: bool = True) -> int:
        """Break all connections, and say how many. Without `mend`, new ones are broken too."""
        with self._lock:
            self._whole = mend
            for end in self._ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                with contextlib.suppress(OSError):  # it has just ended by itself
                    end.shutdown(socket.SHUT_RDWR)  # wakes those who read and write it, who then close it
            return len(self._ends) // 2

    def mend(self) -> None:
        """Carry new connections again."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """Break all connections and take no more. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._accepting.join()
        self._listener.close()
        self.cut(mend=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.socket() as server:
            ends = {client, server}
            for end in ends:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if not self._whole:
                    return
                self._ends |= ends
                self.carried += 1
            try:
                server.connect(self._server)
                back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
                back.start()
                self._copy(client, server)
                back.join()
            except OSError:  # nobody listens there: the client's connection ends, as it would without a cable
                pass
            finally:
                with self._lock:
                    self._ends -= ends

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        """Carry what one end says to the other, until either ends."""
        if self._rate == math.inf and not self._delay:
            _carry_at_once(source, target, self.watch)
        else:
            _carry_slowly(source, target, self._rate, self._delay)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _carry_at_once(source: socket.socket, target: socket.socket, watch: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            watch(piece)
            target.sendall(piece)


def _carry_slowly(source: socket.socket, target: socket.socket, rate: float, delay: float) -> None:
    """As a long thin line does: what is on its way does not keep the next from leaving."""
    under_way: queue.Queue[tuple[float, bytes]] = queue.Queue(
        maxsize=1000
    )  # with time.monotonic() of its arrival

    def deliver() -> None:
        with contextlib.suppress(OSError):
            while True:
                arrival, piece = under_way.get()
                time.sleep(max(0.0, arrival - time.monotonic()))
                if not piece:
                    return
                target.sendall(piece)

    delivering = threading.Thread(target=deliver, daemon=True)
    delivering.start()
    free = 0.0  # time.monotonic() at which the line takes the next piece
    with contextlib.suppress(OSError):
        while piece := source.recv(SMALL_PIECE):
            free = max(free, time.monotonic()) + len(piece) / rate
            time.sleep(max(0.0, free - time.monotonic()))
            under_way.put((free + delay, piece))
    under_way.put((time.monotonic(), b""))
    delivering.join()
