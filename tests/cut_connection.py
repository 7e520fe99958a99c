"""A cable between clients and a server on this machine that can be cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

PIECE = 65536  # bytes carried at a time
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what was not sent yet is thrown away


class Cable:
    """Carries the connections that come to `host` on to a server, also given as host:port.

    `cut` breaks all of them at once; new ones are carried again at once, or after `mend`.
    """

    def __init__(self, server: str) -> None:
        name, _, port = server.rpartition(":")
        self._server = (name, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
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
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join()
            except OSError:  # nobody listens there: the client's connection ends, as it would without a cable
                pass
            finally:
                with self._lock:
                    self._ends -= ends


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Carry what one end says to the other, until either ends."""
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
