"""The pages as their readers get them: fenced blocks, commands, tables, links and headings."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ..programs import ROOT

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]  # what is executed
ALL_PAGES = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "models").glob("*.md")),
    ROOT / "imagebus" / "data" / "README.md",
]


def name(page: Path) -> str:
    """A page as a test's id: docs/wire.md."""
    return page.relative_to(ROOT).as_posix()


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Block:
    """A fenced block, and the heading it stands under."""

    page: Path
    heading: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its command lines, each whole where a backslash continues it."""
        return self.text.replace("\\\n", "").splitlines()


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced blocks of a language, in order."""
    found, heading = [], ""
    for before, token in pairwise(tokens(page)):
        if before.type == "heading_open":
            heading = token.content
        if token.type == "fence" and token.info == language:
            found.append(Block(page, heading, language, token.content))
    return found


def documented(beginning: str) -> list[str]:
    """The command of the pages that begins so, as a list of arguments for this Python.

    A test that runs what it gets from here runs what readers are told to type.
    """
    (command,) = {
        command
        for page in PAGES
        for block in blocks(page, "sh")
        for command in block.commands
        if command.startswith(beginning)
    }
    program, *arguments = shlex.split(command)
    return [sys.executable if program == "python3" else program, *arguments]


def table(page: Path, first_column: str) -> list[list[str]]:
    """The rows of the table whose first column is called so, cell by cell, in Markdown."""
    rows: list[list[str]] = []
    for token in tokens(page):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            rows[-1].append(token.content)
        elif token.type == "table_close":
            if rows[0][0] == first_column:
                return rows[1:]
            rows = []
    raise AssertionError(f"{name(page)} has no table of {first_column}")


def code(cell: str) -> list[str]:
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def links(page: Path) -> list[str]:
    """The targets of all links and pictures."""
    return [
        str(token.attrs.get("href") or token.attrs["src"])
        for token in _inline(page)
        if token.type in ("link_open", "image")
    ]


def texts(page: Path) -> list[str]:
    """The texts outside of code."""
    return [token.content for token in _inline(page) if token.type == "text"]


def anchors(page: Path) -> set[str]:
    """What `#` may be followed by: each heading in lower case, without punctuation, with hyphens for spaces."""
    all_tokens = tokens(page)
    headings = [inline.content for opening, inline in pairwise(all_tokens) if opening.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _inline(page: Path) -> Iterator[Token]:
    for token in tokens(page):
        yield from token.children or ()
