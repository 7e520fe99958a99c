"""Packages of images, and the open ones on disk: a requestor that was killed re-sends those without an answer."""

from __future__ import annotations

import fcntl
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary

import numpy as np
import orjson

from imagebus.checks import request_id
from imagebus.errors import ConfigError
from imagebus.wire.envelope import is_id
from imagebus.wire.pixels import FASHION, Images, check_images

log = logging.getLogger(__name__)

MAX_NUMBER = 10**12  # of a package; a thousand a second would take thirty years to get there


@dataclass(frozen=True)
class Package:
    """The images of one request, and what their sender knows of them."""

    images: Images
    truths: tuple[str, ...] | None = None  # the true label of each
    number: int = 1  # the sender's own count
    id: str = field(default_factory=lambda: str(uuid.uuid4()))  # of the request
    files: tuple[str, ...] | None = None  # the file of each image

    def __post_init__(self) -> None:
        """Raises `ValueError` for anything but images and a request id: both may become a file before they are sent."""
        check_images(self.images, FASHION)
        request_id(self.id)


class OpenPackages:
    """A folder with a file for each open package: one line of JSON, then the pixels.

    A killed process, even by SIGKILL, leaves whole files behind; a machine that loses power may not. Raises
    `ConfigError` for a folder that cannot be used, or that another requestor is using. So do its methods, as when
    the disk is full.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        try:
            with self._usable():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._in_use = _identity(self._folder)
                # Before the lock, which is the process's, and which it would lose with the second one's file.
                if self._in_use in _USED:
                    raise BlockingIOError
                self._lock: IO[bytes] = (self._folder / "lock").open("wb")
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: another requestor is using it") from None
        _USED[self._in_use] = self
        with self._usable():
            for unfinished in self._files(".new"):  # of a process that was killed, and was not sent
                unfinished.unlink(missing_ok=True)

    def load(self) -> list[Package]:
        """The packages that the last process left open, by number. `ConfigError` for a file that is not ours."""
        return sorted(self._read(), key=lambda package: package.number)

    def _read(self) -> Iterator[Package]:
        for path in self._files(".open"):
            try:
                content = path.read_bytes()
                if not content:
                    log.warning("%s: empty, as a power cut leaves it: the package is lost", path)
                    path.unlink()
                    continue
                yield _decode(content)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}: not a package that a requestor left there: {error}") from None

    def _files(self, suffix: str) -> list[Path]:
        """Not by `glob`, for which a folder that cannot be read is empty."""
        with self._usable():
            return [path for path in self._folder.iterdir() if path.suffix == suffix]

    def next_number(self) -> int:
        """One more than the highest number that was left, or 1; raises as `load` does."""
        return 1 + max((package.number for package in self._read()), default=0)

    def add(self, package: Package) -> None:
        """Write a package to disk; called before it is sent. `ConfigError` leaves nothing of it behind."""
        about = asdict(package)
        pixels: Images = about.pop("images")
        unfinished = self._folder / f"{package.id}.new"
        with self._usable(f"package {package.number} was not sent"):
            try:
                unfinished.write_bytes(orjson.dumps(about) + b"\n" + pixels.tobytes())
                unfinished.replace(self._path(package.id))
            except OSError:
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)
                raise

    def remove(self, id: str) -> None:
        """Delete a package: its outcome was shown."""
        with self._usable():
            self._path(id).unlink(missing_ok=True)

    @contextmanager
    def _usable(self, consequence: str = "") -> Iterator[None]:
        """Errors of the system as `ConfigError`; a lock that is held stays a `BlockingIOError`."""
        try:
            yield
        except BlockingIOError:
            raise
        except OSError as error:
            raise ConfigError(
                f"{self._folder}: {error.strerror}" + f", {consequence}" * bool(consequence)
            ) from None

    def close(self) -> None:
        """Let another requestor use the folder."""
        self._lock.close()
        _USED.pop(self._in_use, None)

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.open"


# By this process, by device and inode of the folder.
_USED: WeakValueDictionary[tuple[int, int], OpenPackages] = WeakValueDictionary()


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _decode(content: bytes) -> Package:
    """What `OpenPackages.add` wrote; raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    about, _, pixels = content.partition(b"\n")
    fields = orjson.loads(about)
    id, number, truths = fields["id"], fields["number"], fields["truths"]
    files = fields.get("files")  # None also in those of version 0.1
    images = np.frombuffer(pixels, np.uint8).reshape(-1, FASHION.height, FASHION.width)
    if not isinstance(id, str) or not is_id(id):
        raise ValueError("its id is not valid")
    if type(number) is not int or not 1 <= number <= MAX_NUMBER:
        raise ValueError("its number is not valid")
    if not len(images):
        raise ValueError("it has no images")
    for name, texts in (("truths", truths), ("files", files)):
        if texts is not None and not _is_one_text_each(texts, len(images)):
            raise ValueError(f"its {name} are not those of its images")
    return Package(images, _tuple(truths), number, id, _tuple(files))


def _is_one_text_each(texts: object, count: int) -> bool:
    return isinstance(texts, list) and len(texts) == count and set(map(type, texts)) == {str}


def _tuple(texts: list[str] | None) -> tuple[str, ...] | None:
    return None if texts is None else tuple(texts)
