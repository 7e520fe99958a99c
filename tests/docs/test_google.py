"""docs/google.md: gcloud knows each command and option of the page, and a shell reads them as they are meant."""

from __future__ import annotations

import runpy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..programs import ROOT
from .pages import blocks

PAGE = ROOT / "docs" / "google.md"
# In place of Google's own: each call as a line of words.
GCLOUD = 'gcloud() { printf "%q " "$@"; echo; }'


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """The tree of commands and options by which gcloud completes what is typed; it asks no cloud."""
    gcloud = shutil.which("gcloud")
    tree = gcloud and Path(gcloud).resolve().parent.parent / "data" / "cli" / "gcloud_completions.py"
    if not tree or not tree.is_file():
        pytest.skip("no gcloud here")
    known: dict[str, Any] = runpy.run_path(str(tree))["STATIC_COMPLETION_CLI_TREE"]
    return known


def commands() -> list[list[str]]:
    """The gcloud calls of the section on rights, as a shell makes them in one session."""
    script = "\n".join(block.text for block in blocks(PAGE, "sh") if block.heading == "Least rights")
    run = subprocess.run(["bash", "-euc", f"{GCLOUD}\n{script}"], capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[:4]))
def test_gcloud_knows_each_command_and_option(known: dict[str, Any], words: list[str]) -> None:
    node = known
    while words and words[0] in node["commands"]:
        node = node["commands"][words[0]]
        words = words[1:]

    assert not node["commands"], f"not a whole command: {words}"
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert options <= node["flags"].keys() | known["flags"].keys()


def test_the_rights_are_granted_to_the_two_accounts_of_the_page() -> None:
    granted = [words for words in commands() if "add-iam-policy-binding" in words]

    members = {word for words in granted for word in words if word.startswith("--member")}
    assert members == {
        f"--member=serviceAccount:{name}@my-project.iam.gserviceaccount.com"
        for name in ("requestor", "replier")
    }
    condition = next(word for words in granted for word in words if word.startswith("--condition"))
    assert condition == (
        '--condition=expression=resource.name.extract("/subscriptions/{name}").startsWith("replies-requestor-"),'
        "title=own-inbox"
    )
