"""The public names: listed, found, documented, and light to import."""

from __future__ import annotations

import inspect
import pickle
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import imagebus
from imagebus.errors import BadMessage


def test_every_public_name_is_there_and_documented() -> None:
    for name in imagebus.__all__:
        found = getattr(imagebus, name)

        assert found.__module__.startswith("imagebus.")
        assert inspect.getdoc(found), f"{name} has no docstring"


def test_every_public_method_is_documented() -> None:
    undocumented = [
        f"{name}.{method}"
        for name in imagebus.__all__
        for method, function in inspect.getmembers(getattr(imagebus, name), inspect.isfunction)
        if not method.startswith("_") and not inspect.getdoc(function)
    ]

    assert undocumented == []


def test_the_public_names_are_listed_once_and_found_by_a_star() -> None:
    names: dict[str, object] = {}

    exec("from imagebus import *", names)

    stub = Path(imagebus.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    assert stub.count(" as ") == len(set(imagebus.__all__)) == len(set(names) - {"__builtins__"})
    assert set(imagebus.__all__) <= set(dir(imagebus))


def test_the_public_names_are_found_in_a_zip_file(tmp_path: Path) -> None:
    package = Path(imagebus.__file__).parent
    archive = shutil.make_archive(str(tmp_path / "packages"), "zip", package.parent, package.name)
    code = f"import sys; sys.path.insert(0, {archive!r}); from imagebus import MemoryBus; print(MemoryBus.__module__)"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout == "imagebus.transports.memory\n"


@pytest.mark.parametrize(
    "error",
    [
        imagebus.RequestFailed("SHAPE", "images are N,28,28", retryable=True),
        BadMessage("SHAPE", "images are N,28,28"),
        imagebus.RequestTimeout("no reply"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_whole_out_of_a_pool_of_processes(error: imagebus.ImageBusError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_no_module_of_the_package_imports_tensorflow() -> None:
    modules = [module.name for module in pkgutil.walk_packages(imagebus.__path__, "imagebus.")]
    code = f"import importlib, sys; [importlib.import_module(m) for m in {modules}]; print('tensorflow' in sys.modules)"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "imagebus.transports.kafka" in modules
    assert printed == "False\n"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import imagebus, sys; print([m for m in ('numpy', 'onnxruntime', 'confluent_kafka') if m in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed == "[]\n"
