"""The pages themselves: every link leads somewhere, the README stays short, and the site builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ..programs import ROOT
from .pages import ALL_PAGES, DOCS, PAGES, README, anchors, links, name, texts

CHANGELOG, CONTRIBUTING = ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"
WIDTH = 100  # columns
LINES, WORDS = 150, 1100  # of the README, and a tenth more


@pytest.mark.parametrize("page", ALL_PAGES, ids=name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page

        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", ALL_PAGES, ids=name)
def test_no_reference_is_left_without_its_link(page: Path) -> None:
    # One without a definition is shown as it was typed: [text][name].
    assert [text for text in texts(page) if "][" in text] == []


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG, CONTRIBUTING], ids=name)
def test_lines_fit_into_a_hundred_columns(page: Path) -> None:
    wide = [line for line in page.read_text(encoding="utf-8").splitlines() if len(line) > WIDTH]

    wide = [line for line in wide if not re.match(r"\[[^]]+\]: http", line)]  # a URL cannot be broken
    if page.name == "benchmarks.md":
        wide = [line for line in wide if not line.startswith("|")]
    assert wide == []


def test_the_readme_stays_short() -> None:
    text = README.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= LINES * 1.1
    assert len(text.split()) <= WORDS * 1.1


def test_the_readme_links_to_every_page() -> None:
    linked = {(ROOT / link).resolve() for link in links(README)}

    assert set(DOCS) <= linked


def test_the_changelog_begins_with_what_is_unreleased_and_has_this_version() -> None:
    text = CHANGELOG.read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    first, *released = re.findall(r"^## (.+?)(?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)

    assert first == ("Unreleased", "")
    assert all(day for _, day in released)
    assert project["version"] in [version for version, _ in released]


def test_make_docs_builds_the_site_without_a_network(checkout: Path) -> None:
    (checkout / ".venv").symlink_to(sys.prefix)
    # Where a package or anything else had to be fetched, this would fail.
    environment = {**os.environ, "PIP_NO_INDEX": "1", "https_proxy": "http://127.0.0.1:9", "MAKEFLAGS": ""}

    done = subprocess.run(
        ["make", "docs", f"PYTHON={sys.executable}"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    site = checkout / "site"
    for page in ALL_PAGES:
        assert (site / name(page)).with_suffix(".html").is_file()
    first = (site / "index.html").read_text(encoding="utf-8")
    assert 'action="search.html"' in first
    assert "poison" in (site / "searchindex.js").read_text(encoding="utf-8")
    loaded = re.findall(r'(?:<link[^>]* href|<script[^>]* src|<img[^>]* src)="([^"]*)"', first)
    assert loaded
    assert not [source for source in loaded if source.startswith(("http", "//"))]


def test_a_broken_link_fails_the_site(checkout: Path) -> None:
    (checkout / "docs" / "metrics.md").write_text("# Metrics\n\n[Nowhere](nowhere.md)\n", encoding="utf-8")

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-q",
            "-b",
            "dummy",
            "-c",
            "docs",
            ".",
            "site",
        ],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
