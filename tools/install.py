"""Install the locked dependencies into `.venv` without Poetry: python3 tools/install.py [GROUP ...]

`poetry install --with GROUP` does the same. A fresh machine has no Poetry, and fetching it first would cost more
than the demo's own packages; so this reads `poetry.lock` and lets pip install exactly those versions, each file
checked against its SHA-256. Groups are those of `pyproject.toml`; `main`, for serving, is always included.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST, NEWEST = (3, 11), (3, 13)
# How pip's lines on a package begin; "Processing" is of a file on this machine.
TAKEN_UP = re.compile(
    r"(Collecting|Ignoring|Requirement already satisfied:) (?P<name>[\w.-]+)|Processing (\S*/)?(?P<file>[\w.]+)-"
)
LAST_LINES = 6  # of pip's, shown when it fails: its error, and often the reason before it


def requirements(lock: str, groups: set[str]) -> str:
    """The locked packages of `groups` as a pip requirements file with hashes."""
    import tomllib  # not above: an older Python has none, and must reach main()'s message

    lines = []
    for package in tomllib.loads(lock)["package"]:
        wanted = groups & set(package["groups"])
        # One marker for all groups, or one for each group that needs it only sometimes.
        markers = package.get("markers", "")
        if "extra ==" in (markers if isinstance(markers, str) else markers.get("main", "")):
            wanted -= {"main"}  # an extra is the group of that name once more, for pip
        if not wanted:
            continue
        if isinstance(markers, dict):
            each = list(dict.fromkeys(markers.get(group, "") for group in sorted(wanted)))
            markers = " or ".join(f"({marker})" for marker in each) if all(each) else ""
        line = f"{package['name']}=={package['version']}" + (f" ; {markers}" if markers else "")
        hashes = (f"--hash={file['hash']}" for file in package["files"])
        lines.append(" \\\n    ".join([line, *hashes]))
    return "\n".join(lines) + "\n"


def main(groups: set[str]) -> None:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"Python 3.11, 3.12 or 3.13 is needed, this is {found}: try make PYTHON=python3.13")
    wanted = requirements((ROOT / "poetry.lock").read_text(encoding="utf-8"), groups | {"main"})
    install(VENV, wanted, "-".join(sorted(groups)) or "main", "--require-hashes")


def install(folder: Path, wanted: str, name: str, *options: str) -> None:
    """Let pip install the requirements `wanted` into the environment at `folder`, unless it did before.

    `name` is what they are called there. Ends the program with one line if that fails.
    """
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    stamp = folder / f"installed-{name}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return
    try:
        make_environment(folder)
        install_packages(folder, wanted, *options)
        stamp.write_text(digest, encoding="utf-8")
    except OSError as error:
        if sys.stdout.isatty():
            print()  # the step's own line stands there, without its end
        sys.exit(f"{error.filename or folder}: {error.strerror}")


def make_environment(folder: Path) -> None:
    """Make an environment with pip in it, unless it is there: whole, or as Poetry makes it, without pip."""
    line = f"environment: {folder.name}, Python {platform.python_version()}"
    unfinished = folder / "unfinished"  # an interrupted set-up is started over
    show(f"{line} …")
    if unfinished.exists() or not (folder / "bin" / "python").exists():
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        unfinished.touch()
        venv.create(folder, symlinks=True)
    if not run(folder, "-c", "import pip")[0]:
        unfinished.touch()
        done, said = run(folder, "-m", "ensurepip")
        if not done:
            show(line, done=True)
            sys.exit(
                "this Python cannot make virtual environments; on Debian: apt install python3-venv"
                if "No module named ensurepip" in said
                else f"no pip could be put into {folder}: {(said.splitlines() or ['it does not say why'])[-1]}"
            )
    unfinished.unlink(missing_ok=True)
    show(line, done=True)


def install_packages(folder: Path, wanted: str, *options: str) -> None:
    """Run pip, and count the packages that it takes up; what it prints goes to a file."""
    listing, log = folder / "requirements.txt", folder / "pip.log"
    listing.write_text(wanted, encoding="utf-8")
    left = {normal(line.partition("==")[0]) for line in wanted.splitlines() if re.match(r"[\w.-]+==", line)}
    total, lines = len(left), []
    show(f"packages: 0 of {total}")
    with log.open("w", encoding="utf-8") as file:
        command = [
            "-m",
            "pip",
            "install",
            *options,
            "--only-binary=:all:",
            "--progress-bar=off",
            "-r",
            str(listing),
        ]
        pip = start(folder, *command)
        with pip:
            assert pip.stdout
            for line in pip.stdout:
                file.write(line)
                lines.append(line)
                said = TAKEN_UP.match(line)
                name = normal(said["name"] or said["file"]) if said else ""
                if name in left:
                    left.remove(name)
                    total -= line.startswith("Ignoring")  # for another system
                    show(f"packages: {total - len(left)} of {total}")
                elif line.startswith("Installing collected packages"):
                    show(f"packages: {total - len(left)} of {total}, unpacking …")
    show(f"packages: {total - len(left)} of {total}", done=True)
    if pip.returncode:
        print("".join(telling(lines)[-LAST_LINES:]), end="", file=sys.stderr)
        sys.exit(f"pip could not install the packages; all that it said is in {log}")


def telling(lines: list[str]) -> list[str]:
    """Pip's lines that say why it failed."""
    *retries, _ = ["", *(line for line in lines if line.startswith("WARNING: Retrying"))]
    # Pip prints a line with the expected hash of each file of that release.
    dull = re.compile(r"Ignoring |Looking in |\s*Expected +or |\s*$")
    return [line for line in lines if not dull.match(line) and line not in retries]


def normal(name: str) -> str:
    """The name of a package, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def show(line: str, *, done: bool = False) -> None:
    """A step's line: on a terminal written over the one before; elsewhere printed when the step is done."""
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="\n" if done else "", flush=True)
    elif done:
        print(line, flush=True)


def run(folder: Path, *arguments: str) -> tuple[bool, str]:
    """Whether the environment's Python succeeded, and its output."""
    with start(folder, *arguments) as process:
        said, _ = process.communicate()
    return process.returncode == 0, said


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The environment's Python, with all output on one pipe."""
    return subprocess.Popen(
        [str(folder / "bin" / "python"), *arguments],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


if __name__ == "__main__":
    try:
        main(set(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nstopped; the next run takes up where this one stopped", file=sys.stderr)
        sys.exit(130)  # as a shell says it
