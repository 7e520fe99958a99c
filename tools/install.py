"""Install the locked dependencies into `.venv` without Poetry: python3 tools/install.py [GROUP ...]

`poetry install --with GROUP` does the same for those who have Poetry. A fresh machine does not, and fetching
Poetry first would cost more than what the demo needs; so this reads `poetry.lock` and lets pip
install exactly those versions, each file checked against its SHA-256. Groups are the ones of
`pyproject.toml`; `main`, what serving needs, is always among them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST, NEWEST = (3, 11), (3, 13)


def requirements(lock: str, groups: set[str]) -> str:
    """The locked packages of `groups` as a pip requirements file with hashes."""
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

    `name` is what they are called there. Ends the program with a line when that fails.
    """
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    stamp = folder / f"installed-{name}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return
    make_environment(folder)
    listing = folder / "requirements.txt"
    listing.write_text(wanted, encoding="utf-8")
    print(f"installing {wanted.count('==')} locked packages: {name}", flush=True)
    if not run(folder, "-m", "pip", "install", *options, "--only-binary=:all:", "-r", str(listing)):
        sys.exit("pip could not install the packages; its last lines say why")
    stamp.write_text(digest, encoding="utf-8")


def make_environment(folder: Path) -> None:
    """Make an environment with pip in it, unless it is there: whole, or as Poetry makes it, without pip."""
    there = (folder / "bin" / "python").exists()
    if there and (run(folder, "-c", "import pip", quiet=True) or run(folder, "-m", "ensurepip")):
        return
    print(f"making a virtual environment in {folder.name}", flush=True)
    try:
        venv.create(folder, with_pip=True, clear=True)  # an interrupted set-up leaves half of one
    except subprocess.CalledProcessError:
        sys.exit("this Python cannot make virtual environments; on Debian: apt install python3-venv")


def run(folder: Path, *arguments: str, quiet: bool = False) -> bool:
    """Whether the environment's Python ran with success; its output is the progress that is shown."""
    command = [str(folder / "bin" / "python"), *arguments]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(command, env=environment, capture_output=quiet, check=False).returncode == 0


if __name__ == "__main__":
    try:
        main(set(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it; the next run takes up where this one stopped
