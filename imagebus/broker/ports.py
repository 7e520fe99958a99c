"""Free ports on loopback."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Sequence

# Systems give client sockets higher ones (from 32768 on Linux, 49152 on macOS), so no client can be sitting on
# a killed node's port when the node comes back.
FREE_PORTS = range(20000, 32000)


def free_ports(count: int, avoid: Sequence[int] = ()) -> list[int]:
    """So many free ports in a row, which stay this process's until it ends; none of those to `avoid`.

    Between the choice of a port and the moment when a server listens there, seconds pass. A UDP socket of the
    same number marks it as taken: of two processes only one can bind it, and it goes with its process.
    """
    while True:
        first = random.choice(FREE_PORTS[: 1 - count or None])
        ports = list(range(first, first + count))
        if all(port not in avoid and _take(port) for port in ports):
            return ports


def bind_error(host: str, port: int) -> OSError | None:
    """The error of listening there now; None if a server could."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does
            server.bind((host, port))
    except OSError as error:
        return error
    return None


def _take(port: int) -> bool:
    """Mark a port as this process's. False where another one has it, or something listens there."""
    mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        mark.bind(("127.0.0.1", port))
    except OSError as error:
        mark.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    mark.detach()  # open as long as the process runs
    return bind_error("127.0.0.1", port) is None
