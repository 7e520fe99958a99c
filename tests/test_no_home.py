"""A user without a home folder, as in a container that runs under a number of its own."""

from __future__ import annotations

import gzip
import pwd
import struct
from pathlib import Path

import numpy as np
import pytest

from imagebus.broker import EmbeddedBroker
from imagebus.broker.__main__ import main
from imagebus.broker.jars import cache_folder
from imagebus.errors import ConfigError
from training import data


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "JGO_CACHE_DIR", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_the_broker_names_the_settings_that_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([])

    assert status == 1
    assert capsys.readouterr().err.endswith(
        "has no home folder to keep Apache Kafka in: set HOME or JGO_CACHE_DIR\n"
    )


def test_one_of_those_settings_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JGO_CACHE_DIR", str(tmp_path))

    assert cache_folder() == tmp_path / "imagebus"


def test_a_data_folder_in_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^the data folder ~/kafka cannot be used: there is no home"):
        EmbeddedBroker(data="~/kafka")


def test_a_given_folder_of_training_data_is_read(tmp_path: Path) -> None:
    images, labels = np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.uint8)
    for name, array in zip(data.FILES, (images, labels, images, labels), strict=True):
        header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))

    (train, _), (test, _) = data.load_data(tmp_path)

    assert len(train) == len(test) == 2
