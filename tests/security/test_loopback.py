"""What the embedded broker and the metrics page listen on: this machine alone."""

from __future__ import annotations

import ipaddress
import struct
import sys
from pathlib import Path

import pytest

from imagebus.broker import EmbeddedBroker
from imagebus.broker.ports import free_ports

from .conftest import Start, Write

LISTENING = "0A"  # as /proc/net/tcp writes the state

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def listens_on(pid: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses that a process accepts connections on, one for each socket."""
    links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    mine = {str(link) for link in links}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENING and f"socket:[{inode}]" in mine:
                found.append(_address(local.partition(":")[0]))
    return found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address from the kernel's tables: 32-bit words in the machine's own order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    return getattr(address, "ipv4_mapped", None) or address


def test_the_embedded_broker_listens_on_loopback_only(broker: EmbeddedBroker) -> None:
    (pid,) = broker.pids

    addresses = listens_on(pid)

    assert len(addresses) >= 3  # for clients, for nodes and for the controller
    assert all(address.is_loopback for address in addresses)


def test_the_metrics_page_listens_on_loopback_only(
    broker: EmbeddedBroker, written: Write, start: Start
) -> None:
    (port,) = free_ports(1)
    config = written({"bootstrap.servers": broker.bootstrap})
    replier = start("replier.py", "-f", config, "-t1", "re-q", "-t2", "re-p", "--metrics-port", str(port))
    replier.wait_for(" ready: ")

    addresses = listens_on(replier.pid)

    assert [str(address) for address in addresses] == ["127.0.0.1"]
    assert replier.stop() == 0
