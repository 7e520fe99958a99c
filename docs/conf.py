"""The documentation as a site: README.md is its first page. `make docs` builds it and fetches nothing meanwhile.

The source folder is the repository itself, so that a relative link in a page holds on the site and on a
repository host alike.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sphinx.application import Sphinx

from imagebus.forking import OfOneProcess

project = "imagebus"
author = "the authors of imagebus"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "models/*.md", "imagebus/data/*.md"]
exclude_patterns = [".*", "site"]  # .venv alone holds thirty thousand files
html_theme = "furo"
html_title = project
html_copy_source = False
html_use_index = False
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of NumPy and of inner modules have no page here
default_role = "code"  # docstrings are written for an editor: `name` is code
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as they stand in the code
autodoc_type_aliases = {"Images": "Images", "Probabilities": "Probabilities"}  # not what NumPy makes of them
myst_heading_anchors = 3  # as a repository host gives every heading one

del OfOneProcess.__new__  # Sphinx would show its parameters in place of the classes' own

# A page names itself as its first heading does. Left out of it, README.md needs no directive that only Sphinx reads.
CONTENTS = """

```{toctree}
:hidden:

docs/configuration
docs/reliability
docs/wire
docs/api
docs/metrics
docs/security
docs/google
docs/training
docs/benchmarks
docs/design
CHANGELOG
CONTRIBUTING
```

```{toctree}
:hidden:
:caption: Models and data
:glob:

models/*
imagebus/data/README
```
"""


def add_contents(_: Sphinx, page: str, source: list[str]) -> None:
    """The pages beside the first one, in reading order."""
    if page == root_doc:
        source[0] += CONTENTS


def write_index(app: Sphinx, failure: Exception | None) -> None:
    """The first page once more, under the name that a web server looks for."""
    if failure is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def mark_examples(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Indented lines behind a blank one are an example: `::` tells reStructuredText so."""
    for place in range(len(lines) - 1, 1, -1):
        before, blank, line = lines[place - 2 : place + 1]
        if line.startswith("    ") and not blank and before and not before.startswith(" "):
            lines[place - 1 : place] = ["", "::", ""]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", mark_examples)
    app.connect("source-read", add_contents)
    app.connect("build-finished", write_index)
