"""One node of the embedded broker: its folder, its Java process and what its log says.

FOLDER/server.properties  log4j2.properties  kafka.log      written at every start
FOLDER/log/                                                 Kafka's own: topics, offsets, KRaft's metadata
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagebus.broker.jars import KAFKA_VERSION, Java, cache_folder
from imagebus.broker.processes import Child, kill_child, start_child, stop_child
from imagebus.errors import BrokerError

STOP_LIMIT = 10.0  # seconds to close the logs and leave the cluster
ARCHIVE_LIMIT = 60.0  # seconds for a stop that also writes the class archive
FORMAT_LIMIT = 60.0  # seconds for Kafka's storage tool

JVM_FLAGS = (
    # Heap: little at first, as the records are in the system's page cache. With at most 64 MB, a node of three
    # ended by itself after half an hour of faults.
    "-Xms32m",
    "-Xmx256m",
    "-XX:+UseSerialGC",  # the smallest collector, made for heaps of this size
    "-XX:TieredStopAtLevel=1",  # the quick compiler alone: sooner ready and smaller
    "-XX:+ExitOnOutOfMemoryError",  # a node without memory ends and is noticed, instead of limping on
    "-XX:-UsePerfData",  # a killed JVM would leave its counters behind in /tmp
    "-Xlog:all=error",  # Java's remarks about class archives are of no use here
)
STARTED = b"Kafka Server started"  # logged once every listener accepts and the controller knows the node
LOG4J = """\
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.started.name = kafka.server.KafkaRaftServer
logger.started.level = info
"""
_EXCEPTION = re.compile(r"(?:Caused by: )?(?:[\w$]+\.)+([\w$]*(?:Exception|Error)): (.+)")
_KAFKAS_OWN = re.compile(r"(?:Caused by: )?org\.apache\.kafka\.")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """The Java and the jars that a node runs on."""

    java: Java
    jars: list[Path]

    def command(self, main_class: str, *arguments: str, flags: tuple[str, ...] = ()) -> list[str | Path]:
        """The command line that runs one of Kafka's programs."""
        class_path = os.pathsep.join(map(str, self.jars))
        return [self.java.path, *JVM_FLAGS, *flags, "-cp", class_path, main_class, *arguments]

    @property
    def archive(self) -> Path:
        """Where the archive of loaded classes belongs, for exactly this Java and these jars.

        With it a node is ready in a third of the time. Java itself checks that it fits and
        goes on without it where it does not.
        """
        parts = [self.java.path, *JVM_FLAGS, *(f"{jar} {jar.stat().st_mtime_ns}" for jar in self.jars)]
        digest = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:8]
        return cache_folder() / f"kafka-{KAFKA_VERSION}-java-{self.java.version}-{digest}.classes"

    def use_archive(self, archive: Path) -> str:
        """The flag to start with `archive`."""
        return f"-XX:AOTCache={archive}" if self.java.major >= 25 else f"-XX:SharedArchiveFile={archive}"

    def make_archive(self, archive: Path) -> str:
        """The flag to write `archive` when the process ends."""
        option = "AOTCacheOutput" if self.java.major >= 25 else "ArchiveClassesAtExit"
        return f"-XX:{option}={archive}"


class Node:
    """A Kafka node, broker and controller in one. `child` is its process, None when it was stopped."""

    def __init__(
        self, number: int, folder: Path, cluster_id: str, properties: Mapping[str, str], runtime: Runtime
    ) -> None:
        self.child: Child | None = None
        self._number = number
        self._folder = folder
        self._runtime = runtime
        self._log = folder / "kafka.log"
        self._ready = False
        self._new_archive: Path | None = None  # what the running process is to write at its end
        _lay_out(folder, number, cluster_id, properties, runtime)

    def start(self, *, may_archive: bool = False) -> None:
        """Start the process; `is_ready` tells when it answers.

        `may_archive`: where no class archive exists, this node writes one when it stops.
        """
        self._ready = False
        archive = self._runtime.archive
        flags = ["-Dlog4j2.configurationFile=log4j2.properties"]
        if archive.exists():
            flags.append(self._runtime.use_archive(archive))
        elif may_archive:
            self._new_archive = archive.with_name(f"{archive.name}.{os.getpid()}")
            flags.append(self._runtime.make_archive(self._new_archive))
        command = self._runtime.command("kafka.Kafka", "server.properties", flags=tuple(flags))
        with self._log.open("wb") as output:
            self.child = start_child(command, cwd=self._folder, stdout=output, stderr=subprocess.STDOUT)

    def is_ready(self) -> bool:
        """Whether the started node answers its clients."""
        self._ready = self._ready or STARTED in self._log.read_bytes()
        return self._ready

    def check(self) -> None:
        """Raise BrokerError, with the reason, when the process ended by itself."""
        status = self.child.poll() if self.child else None
        if status is not None:
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
            reason = _reason(self._log.read_text(encoding="utf-8", errors="replace"))
            raise BrokerError(f"Apache Kafka, node {self._number}, {how}{': ' if reason else ''}{reason}")

    def ask_to_stop(self) -> None:
        """Begin a clean stop without waiting for it."""
        if self.child and self._ready:
            if self._new_archive:
                log.info("preparing quicker starts, once; Ctrl-C skips it")
            self.child.terminate()

    def stop(self) -> None:
        """Stop cleanly and wait for the end; a node that never became ready is killed."""
        if self.child is None:
            return
        if self._ready:
            status = stop_child(self.child, ARCHIVE_LIMIT if self._new_archive else STOP_LIMIT)
            if self._new_archive and status == 128 + signal.SIGTERM:  # how Java ends after a clean stop
                self._keep_archive(self._new_archive)
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        if self.child:
            kill_child(self.child)
            self.child = None
        if self._new_archive:
            for rest in self._new_archive.parent.glob(f"{self._new_archive.name}*"):
                rest.unlink(missing_ok=True)
            self._new_archive = None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self.child:
            self.child.send_signal(number)

    def _keep_archive(self, written: Path) -> None:
        """Put the new archive in its place, and remove those of older jars and flags."""
        archive = self._runtime.archive
        if written.exists():
            written.replace(archive)
            for old in archive.parent.glob(f"{archive.name.rsplit('-', 1)[0]}-*.classes"):
                if old != archive:
                    old.unlink(missing_ok=True)


def _lay_out(
    folder: Path, number: int, cluster_id: str, properties: Mapping[str, str], runtime: Runtime
) -> None:
    """Write what the node reads. A folder without `meta.properties` is formatted first.

    Formatting is done by hand where Kafka's tool has shown once what belongs there: it saves the
    second that starting Java for the tool would take.
    """
    metadata = folder / "log" / "__cluster_metadata-0"
    metadata.mkdir(parents=True, exist_ok=True)
    (folder / "server.properties").write_text(render_properties(properties), encoding="ascii")
    (folder / "log4j2.properties").write_text(LOG4J, encoding="ascii")
    meta = folder / "log" / "meta.properties"
    if not meta.exists():
        checkpoint = _first_checkpoint(runtime)
        shutil.copyfile(checkpoint, metadata / "00000000000000000000-0000000000.checkpoint")
        directory_id = new_id()
        text = f"version=1\ncluster.id={cluster_id}\nnode.id={number}\ndirectory.id={directory_id}\n"
        unfinished = meta.with_name("meta.properties.new")
        unfinished.write_text(text, encoding="ascii")
        unfinished.replace(meta)


def _first_checkpoint(runtime: Runtime) -> Path:
    """The file that a new cluster's metadata begins with: the feature levels of this Kafka version."""
    checkpoint = cache_folder() / f"kafka-{KAFKA_VERSION}.checkpoint"
    if checkpoint.exists():
        return checkpoint
    with tempfile.TemporaryDirectory(dir=cache_folder()) as temporary:
        folder = Path(temporary)
        properties = {
            "process.roles": "controller",
            "node.id": "1",
            "controller.quorum.voters": "1@127.0.0.1:9093",  # nothing listens: the tool writes files only
            "controller.listener.names": "CONTROLLER",
            "listeners": "CONTROLLER://127.0.0.1:9093",
            "log.dirs": "log",
        }
        (folder / "server.properties").write_text(render_properties(properties), encoding="ascii")
        tool = runtime.command("kafka.tools.StorageTool", "format", "-t", new_id(), "-c", "server.properties")
        with (folder / "tool.log").open("wb") as output:
            child = start_child(tool, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            child.wait(FORMAT_LIMIT)
        except subprocess.TimeoutExpired:
            raise BrokerError(f"Apache Kafka's storage tool took over {FORMAT_LIMIT:.0f} seconds") from None
        finally:
            kill_child(child)
        written = list(folder.glob("log/__cluster_metadata-0/*.checkpoint"))
        if not written:
            reason = _reason((folder / "tool.log").read_text(encoding="utf-8", errors="replace"))
            raise BrokerError(f"Apache Kafka's storage tool failed: {reason}")
        written[0].replace(checkpoint)
    return checkpoint


def new_id() -> str:
    """A random id as Kafka writes them: 16 bytes in 22 characters."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def render_properties(properties: Mapping[str, str]) -> str:
    """Properties as the text of a Java properties file; JSON's escapes are Java's."""
    return "".join(f"{name}={json.dumps(value)[1:-1]}\n" for name, value in properties.items())


def _reason(text: str) -> str:
    """The one line of a node's log that says most about its end."""
    exceptions = [(line, match) for line in text.splitlines() if (match := _EXCEPTION.match(line))]
    kafkas = [match for line, match in exceptions if _KAFKAS_OWN.match(line)]
    if kafkas:
        return kafkas[-1][2]
    if exceptions:
        return f"{exceptions[-1][1][1]}: {exceptions[-1][1][2]}"
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("\tat ")]
    return lines[-1] if lines else ""
