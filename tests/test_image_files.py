"""Pictures on disk as people have them: folders of other systems, other formats, one file alone."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagebus.errors import ConfigError
from imagebus.images import load_images

from .nobody import nobody, open_folder


def draw(path: Path, grey: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (28, 28), grey).save(path, **options)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_images(path)
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_hidden_names_and_the_litter_of_systems_are_passed_over(tmp_path: Path) -> None:
    draw(tmp_path / "Bag" / "x.png")
    for litter in (
        "Bag/.ipynb_checkpoints/x-checkpoint.png",
        ".ipynb_checkpoints/y.png",
        "__MACOSX/Bag/x.png",
        "Bag/@eaDir/x.png/thumb.jpg",
        "lost+found/x.png",
        "$RECYCLE.BIN/x.png",
    ):
        draw(tmp_path / litter)
    (tmp_path / "Bag" / "._x.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "Bag" / "Thumbs.db").write_bytes(b"\0")

    images = load_images(tmp_path)

    assert images.files == ("Bag/x.png",)
    assert images.truths == ("Bag",)


def test_a_folder_that_is_hidden_itself_is_read(tmp_path: Path) -> None:
    draw(tmp_path / ".cache" / "x.png")

    assert load_images(tmp_path / ".cache").files == ("x.png",)


def test_a_volume_of_kubernetes_shows_each_picture_once(tmp_path: Path) -> None:
    written = tmp_path / "..2024_11_28_12_00_00.123"
    draw(written / "x.png")
    draw(written / "Bag" / "y.png")
    (tmp_path / "..data").symlink_to(written.name)
    (tmp_path / "Bag").symlink_to("..data/Bag")
    (tmp_path / "Coat").mkdir()
    (tmp_path / "Coat" / "x.png").symlink_to("../..data/x.png")

    images = load_images(tmp_path)

    assert images.files == ("Bag/y.png", "Coat/x.png")
    assert images.truths == ("Bag", "Coat")


def test_links_in_circles_end(tmp_path: Path) -> None:
    draw(tmp_path / "Bag" / "x.png")
    (tmp_path / "Bag" / "again").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "Coat").symlink_to(tmp_path / "Bag")

    assert load_images(tmp_path).files == ("Bag/x.png", "Coat/x.png")


def test_a_link_that_leads_nowhere_is_named_and_a_pipe_is_no_picture(tmp_path: Path) -> None:
    draw(tmp_path / "x.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert load_images(tmp_path).files == ("x.png",)

    (tmp_path / "y.png").symlink_to("gone.png")

    assert refusal(tmp_path) == f"{tmp_path / 'y.png'}: No such file or directory"
    assert refusal(tmp_path / "pipe.png") == f"{tmp_path / 'pipe.png'}: neither a file nor a folder"


def test_the_first_folder_below_is_the_label_however_deep_the_picture_lies(tmp_path: Path) -> None:
    for name in ("Bag/2024/x.png", "Bag/y.JPG", "Coat/a/b/c/z.jpeg", "Dress/w.jfif"):
        draw(tmp_path / name, format="PNG")

    images = load_images(tmp_path)

    assert images.files == ("Bag/2024/x.png", "Bag/y.JPG", "Coat/a/b/c/z.jpeg", "Dress/w.jfif")
    assert images.truths == ("Bag", "Bag", "Coat", "Dress")


def test_folders_named_by_number_or_by_another_spelling_have_the_labels_of_the_model(tmp_path: Path) -> None:
    for name in ("0", "3", "t-shirt_top", "AnkleBoot", "08"):
        draw(tmp_path / name / "x.png")

    truths = load_images(tmp_path).truths

    assert truths == ("T-shirt/top", "Bag", "Dress", "Ankle boot", "T-shirt/top")


def test_pictures_beside_folders_have_no_label_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path / "x.png")
    draw(tmp_path / "Bag" / "y.png")

    assert load_images(tmp_path).truths is None

    assert caplog.messages == [
        f"{tmp_path}: 1 of 2 pictures lie beside the sub-folders, so these are not taken for labels"
    ]


def test_a_picture_alone_is_sent(tmp_path: Path) -> None:
    images = load_images(draw(tmp_path / "shirt.png", 7))

    assert (images.images == 7).all()
    assert (images.files, images.truths) == (("shirt.png",), None)


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n"))
    draw(folder / "x.png")

    images = load_images(tmp_path)

    assert images.files == ("\\xff\n/x.png",)
    assert images.truths == ("\\xff\n",)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "the file is empty"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "this is WebP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "this is HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "this is AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "this is a film or sound"),
        (b"RIFF\0\0\0\0WAVEfmt ", "this is a film or sound"),
        (b"GIF89a", "this is GIF"),
        (b"BM\0\0", "this is BMP"),
        (b"II*\0", "this is TIFF"),
        (b"\0\5\x16\7\0\2\0\0", "this is macOS's data about another file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "this is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>404</title>", "this is a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "this is SVG"),
        (b"PK\3\4", "this is a ZIP archive"),
        (b"text", "the picture is neither PNG nor JPEG"),
        (b"\x89PNG\r\n\x1a\n", "the picture cannot be decoded as PNG or JPEG"),
        (b"\xff\xd8\xff\xe0", "the picture cannot be decoded as PNG or JPEG"),
    ],
)
def test_a_file_that_is_no_picture_is_named_with_what_it_is(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    draw(tmp_path / "a.png")
    path = tmp_path / "b.jpg"
    path.write_bytes(content)

    for given in (path, tmp_path):
        assert refusal(given).startswith(f"{path}: {kind}")


def test_real_files_of_other_formats_under_a_wrong_name_are_named(tmp_path: Path) -> None:
    for format in ("WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        path = draw(tmp_path / format / "x.jpg", format=format)

        assert refusal(path.parent) == f"{path}: this is {format.replace('EBP', 'ebP')}, expected PNG or JPEG"


def test_one_bad_file_among_many_refuses_the_folder_and_bad_ones_are_counted(tmp_path: Path) -> None:
    for number in range(100):
        draw(tmp_path / f"{number:02}.png")
    (tmp_path / "50.png").write_bytes(b"")
    assert refusal(tmp_path) == f"{tmp_path / '50.png'}: the file is empty, expected PNG or JPEG"

    (tmp_path / "70.png").write_bytes(b"GIF89a")

    assert refusal(tmp_path).endswith(
        "50.png: the file is empty, expected PNG or JPEG (and 1 more of 100 files)"
    )


def test_pictures_of_other_kinds_are_passed_over_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("y.webp", "z.WEBP", "w.heic", "notes.txt", "labels.csv"):
        (tmp_path / name).write_bytes(b"")
    assert refusal(tmp_path) == f"{tmp_path}: no PNG or JPEG file in it, but 1 .heic, 2 .webp"
    draw(tmp_path / "x.png")

    load_images(tmp_path)

    assert caplog.messages == [f"{tmp_path}: passed over, as they are neither PNG nor JPEG: 1 .heic, 2 .webp"]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_file_and_a_folder_that_may_not_be_read_are_named() -> None:
    with open_folder() as folder:
        draw(folder / "Bag" / "y.png")
        draw(folder / "x.png").chmod(0)
        with nobody():
            assert refusal(folder) == f"{folder / 'x.png'}: Permission denied"

        (folder / "Bag").chmod(0)

        with nobody():
            assert refusal(folder) == f"{folder / 'Bag'}: Permission denied"
            assert refusal(folder / "Bag" / "y.png") == f"{folder / 'Bag' / 'y.png'}: Permission denied"
        (folder / "Bag").chmod(0o700)


def test_a_path_that_is_too_long_or_goes_through_a_file_is_one_line(tmp_path: Path) -> None:
    file = draw(tmp_path / "x.png")

    assert refusal(file / "y.png") == f"{file / 'y.png'}: Not a directory"
    assert refusal(tmp_path / ("x" * 300)).endswith(": File name too long")


def test_pictures_of_every_kind_that_cameras_and_tools_write_are_read(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((28, 28), 100, np.uint8))
    kinds = {
        "palette.png": grey.convert("P"),
        "two-colours.png": grey.convert("1"),
        "colour.png": grey.convert("RGB"),
        "opaque.png": grey.convert("RGBA"),
        "deep.png": Image.fromarray(np.full((28, 28), 100 << 8, np.uint16)),
        "print.jpg": grey.convert("CMYK"),
        "UPPER.JPG": grey,
    }
    for name, picture in kinds.items():
        picture.save(tmp_path / name)
    grey.save(tmp_path / "moves.png", save_all=True, append_images=[Image.new("L", (28, 28), 255)])

    images = load_images(tmp_path)

    levels = dict(zip(images.files or (), images.images.mean(axis=(1, 2)), strict=True))
    assert len(levels) == 8
    del levels["two-colours.png"]  # dithered
    assert levels == pytest.approx(dict.fromkeys(levels, 100), abs=2)
