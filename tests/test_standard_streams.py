"""The programs with a standard output that is closed, full, or read by somebody who has seen enough."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .buses import Bus
from .programs import ROOT, Program

REQUESTOR = (sys.executable, ROOT / "requestor.py")


def with_streams(redirections: str, *command: str | Path) -> Program:
    """A command with its streams redirected as a shell does it."""
    return Program(
        *("env", "-u", "PYTHONUNBUFFERED", "bash", "-c"),
        *(f'set -o pipefail; "$@" {redirections}', "bash", *command),
    )


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_on_a_full_disk_is_one_line(option: str) -> None:
    program = with_streams(">/dev/full", *REQUESTOR, option)

    assert program.wait() == 1
    assert program.err == ["requestor.py: standard output: No space left on device\n"]


@pytest.mark.parametrize("module", ["requestor.py", "replier.py", "imagebus.replay", "imagebus.broker"])
@pytest.mark.parametrize("redirections", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_mistake_has_its_exit_status_whatever_the_streams(module: str, redirections: str) -> None:
    name = [ROOT / module] if module.endswith(".py") else ["-m", module]
    wrong = ["--port", "70000"] if module == "imagebus.broker" else ["-f", "nowhere.config"]

    program = with_streams(redirections, sys.executable, *name, *wrong)

    assert program.wait() == 2
    assert "Traceback" not in str(program)


def test_without_a_standard_output_the_work_is_done(bus: Bus) -> None:
    bus.replier()

    requestor = with_streams(">&-", *REQUESTOR, *bus.options(), "--count", "3", "--interval", "0")

    assert requestor.wait() == 0
    assert requestor.err == []


def test_a_reader_that_has_seen_enough_ends_it_quietly(bus: Bus) -> None:
    bus.replier()

    requestor = with_streams("| head -1", *REQUESTOR, *bus.options(), "--interval", "0.01")

    assert requestor.wait() == 141
    assert len(requestor.out) == 1
    assert requestor.err == []


def test_on_a_full_disk_the_work_is_done_and_what_was_not_shown_is_kept(bus: Bus, tmp_path: Path) -> None:
    bus.replier()
    options = (*bus.options(), "--count", "3", "--interval", "0", "--json", "--state", tmp_path / "state")

    full = with_streams(">/dev/full", *REQUESTOR, *options)

    assert full.wait() == 1
    assert len([line for line in full.err if "standard output: No space left on device" in line]) == 1
    assert "sent 3, answered 3, failed 0, lost 0\n" in full.err
    assert "Traceback" not in str(full)

    again = bus.start("requestor.py", *map(str, options[len(bus.options()) :]))

    assert again.wait() == 0
    assert [f'"package": {number}' in "".join(again.out) for number in range(1, 7)] == [True] * 6


def test_the_demo_ends_quietly_when_its_reader_has_seen_enough() -> None:
    demo = with_streams("| head -1", sys.executable, "-m", "tools.demo")

    assert demo.wait() == 141
    assert demo.out == ["ready\n"]
    assert demo.err == []


def test_the_repliers_log_may_be_closed(bus: Bus) -> None:
    replier = with_streams("2>&-", sys.executable, ROOT / "replier.py", *bus.serving())
    requestor = bus.start("requestor.py", "--count", "1")

    assert requestor.wait() == 0
    replier.kill()
    assert replier.out == []
