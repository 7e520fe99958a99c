"""The embedded broker's command line: python3 -m imagebus.broker [--port 9092] [--nodes 1|3] [--data DIR]."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Sequence

import imagebus
from imagebus import stdio
from imagebus.broker import EmbeddedBroker, stop_on_signals
from imagebus.broker.jars import KAFKA_VERSION
from imagebus.errors import BrokerError, ConfigError
from imagebus.signals import end_at_once_on_signals

WATCH = 0.1  # seconds between two checks of running nodes


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 after Ctrl-C or SIGTERM, 2 for a wrong flag, 1 for the rest."""
    end_at_once_on_signals()
    stdio.open_missing_streams()
    parser = argparse.ArgumentParser(
        prog="python3 -m imagebus.broker",
        description="Real Apache Kafka on this machine, on loopback only. Ctrl-C stops it.",
    )
    parser.add_argument("--port", type=int, default=9092, help="for clients (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=1, choices=(1, 3), help="1, or 3 with copies on each")
    parser.add_argument("--data", metavar="DIR", help="keep topics and offsets there")
    parser.add_argument("--version", action="version", version=f"imagebus {imagebus.__version__}")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("imagebus").setLevel(logging.INFO)
    output = stdio.Output()
    try:
        _serve(EmbeddedBroker(options.port, options.nodes, options.data), output)
    except KeyboardInterrupt:
        return 1 if output.failed else 0
    except (ConfigError, BrokerError) as error:
        stdio.say(f"error: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    finally:
        stdio.flush()
    return 0


def _serve(broker: EmbeddedBroker, output: stdio.Output) -> None:
    """Run until a signal raises KeyboardInterrupt, or a node dies and `check` raises BrokerError."""
    stop_on_signals(broker)
    with broker:
        where = f"in {broker.data}" if broker.data else "in a temporary folder"
        output.print(
            f"ready: Apache Kafka {KAFKA_VERSION} on {broker.bootstrap}, data {where} (Ctrl-C stops it)"
        )
        while True:
            broker.check()
            time.sleep(WATCH)


if __name__ == "__main__":
    sys.exit(main())
