"""The demo: Apache Kafka, a replier and a requestor on this machine, twenty packages and a summary.

    python3 -m tools.demo

All three are started as a user would start them. Ctrl-C stops them all.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from imagebus import stdio
from imagebus.broker import EmbeddedBroker, stop_on_signals
from imagebus.broker.jars import KAFKA_VERSION, kafka_jars
from imagebus.broker.processes import kill_child, start_child, stop_child
from imagebus.errors import BrokerError, ConfigError
from imagebus.signals import end_at_once_on_signals

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = 20
INTERVAL = 0.2  # seconds between packages: slow enough to watch, over in four seconds


def main() -> int:
    """Run the demo; 0 when every package was answered, and after Ctrl-C."""
    end_at_once_on_signals()
    stdio.open_missing_streams()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("imagebus").setLevel(logging.INFO)
    broker = EmbeddedBroker()  # on free ports: 9092 may be taken
    stop_on_signals(broker)
    try:
        kafka_jars()  # shows the download's progress; the broker finds them in the cache
        say("ready")
        with broker:
            return demonstrate(broker)
    except KeyboardInterrupt:
        return 0
    except (BrokerError, ConfigError) as error:
        stdio.say(f"demo: {error}")
        return 1
    except BrokenPipeError:  # `| head -1` has seen enough
        return 128 + signal.SIGPIPE
    except OSError as error:
        stdio.say(f"demo: {error}")
        return 1
    finally:
        stdio.flush()


def demonstrate(broker: EmbeddedBroker) -> int:
    """Start the two scripts against `broker`; returns the requestor's exit status."""
    say(f"Apache Kafka {KAFKA_VERSION} is running on {broker.bootstrap}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imagebus-demo-")))
        config = folder / "kafka.config"
        config.write_text(f"bootstrap.servers = {broker.bootstrap}\n", encoding="utf-8")
        options: list[str | Path] = ["-f", config, "-t1", "requests", "-t2", "replies", "-c", "kafka"]

        say("starting a replier")
        replier = start_child([sys.executable, ROOT / "replier.py", *options], stderr=subprocess.PIPE)
        stack.callback(kill_child, replier)
        assert replier.stderr is not None
        if not show_until_ready(replier.stderr):
            return 1
        rest = threading.Thread(target=show, args=(replier.stderr,))
        rest.start()

        say(f"starting a requestor: {PACKAGES} packages of five images")
        count = ["--count", str(PACKAGES), "--interval", str(INTERVAL)]
        requestor = start_child([sys.executable, ROOT / "requestor.py", *options, *count])
        try:
            return requestor.wait()
        finally:
            stop_child(requestor)  # on Ctrl-C it prints the summary of what was sent by then
            stop_child(replier)
            rest.join()


def show_until_ready(log: IO[bytes]) -> bool:
    """Print the replier's log up to its ready line; False when it ended without one."""
    for line in log:
        print(line.decode(errors="replace"), end="", flush=True)
        if b" ready: " in line:
            return True
    return False


def show(log: IO[bytes]) -> None:
    """Print the rest of the replier's log; what cannot be printed is read all the same, so that nothing waits."""
    for line in log:
        with suppress(OSError):
            print(line.decode(errors="replace"), end="", flush=True)


def say(line: str) -> None:
    """Print at once: the scripts print to the same terminal."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
