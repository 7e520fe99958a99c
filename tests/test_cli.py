"""What the programs share, and who speaks of flags."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagebus import cli
from imagebus.errors import ConfigError, Fenced, GroupConflict, TransportError

from .programs import ROOT

PROGRAMS = {"cli.py", "replay.py"}  # of the package: these have flags of their own


def test_the_flag_stands_before_what_the_package_says_of_its_value() -> None:
    with (
        pytest.raises(ConfigError, match=r"^--images nowhere: no such file or folder$"),
        cli.flag("--images"),
    ):
        raise ConfigError("nowhere: no such file or folder")


def test_a_flag_stands_before_the_one_kind_of_error_that_it_can_mend() -> None:
    with (
        pytest.raises(GroupConflict, match=r"^--group mine: not alone$"),
        cli.flag("--name x:", Fenced),
        cli.flag("--group mine:", GroupConflict),
    ):
        raise GroupConflict("not alone")


def test_a_failure_of_the_bus_is_nobodys_flag() -> None:
    with pytest.raises(TransportError, match=r"^no broker answers$"), cli.flag("--images"):
        raise TransportError("no broker answers")


def flags_of(script: str) -> set[str]:
    command = [sys.executable, script, "--help"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  (--?[a-z][a-z0-9-]*)", printed, re.MULTILINE))


def texts(path: Path) -> Iterator[str]:
    """The string literals of a module that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.value


def test_the_package_speaks_of_files_and_parameters_not_of_the_scripts_flags() -> None:
    flags = flags_of("requestor.py") | flags_of("replier.py")
    speaks_of_one = re.compile(rf"(^|[\s(])({'|'.join(map(re.escape, flags))})($|[\s:;,)])")

    found = [
        f"{path.name}: {text}"
        for path in (ROOT / "imagebus").rglob("*.py")
        if path.name not in PROGRAMS
        for text in texts(path)
        if " " in text and speaks_of_one.search(text)
    ]

    assert {"-f", "-t1", "--model", "--state"} <= flags
    assert found == []


@pytest.mark.parametrize("end", ["return 3", "raise ConfigError('wrong')", "sys.exit(2)"])
def test_a_program_ends_before_the_c_library_ends_what_other_threads_use(end: str) -> None:
    """As OpenSSL does, which librdkafka's threads may be using: `abort` stands for a crash in them."""
    program = f"""
import ctypes, sys
from imagebus import cli
from imagebus.errors import ConfigError
library = ctypes.CDLL(None)
library.__cxa_atexit(library.abort, None, None)
def main():
    print("shown", end="")
    {end}
cli.run(main)
"""

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == (3 if "3" in end else 2)
    assert done.stdout == "shown"
