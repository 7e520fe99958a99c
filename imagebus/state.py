"""Open packages on disk, so that a requestor that was killed can ask again for what it never heard of."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from imagebus.errors import ConfigError
from imagebus.messages import Images


@dataclass(frozen=True)
class OpenPackage:
    """A package that was sent, or about to be, and whose outcome was not shown yet."""

    id: str  # of its request
    number: int
    images: Images
    truths: tuple[str, ...] | None = None


class OpenPackages:
    """A folder with a file for each open package: one line of JSON, then the pixels.

    A process that is killed, with SIGKILL or not, leaves whole files behind; a machine that loses power
    may not. Raises `ConfigError` for a folder that cannot be used, or that another requestor is using.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock: IO[bytes] = (self._folder / "lock").open("wb")
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--state {folder}: another requestor is using it") from None
        except OSError as error:
            raise ConfigError(f"--state {folder}: {error.strerror}") from None

    def load(self) -> list[OpenPackage]:
        """What was open when the last process ended, by number. `ConfigError` for a file that is not ours."""
        return sorted(self._read(), key=lambda package: package.number)

    def _read(self) -> Iterator[OpenPackage]:
        for path in self._folder.glob("*.open"):
            try:
                about, _, pixels = path.read_bytes().partition(b"\n")
                fields = orjson.loads(about)
                truths: Sequence[str] | None = fields["truths"]
                yield OpenPackage(
                    id=str(fields["id"]),
                    number=int(fields["number"]),
                    images=np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28),
                    truths=None if truths is None else tuple(truths),
                )
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"--state {path}: not a package that a requestor left there: {error}"
                ) from None

    def add(self, package: OpenPackage) -> None:
        """Write it down; called before it is sent."""
        about = asdict(package)
        pixels: Images = about.pop("images")
        unfinished = self._folder / f"{package.id}.new"
        unfinished.write_bytes(orjson.dumps(about) + b"\n" + pixels.tobytes())
        unfinished.replace(self._path(package.id))

    def remove(self, id: str) -> None:
        """Its outcome was shown."""
        self._path(id).unlink(missing_ok=True)

    def close(self) -> None:
        """Let another requestor use the folder."""
        self._lock.close()

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.open"
