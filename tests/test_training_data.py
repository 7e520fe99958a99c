"""Fashion-MNIST: where it comes from; what is given is used or refused."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from imagebus.images import SAMPLE
from tests.idx import Array, write_idx
from training import data as training_data
from training.data import FILES, load_data


@pytest.fixture(scope="module")
def sample() -> tuple[Array, Array]:
    with np.load(SAMPLE) as arrays:
        return arrays["images"], arrays["labels"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Keras's cache and Debian's folder, both of them empty; a download meets a closed port."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(training_data, "DEBIAN", tmp_path / "debian")
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:1")
    return tmp_path / "keras" / "datasets" / "fashion-mnist", tmp_path / "debian"


def test_data_come_from_keras_cache_then_from_debian(
    places: tuple[Path, Path], sample: tuple[Array, Array]
) -> None:
    images, labels = sample
    found = []

    for number, place in reversed(list(enumerate(places, start=1))):
        write_idx(place, images[: 3 * number], labels[: 3 * number])
        (train, _), (test, _) = load_data()
        found.append(len(train) + len(test))

    assert found == [6, 3]


@pytest.mark.parametrize("ending", ["-ubyte.gz", "-ubyte"])
def test_data_of_a_folder_keep_images_labels_and_the_split(
    ending: str, tmp_path: Path, sample: tuple[Array, Array]
) -> None:
    images, labels = sample
    folder = write_idx(tmp_path, images[:30], labels[:30], ending=ending)

    (train_images, train_labels), (test_images, test_labels) = load_data(folder)

    np.testing.assert_array_equal(train_images, images[:20])
    np.testing.assert_array_equal(train_labels, labels[:20])
    np.testing.assert_array_equal(test_images, images[20:30])
    np.testing.assert_array_equal(test_labels, labels[20:30])


def test_files_with_a_dot_and_some_gzipped_are_used_too(tmp_path: Path, sample: tuple[Array, Array]) -> None:
    images, labels = sample
    folder = write_idx(tmp_path, images[:30], labels[:30], ending="-ubyte")
    file = folder / f"{FILES[0]}-ubyte"
    (folder / f"{FILES[1]}-ubyte").rename(folder / "train-labels.idx1-ubyte")
    (folder / f"{FILES[0]}-ubyte.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()

    (train_images, _), (test_images, _) = load_data(folder)

    assert (len(train_images), len(test_images)) == (20, 10)


def test_an_npz_file_with_keras_names_is_used(tmp_path: Path, sample: tuple[Array, Array]) -> None:
    images, labels = sample
    path = tmp_path / "fashion.npz"
    np.savez(path, x_train=images[:20], y_train=labels[:20], x_test=images[20:30], y_test=labels[20:30])

    (train_images, _), (test_images, test_labels) = load_data(path)

    assert len(train_images) == 20
    np.testing.assert_array_equal(test_images, images[20:30])
    np.testing.assert_array_equal(test_labels, labels[20:30])


def test_a_given_folder_without_the_data_is_refused_although_others_have_them(
    places: tuple[Path, Path], tmp_path: Path, sample: tuple[Array, Array]
) -> None:
    images, labels = sample
    for place in places:
        write_idx(place, images[:3], labels[:3])
    half = write_idx(tmp_path / "half", images[:3], labels[:3])
    (half / f"{FILES[2]}-ubyte.gz").unlink()
    archive = tmp_path / "archive"
    archive.mkdir()
    np.savez(archive / "fashion.npz", x_train=images)
    (tmp_path / "fashion.csv").write_text("label,pixel1\n")

    for given, reason in {
        tmp_path / "fashoin": "no such file or folder",
        tmp_path / "fashoin.npz": "no such file or folder",
        tmp_path / "fashion.csv": "expected a folder or an .npz file",
        half: f"it has no {FILES[2]}-ubyte, with .gz or without",
        archive: f"it has no {FILES[0]}-ubyte, {FILES[1]}-ubyte",
    }.items():
        with pytest.raises(FileNotFoundError) as refused:
            load_data(given)

        line = str(refused.value)
        assert line.startswith(f"data: {given}: ")
        assert reason in line
        assert "\n" not in line
    with pytest.raises(FileNotFoundError, match=r"to use fashion\.npz, give that file"):
        load_data(archive)


def test_an_npz_file_with_other_arrays_or_none_is_refused(
    tmp_path: Path, sample: tuple[Array, Array]
) -> None:
    images, labels = sample
    path = tmp_path / "fashion.npz"

    np.savez(path, images=images[:3], labels=labels[:3])
    with pytest.raises(
        ValueError, match="it has no array x_train, y_train, x_test, y_test, but images, labels"
    ):
        load_data(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=re.escape(f"data: {path}: cannot be used as .npz: ")):
        load_data(path)
    np.savez(path, x_train=images[:3], y_train=labels[:2], x_test=images[:3], y_test=labels[:3])
    with pytest.raises(ValueError, match=re.escape(f"data: {path}: labels are uint8 (2,), expected (3,)")):
        load_data(path)


def test_a_given_folder_needs_no_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sample: tuple[Array, Array]
) -> None:
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", "/nowhere")
    folder = write_idx(tmp_path, sample[0][:6], sample[1][:6])

    (train, _), _ = load_data(folder)

    assert len(train) == 4


def test_data_that_are_nowhere_are_an_error_that_names_all_places(places: tuple[Path, Path]) -> None:
    cache, debian = places

    with pytest.raises(FileNotFoundError) as missing:
        load_data()

    message = str(missing.value)
    for place in (str(cache), str(debian), "dataset-fashion-mnist", "download: ", "given as data"):
        assert place in message


def test_a_damaged_file_is_named(tmp_path: Path, sample: tuple[Array, Array]) -> None:
    folder = write_idx(tmp_path, sample[0][:6], sample[1][:6])
    file = folder / f"{FILES[0]}-ubyte.gz"
    whole = file.read_bytes()
    pixels = gzip.decompress(whole)
    damages = {
        "cut off": whole[: len(whole) // 2],
        "not compressed": pixels,
        "too few pixels": gzip.compress(pixels[:-1]),
        "no header": gzip.compress(pixels[:3]),
        "a page of an error": gzip.compress(b"<html>404 not found</html>"),
        "floats": gzip.compress(pixels[:2] + b"\x0d" + pixels[3:]),
        "empty": b"",
    }

    for damage in damages.values():
        file.write_bytes(damage)

        with pytest.raises(ValueError, match=re.escape(f"{file}: not a whole gzipped IDX file")):
            load_data(folder)
