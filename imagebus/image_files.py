"""Pictures on disk: those in a folder as people's systems leave it, and what a file is that is none."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from os import DirEntry, scandir
from pathlib import Path

from imagebus.errors import BadMessage, ConfigError
from imagebus.wire.pictures import JPEG_START, PNG_START, Turn, read_picture
from imagebus.wire.pixels import FASHION, Images

log = logging.getLogger(__name__)

_PICTURES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif"}
_OTHER_PICTURES = {".webp", ".heic", ".heif", ".avif", ".jxl", ".gif", ".bmp", ".tif", ".tiff", ".svg"}
# What systems put into folders beside what begins with a dot: macOS, Synology, Windows, ext4.
_LITTER = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
_START = 64  # bytes, enough to tell what a file is
_BRANDS = {b"WEB": "WebP", b"avi": "AVIF", b"hei": "HEIC", b"hev": "HEIC", b"mif": "HEIC", b"msf": "HEIC"}
_BEGINNINGS = {
    b"\0\5\x16\7": "macOS's data about another file",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with `git lfs pull`",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "gzipped",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}


def pictures_in(folder: Path) -> list[Path]:
    """The PNG and JPEG files of a folder and of those below it, by path; pictures of other kinds are reported.

    Hidden names and systems' litter are passed over. Links are followed, but not in circles. Raises `ConfigError`
    where there is no picture, or a folder cannot be read.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    for path in _files(folder):
        kind = path.suffix.lower()
        if kind in _PICTURES:
            found.append(path)
        elif kind in _OTHER_PICTURES:
            others[kind] += 1
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
    if not found:
        raise ConfigError(f"{folder}: no PNG or JPEG file in it" + (f", but {listed}" if others else ""))
    if others:
        log.warning("%s: passed over, as they are neither PNG nor JPEG: %s", folder, listed)
    return sorted(found)


def read_files(files: list[Path], turn: Turn) -> list[Images]:
    """Each picture as uint8 (28, 28). Raises `ConfigError`, which names the first bad file and counts them all.

    One bad file refuses all: predictions and accuracy are of the folder that was given, or of none.
    """
    images, problems = [], []
    for file in files:
        try:
            content = _content(file)
        except OSError as error:
            problems.append(f"{file}: {error.strerror}")
            continue
        try:
            images.append(read_picture(content, FASHION, turn))
        except BadMessage as error:
            problems.append(f"{file}: {_problem(content, error)}")
    if problems:
        more = f" (and {len(problems) - 1} more of {len(files)} files)" if len(problems) > 1 else ""
        raise ConfigError(problems[0] + more)
    return images


def _content(file: Path) -> bytes:
    """Of a picture all of it, of anything else, such as a film, its beginning."""
    with file.open("rb") as opened:
        beginning = opened.read(_START)
        return beginning + opened.read() if beginning.startswith((PNG_START, JPEG_START)) else beginning


def _problem(content: bytes, error: BadMessage) -> str:
    """What is wrong with a picture, by its content where that is something else."""
    if not content:
        return "the file is empty, expected PNG or JPEG"
    beginning = (
        content[:32].lstrip().lower() if content[:1].isspace() or content[:1] == b"<" else content[:32]
    )
    holds_a_brand = beginning[4:8] == b"ftyp" or beginning.startswith(b"RIFF")
    kinds = [_BRANDS.get(beginning[8:11], "a film or sound")] if holds_a_brand else []
    kinds += [kind for start, kind in _BEGINNINGS.items() if beginning.startswith(start)]
    return f"this is {kinds[0]}, expected PNG or JPEG" if kinds else str(error)


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder and of those below it, links among them also where they lead nowhere."""
    waiting = [(folder, frozenset[tuple[int, int]]())]
    while waiting:
        below, above = waiting.pop()
        try:
            status = below.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:  # a link to a folder that it lies in
                continue
            with scandir(below) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name in _LITTER:
                        continue
                    if _is_folder(entry):
                        waiting.append((Path(entry.path), above | {identity}))
                    elif _is_file(entry):
                        yield Path(entry.path)
        except OSError as error:
            raise ConfigError(f"{below}: {error.strerror}") from None


def _is_folder(entry: DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: DirEntry[str]) -> bool:
    """Also a link that leads nowhere; no pipe, which would be waited for."""
    return Path(entry).is_file() or (entry.is_symlink() and not Path(entry).exists())
