"""The house: imports run one way, and every module is on the map in CONTRIBUTING.md."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from .programs import ROOT

FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in ROOT.glob("imagebus/**/*.py")
}
MODULES = {name.removesuffix(".__init__"): file for name, file in FILES.items()}
# From the ground up: what stands on a floor imports nothing of those above it.
FLOORS = (
    "imagebus.errors",
    "imagebus.wire",
    "imagebus.transports",
    "imagebus.client imagebus.worker",
    "imagebus.cli",
)


def imports(file: Path) -> set[str]:
    """The modules of the package that a file imports, at its top or later."""
    nodes = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    named = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return {name if name in MODULES else name.rpartition(".")[0] for name in named} & MODULES.keys()


def test_imports_run_one_way() -> None:
    graph = {name: imports(file) - {name} for name, file in MODULES.items()}

    order = list(TopologicalSorter(graph).static_order())  # raises where there is a circle

    assert len(order) == len(MODULES)
    for floor, roots in enumerate(FLOORS):
        above = tuple(root for other in FLOORS[floor + 1 :] for root in other.split())
        for name in MODULES:
            if name.startswith(tuple(roots.split())):
                assert not [each for each in graph[name] if each.startswith(above)], name


def test_every_module_of_the_package_is_on_the_map() -> None:
    house = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = {"kafka", "pubsub"}  # each has a map of its own, in its docstring

    for name, file in FILES.items():
        room = file.parent.name
        page = (file.parent / "__init__.py").read_text(encoding="utf-8") if room in rooms else house
        assert file.name == "__init__.py" or file.name in page, name
