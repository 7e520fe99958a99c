"""The commands of an installed package: `imagebus-requestor`, `imagebus-replier`, `imagebus-replay`."""

from __future__ import annotations

import runpy

from imagebus.shipped import shipped


def requestor() -> None:
    """`requestor.py`, wherever it is installed."""
    _run("requestor.py")


def replier() -> None:
    """`replier.py`, wherever it is installed."""
    _run("replier.py")


def replay() -> None:
    """`python3 -m imagebus.replay`."""
    from imagebus.signals import end_at_once_on_signals

    end_at_once_on_signals()  # before the other imports, as the scripts do
    from imagebus import cli
    from imagebus import replay as program

    cli.run(program.main)


def _run(script: str) -> None:
    runpy.run_path(str(shipped(script)), run_name="__main__")
