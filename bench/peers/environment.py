"""The peers' own environment, `.venv-peers`: made on the first run, again when the list changes."""

from __future__ import annotations

from pathlib import Path

from bench.program import ROOT
from tools.install import install

FOLDER = ROOT / ".venv-peers"
PYTHON = FOLDER / "bin" / "python"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
PEERS = {"FastStream": "faststream", "Quix Streams": "quixstreams", "MLServer": "mlserver"}


def pins(text: str) -> dict[str, str]:
    """name -> version, of a list in which each line is `name==version` or a comment."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return {name: version for name, _, version in (line.partition("==") for line in lines if line)}


def set_up() -> None:
    """Install what the list says, unless it is there; ends the program with a line when that fails."""
    install(FOLDER, REQUIREMENTS.read_text(encoding="utf-8"), "peers")


def versions() -> str:
    """The peers and their versions, for a sentence."""
    pinned = pins(REQUIREMENTS.read_text(encoding="utf-8"))
    return ", ".join(f"{title} {pinned[name]}" for title, name in PEERS.items())
