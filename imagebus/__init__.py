"""Request/reply image classification over a message bus.

    from imagebus import Client, connect

    with Client(connect("kafka", "kafka.config", topics=["requests", "replies"])) as client:
        print(client.predict(images))  # uint8 (N, 28, 28)

The public names are listed in `__init__.pyi`, for type checkers and editors too. Each is loaded on first use,
so importing the package costs next to nothing.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

__version__ = "0.1.0"


@cache
def _homes() -> dict[str, str]:
    """The module of each public name."""
    import re  # here, as `import imagebus` alone does not need it

    # Through the loader, which reads it in a zip file too, as from `spark-submit --py-files`.
    stub = __loader__.get_data(f"{__file__.removesuffix('.py')}.pyi").decode()
    return {name: home for home, name in re.findall(r"^from (\S+) import (\w+) as ", stub, re.MULTILINE)}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_homes())
    if name.startswith("_") or name not in _homes():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_homes()[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_homes()]
