"""The background behind garments, and how cameras were held: the shipped network's accuracy tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagebus import ImageSet, OnnxClassifier, load_images
from imagebus.backgrounds import Background
from imagebus.errors import ConfigError
from imagebus.shipped import shipped

SAMPLE = ImageSet(*load_images().package(0, 200))
NEAR = 0.01  # two of the 200 images: JPEG and rounding cost a little


@pytest.fixture(scope="module")
def network() -> OnnxClassifier:
    return OnnxClassifier(shipped("models/fashion.onnx"))


@pytest.fixture(scope="module")
def plain(network: OnnxClassifier) -> float:
    """The accuracy on the sample as it is."""
    return accuracy(network, SAMPLE)


def accuracy(network: OnnxClassifier, images: ImageSet) -> float:
    assert images.truths is not None
    answers = network.predict(images.images).argmax(axis=1)
    return float(
        np.mean(
            [network.labels[answer] == truth for answer, truth in zip(answers, images.truths, strict=True)]
        )
    )


def folder_of(
    folder: Path, change: Callable[[Image.Image], Image.Image], suffix: str = ".png", **options: Any
) -> Path:
    """The sample as files in folders of its classes, changed and saved with the options."""
    for number, (image, truth) in enumerate(zip(SAMPLE.images, SAMPLE.truths or (), strict=True)):
        path = folder / truth.replace("/", "_") / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        change(Image.fromarray(image)).save(path, **options)
    return folder


def on(level: int, picture: Image.Image) -> Image.Image:
    """A garment laid on a background of that level: what was lightest in the network's eyes is darkest there."""
    return picture.point([round(level - each * level / 255) for each in range(256)])


@pytest.mark.parametrize(
    ("orientation", "held"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_of_a_camera_that_was_turned_are_recognised(
    network: OnnxClassifier,
    plain: float,
    tmp_path: Path,
    suffix: str,
    orientation: int,
    held: Image.Transpose | None,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation

    def turned(picture: Image.Image) -> Image.Image:
        return picture if held is None else picture.transpose(held)

    images = load_images(folder_of(tmp_path, turned, suffix, exif=exif, quality=95))

    assert accuracy(network, images) == pytest.approx(plain, abs=NEAR)


@pytest.mark.parametrize("background", ["white", "auto"])
@pytest.mark.parametrize("level", [255, 245, 200])
def test_garments_on_a_light_background_are_recognised_once_that_is_turned(
    network: OnnxClassifier,
    plain: float,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    level: int,
    background: str,
) -> None:
    folder = folder_of(tmp_path, lambda picture: on(level, picture))
    assert accuracy(network, load_images(folder)) < 0.25
    assert caplog.messages == [
        f"{folder}: of 200 images 200 have a light background, and the networks know garments on black: "
        "set background to white, or to auto for the light ones alone"
    ]
    caplog.clear()

    images = load_images(folder, background=background)

    assert accuracy(network, images) == pytest.approx(plain, abs=NEAR)
    assert not caplog.messages


def test_auto_turns_the_light_ones_of_a_mixed_folder_alone(
    network: OnnxClassifier, plain: float, tmp_path: Path
) -> None:
    light = iter(range(len(SAMPLE.images)))
    folder = folder_of(tmp_path, lambda picture: on(255, picture) if next(light) % 2 else picture)

    assert accuracy(network, load_images(folder, background="auto")) == pytest.approx(plain, abs=NEAR)


def test_a_picture_that_is_no_square_has_black_beside_it_after_it_was_turned(tmp_path: Path) -> None:
    Image.new("RGB", (100, 300), "white").save(tmp_path / "x.png")

    assert not load_images(tmp_path, background="white").images.any()


@pytest.mark.parametrize("background", ["white", "auto"])
def test_opaque_white_behind_a_garment_becomes_black_and_transparency_stays_so(
    tmp_path: Path, background: str
) -> None:
    picture = Image.new("RGBA", (28, 28), "white")
    picture.paste((0, 0, 0, 255), (10, 10, 18, 18))
    picture.save(tmp_path / "opaque.png")
    shape = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    shape.paste((0, 0, 0, 255), (10, 10, 18, 18))
    shape.save(tmp_path / "transparent.png")

    opaque, transparent = load_images(tmp_path, background=background).images

    assert (opaque[0, 0], opaque[14, 14]) == (0, 255)
    assert (transparent[0, 0], transparent[14, 14]) == (0, 255 if background == "white" else 0)


def test_images_of_an_npz_file_are_turned_and_noticed_too(
    network: OnnxClassifier, plain: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "white.npz"
    labels = np.array([network.labels.index(truth) for truth in SAMPLE.truths or ()])
    np.savez(path, images=255 - SAMPLE.images, labels=labels)

    assert accuracy(network, load_images(path)) < 0.25
    assert "200 have a light background" in caplog.text
    assert accuracy(network, load_images(path, background="auto")) == plain
    assert accuracy(network, load_images(path, background="white")) == plain


def test_the_sample_and_a_few_garments_that_fill_their_image_are_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    background = Background("black")
    images = SAMPLE.images.copy()
    images[:2] = 200

    assert background.turn_all(images) is images
    background.report(Path("x"))

    assert not caplog.messages


def test_a_grey_background_is_reported_without_a_cure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("L", (28, 28), 90).save(tmp_path / "x.png")

    load_images(tmp_path / "x.png", background="auto")

    assert caplog.messages == [
        f"{tmp_path / 'x.png'}: of 1 images 1 have a grey background, and the networks know garments on black"
    ]


def test_a_background_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="background is 'blue', expected one of black, white, auto"):
        load_images(background="blue")
