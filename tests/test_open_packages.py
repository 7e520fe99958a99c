"""Open packages on disk: a folder that fills up or breaks loses nothing, and is one line."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from imagebus import Client, ConfigError, MemoryBroker, MemoryBus, OpenPackages, Package

from .buses import Bus
from .fakes import package
from .nobody import nobody, open_folder
from .programs import ROOT, Program
from .test_client import SECONDS, Answerer
from .test_streaming import answer, numbers, packages

# A file system of 100 kB that only this process sees, on the folder in $1.
MOUNT = 'mount -t tmpfs -o size=100k none "$1"'


def on_a_small_disk(folder: Path, script: str) -> list[str]:
    """A command that runs a shell's script where `folder`, its $1, is such a disk."""
    return ["unshare", "--map-root-user", "--mount", "sh", "-ec", f"{MOUNT}\n{script}", "sh", str(folder)]


needs_mount = pytest.mark.skipif(
    not shutil.which("unshare")
    or bool(subprocess.run(on_a_small_disk(ROOT, "true"), capture_output=True).returncode),
    reason="this machine lets no process mount a file system of its own",
)

FILL = """
import sys
import numpy as np
from imagebus import ConfigError, OpenPackages, Package

state = OpenPackages(sys.argv[1])
for number in range(1, 101):
    try:
        state.add(Package(np.zeros((5, 28, 28), np.uint8), number=number))
    except ConfigError as error:
        print(error)
        break
print(len(state.load()), state.next_number())
state.close()
"""

LEAVE_THREE = """
import sys
import numpy as np
from imagebus import OpenPackages, Package

state = OpenPackages(sys.argv[1])
for number in (1, 2, 3):
    state.add(Package(np.zeros((5, 28, 28), np.uint8), number=number))
"""


@needs_mount
def test_a_full_disk_is_one_line_and_the_next_start_reads_what_was_sent(tmp_path: Path) -> None:
    script = '"$2" -c "$3" "$1"; ls "$1" | grep -c new || true'

    done = subprocess.run(
        [*on_a_small_disk(tmp_path, script), sys.executable, FILL], cwd=ROOT, capture_output=True, text=True
    )

    line, count, new = done.stdout.splitlines()
    sent, following = map(int, count.split())
    assert line == f"{tmp_path}: {os.strerror(errno.ENOSPC)}, package {following} was not sent"
    assert sent == following - 1 >= 10
    assert new == "0"


def test_a_limit_on_the_size_of_files_is_one_line(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run(
        [sys.executable, "-c", FILL, tmp_path], cwd=ROOT, capture_output=True, text=True, preexec_fn=limit
    )

    assert done.stdout == f"{tmp_path}: {os.strerror(errno.EFBIG)}, package 1 was not sent\n0 1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_what_was_not_wholly_written_is_gone_with_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "1.new").write_bytes(b"{")

    OpenPackages(tmp_path).close()

    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_folder_that_is_gone_while_it_is_used_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    state = OpenPackages(folder)
    shutil.rmtree(folder)

    with pytest.raises(ConfigError) as refused:
        state.add(Package(package(1), number=7))

    assert str(refused.value) == f"{folder}: {os.strerror(errno.ENOENT)}, package 7 was not sent"
    state.remove("7")
    state.close()


def test_a_folder_that_may_not_be_listed_is_not_taken_for_an_empty_one() -> None:
    with open_folder() as folder:
        state = OpenPackages(folder)
        state.add(Package(package(1)))
        folder.chmod(0o311)

        with nobody(), pytest.raises(ConfigError, match="Permission denied"):
            state.load()

        folder.chmod(0o700)
        state.close()


def test_a_package_keeps_truths_and_files(tmp_path: Path) -> None:
    state = OpenPackages(tmp_path)
    sent = Package(package(1, 2), ("Bag", "Coat"), 3, files=("a/x.png", "\\xff\n.png"))

    state.add(sent)

    (left,) = state.load()
    assert (left.truths, left.number, left.id, left.files) == (sent.truths, 3, sent.id, sent.files)
    np.testing.assert_array_equal(left.images, sent.images)
    state.close()


def test_a_folder_that_fails_ends_a_stream_behind_the_outcomes_of_what_was_sent(tmp_path: Path) -> None:
    def source() -> Iterator[Package]:
        yield from packages(2)
        (tmp_path / "state").rename(
            tmp_path / "gone"
        )  # at once: the outcomes shown meanwhile delete their files
        yield from packages(4)[2:]

    broker = MemoryBroker()
    state = OpenPackages(tmp_path / "state")
    with Client(MemoryBus(broker), timeout=SECONDS) as client, ThreadPoolExecutor(1) as aside:
        stream = client.stream(source(), state=state)
        answered = aside.submit(answer, Answerer(broker), 2)

        shown = numbers([next(stream), next(stream)])

        answered.result()
        with pytest.raises(ConfigError, match="package 3 was not sent"):
            next(stream)
    state.close()
    assert shown == [1, 2]


@needs_mount
def test_a_requestor_on_a_full_disk_shows_what_is_answered_before_its_line(bus: Bus, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    bus.replier()
    # Three packages are open, and the disk is full; the next package is larger than what they leave.
    script = """
folder=$1 python=$2 left=$3; shift 3
"$python" -c "$left" "$folder"
dd if=/dev/zero of="$folder/full" 2>/dev/null || true
"$python" requestor.py "$@" --state "$folder" --interval 0 --batch-size 200 || echo "status $?"
rm "$folder/full"
"$python" requestor.py "$@" --state "$folder" --interval 0 --count 1
ls "$folder"
"""

    shell = Program(*on_a_small_disk(folder, script), sys.executable, LEAVE_THREE, *bus.options())

    assert shell.wait() == 0, str(shell)
    ended = shell.out.index("status 2\n")
    shown = [line.split()[1] for line in shell.out[:ended] if line.startswith("package ")]
    assert sorted(shown) == ["1", "2", "3"]
    assert "sent 3, answered 3, failed 0, lost 0\n" in shell.out[:ended]
    assert [line for line in shell.err if "requestor.py" in line] == [
        f"requestor.py: {folder}: {os.strerror(errno.ENOSPC)}, package 4 was not sent\n"
    ]
    assert "sent 1, answered 1, failed 0, lost 0\n" in shell.out[ended:]
    assert shell.out[-1] == "lock\n"


def test_an_empty_file_as_a_power_cut_leaves_it_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Package(package(1))
    packages = OpenPackages(tmp_path)
    packages.add(whole)
    (tmp_path / "cut.open").touch()

    assert [each.id for each in packages.load()] == [whole.id]
    assert caplog.messages == [
        f"{tmp_path / 'cut.open'}: empty, as a power cut leaves it: the package is lost"
    ]
    assert not (tmp_path / "cut.open").exists()
    packages.close()


def test_two_in_one_process_are_refused_as_two_processes_are(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    first = OpenPackages(tmp_path)

    with pytest.raises(ConfigError, match="another requestor is using it"):
        OpenPackages(tmp_path / "link")
    source = f"from imagebus import OpenPackages; OpenPackages({str(tmp_path)!r})"
    other = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert "another requestor is using it" in other.stderr

    first.close()
    OpenPackages(tmp_path).close()
