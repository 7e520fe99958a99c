"""What the two scripts share: the four options, one-line errors, and stopping on a signal."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from imagebus.errors import ConfigError, ImageBusError
from imagebus.transports import CLOUDS

EXIT_FAILED = 1
EXIT_USAGE = 2  # as argparse's own: a flag, a file or a setting is wrong


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that both scripts have."""
    options = argparse.ArgumentParser(
        description=(description or "").partition("\n")[0],
        formatter_class=_Help,
    )
    bus = options.add_argument_group("bus")
    bus.add_argument(
        "-f", dest="config", metavar="FILE", default="kafka.config", help="config file of the cluster"
    )
    bus.add_argument(
        "-t1", dest="requests", metavar="TOPIC", default="requests", help="topic of the requests"
    )
    bus.add_argument("-t2", dest="replies", metavar="TOPIC", default="replies", help="topic of the replies")
    bus.add_argument(
        "-c", dest="cloud", choices=CLOUDS, default="kafka", help="which kind of bus the config file names"
    )
    bus.add_argument("--partitions", type=positive, default=6, metavar="N", help="of topics that are created")
    options.add_argument("--verbose", action="store_true", help="log each message")
    return options


def positive(text: str) -> int:
    """A whole number of at least 1, as an argparse type."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def count(text: str) -> int:
    """A whole number of at least 0, as an argparse type."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return number


def port(text: str) -> int:
    """A TCP port, as an argparse type."""
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 65535")
    return number


def duration(text: str) -> float:
    """A number of at least 0 in the unit that the option names, as an argparse type."""
    number = float(text)
    if not 0 <= number < float("inf"):  # NaN is neither
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return number


def time_limit(text: str) -> float:
    """A number above 0 in the unit that the option names, as an argparse type."""
    number = duration(text)
    if not number:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def configure_logging(*, verbose: bool) -> None:
    """Log to stderr, one line each; the bus client's own log only from warnings on."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.DEBUG if verbose else logging.INFO
    )
    # Most lines of librdkafka repeat what is already reported as an error, in its own words.
    logging.getLogger("imagebus.transports.kafka.driver").setLevel(logging.CRITICAL + 1)
    for library in ("PIL", "google", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call `stop` on the first SIGINT or SIGTERM; the second one ends the process at once."""

    def first(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    signal.signal(signal.SIGINT, first)
    signal.signal(signal.SIGTERM, first)


def run(main: Callable[[], int]) -> None:
    """Exit with what `main` returns; an error of this project becomes one line and an exit code."""
    try:
        code = main()
        sys.stdout.flush()
    except ConfigError as error:
        code = _say(error, EXIT_USAGE)
    except ImageBusError as error:
        code = _say(error, EXIT_FAILED)
    except KeyboardInterrupt:  # before the script could say how it wants to stop
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # `| head -1` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _say(error: ImageBusError, code: int) -> int:
    print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    return code
