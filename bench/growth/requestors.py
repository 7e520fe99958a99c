"""Many requestors in one process, each with a connection of its own, and their cost together.

    python -m bench.growth.requestors CONFIG REQUESTS REPLIES COUNT PACKAGES [own]

Together they have `IN_FLIGHT` packages in flight. With `own`, each gets its replies in one partition.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from bench.ground import PACKAGE
from imagebus import Client, connect, load_images

IN_FLIGHT = 512  # packages, of all together
TIMEOUT = 120.0  # seconds


def main(config: str, requests: str, replies: str, count: str, packages: str, own: str = "") -> None:
    images, _ = load_images().package(0, PACKAGE)
    each = int(packages) // int(count)

    def ask(client: Client, amount: int) -> None:
        for _ in client.map((images for _ in range(amount)), in_flight=max(1, IN_FLIGHT // int(count))):
            pass

    with ExitStack() as open_, ThreadPoolExecutor(int(count)) as threads:
        clients = [
            open_.enter_context(
                Client(
                    connect("kafka", config, own_partition=bool(own)),
                    requests=requests,
                    replies=replies,
                    timeout=TIMEOUT,
                )
            )
            for _ in range(int(count))
        ]
        list(threads.map(lambda client: ask(client, 1), clients))
        began, cpu = time.perf_counter(), time.process_time()
        list(threads.map(lambda client: ask(client, each), clients))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        read = each * len(clients) + sum(client.ignored.total() for client in clients)
    figures = {"packages": each * len(clients), "read": read, "seconds": seconds, "cpu": cpu}
    print("done:", json.dumps(figures), file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
