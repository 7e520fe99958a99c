"""What the programs share: their common options, one-line errors and exit status."""

from __future__ import annotations

import argparse
import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imagebus
from imagebus import stdio
from imagebus.checks import LONGEST_SECONDS
from imagebus.errors import ConfigError, ErrorCode, ImageBusError
from imagebus.transports import CLOUDS

EXIT_FAILED = 1
EXIT_USAGE = 2  # as argparse's own: a wrong flag, file or setting


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def parser(description: str | None, *, exit_status: str, replies: bool = True) -> argparse.ArgumentParser:
    """An argument parser with the options that all programs have: `-t2` only with `replies`.

    `exit_status` says in the help what 0 and 1 mean.
    """
    options = argparse.ArgumentParser(
        description=(description or "").partition("\n")[0],
        epilog=f"Exit status: {exit_status}, 2 for a bad flag, file or setting.",
        formatter_class=_Help,
    )
    add = options.add_argument_group("bus").add_argument
    add(
        "-f",
        dest="config",
        type=config_file,
        metavar="FILE",
        default="kafka.config",
        help="Kafka settings, or a service account's JSON with -c google",
    )
    add("-t1", dest="requests", metavar="TOPIC", default="requests", help="topic for requests")
    if replies:
        add("-t2", dest="replies", metavar="TOPIC", default="replies", help="topic for replies")
    add("-c", dest="cloud", choices=CLOUDS, default="kafka", help="kind of bus that FILE is for")
    add("--partitions", type=positive, default=6, metavar="N", help="partitions of topics it creates")
    options.add_argument("--verbose", action="store_true", help="log every message")
    options.add_argument("--version", action="version", version=f"imagebus {imagebus.__version__}")
    return options


def add_replay_options(group: argparse._ArgumentGroup) -> None:
    """The options of `imagebus.replay`, which `replier.py` takes too."""
    add = group.add_argument
    add("--dry-run", action="store_true", help="list the dead letters without re-sending any")
    add(
        "--code",
        choices=sorted(ErrorCode),
        metavar="CODE",
        help="re-send only those with this code, such as KILLER",
    )
    add("--max-rounds", type=positive, default=3, metavar="N", help="times one message may be re-sent")


def config_file(path: str) -> str:
    """An existing file, as an argparse type, but with a one-line error; `connect` judges its content."""
    if not Path(path).exists():
        raise ConfigError(f"-f {path}: no such file")
    return path


def dead_letter_topic(requests: str) -> str:
    """The topic for requests that cannot be answered."""
    return f"{requests}.dlt"


def check_topics(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for replies that would be read as requests or dead letters."""
    if args.replies in (args.requests, dead_letter_topic(args.requests)):
        raise ConfigError(f"-t2 {args.replies}: the replies need a topic of their own")


def name(text: str) -> str:
    """A name that is not empty, as an argparse type."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


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
    """A number from 0 to a billion in the unit that the option names, as an argparse type."""
    number = float(text)
    if not 0 <= number <= LONGEST_SECONDS:  # NaN is neither
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to {LONGEST_SECONDS:,.0f}")
    return number


def time_limit(text: str) -> float:
    """A number above 0 in the unit that the option names, as an argparse type."""
    number = duration(text)
    if not number:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def configure_logging(*, verbose: bool) -> None:
    """Log to stderr, one line each, and from other libraries only warnings."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.DEBUG if verbose else logging.INFO
    )
    # Most of librdkafka's lines repeat errors that are already reported.
    logging.getLogger("imagebus.transports.kafka.driver").setLevel(logging.CRITICAL + 1)
    for library in ("PIL", "google", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)


@contextmanager
def flag(name: str, kind: type[ImageBusError] = ConfigError) -> Iterator[None]:
    """Put the flag that can mend an error before it: the package's own errors name files and parameters."""
    try:
        yield
    except kind as error:
        raise type(error)(f"{name} {error}") from None


def run(main: Callable[[], int]) -> None:
    """Exit with what `main` returns; an error of this project becomes one line and an exit code."""
    codes: list[int] = []
    # Before anything else registers: the first is the last to be called.
    atexit.register(_end_process, codes)
    stdio.open_missing_streams()
    stdio.escape_unknown_characters()
    code: str | int | None
    try:
        code = main()
    except SystemExit as end:  # argparse's
        code = end.code
    except ConfigError as error:
        code = _say(error, EXIT_USAGE)
    except ImageBusError as error:
        code = _say(error, EXIT_FAILED)
    except KeyboardInterrupt as interrupt:
        code = 128 + (interrupt.args or (signal.SIGINT,))[0]
    except BrokenPipeError:  # `| head -1` has seen enough
        code = 128 + signal.SIGPIPE
    failure = stdio.flush()
    if isinstance(failure, BrokenPipeError):
        code = 128 + signal.SIGPIPE
    elif failure is not None and not code:
        code = _say(f"standard output: {failure.strerror}", EXIT_FAILED)
    if isinstance(code, int):
        codes.append(code)
    sys.exit(code)


def _end_process(codes: list[int]) -> None:
    """End with this code at once, when Python has done what it does at its end.

    The C library would go on to free OpenSSL's data, which librdkafka's threads may still be using: on a busy machine,
    3 of 240 processes whose certificate was refused ended by SIGSEGV.
    """
    if codes:
        logging.shutdown()
        stdio.flush()
        os._exit(codes[0])


def _say(error: ImageBusError | str, code: int) -> int:
    stdio.say(f"{Path(sys.argv[0]).name}: {error}")
    return code
