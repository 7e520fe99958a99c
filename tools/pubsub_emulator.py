"""Google's Pub/Sub emulator as a process, for tests and benchmarks: `gcloud beta emulators pubsub start`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from imagebus.broker.ports import free_ports
from imagebus.broker.processes import Child, descendants, kill_child, start_child

SECONDS = 60.0  # until it answers
LOOK = 0.05  # seconds between two tries to connect
# gcloud is to prompt for nothing, contact no server, and write nothing outside of its folder.
QUIET = {
    "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
    "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
    "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "true",
    "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
    "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
    "JAVA_OPTS": "-XX:-UsePerfData",  # a killed JVM would leave its counters behind in /tmp
}


def what_is_missing() -> str | None:
    """Why the emulator cannot be started here; None when it can."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return "no gcloud: https://cloud.google.com/sdk/docs/install"
    # Asked for a component that it lacks, gcloud would install it.
    if not (Path(gcloud).resolve().parent.parent / "platform" / "pubsub-emulator").is_dir():
        return "gcloud lacks the component pubsub-emulator: gcloud components install pubsub-emulator"
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        return "no Java for the Pub/Sub emulator"
    return None


class PubSubEmulator:
    """The emulator on a port of loopback, a free one by default; ready when `with` is entered and gone after it.

    `host` is what `PUBSUB_EMULATOR_HOST` is set to. It keeps topics and messages in memory: they are lost
    with `kill` and `restart`.
    """

    def __init__(self, project: str = "project-of-nobody", port: int | None = None) -> None:
        self.project = project
        self.port = port or free_ports(1)[0]
        self.host = f"127.0.0.1:{self.port}"
        self._folder: Path | None = None
        self._child: Child | None = None

    def start(self) -> Self:
        """Start it and wait until it answers gRPC, which takes 5 s."""
        folder = self._folder = self._folder or Path(tempfile.mkdtemp(prefix="pubsub-emulator-"))
        command = ["gcloud", "beta", "emulators", "pubsub", "start"]
        flags = [f"--host-port={self.host}", f"--project={self.project}", f"--data-dir={folder}"]
        environment = {**os.environ, **QUIET, "CLOUDSDK_CONFIG": str(folder / "gcloud"), "HOME": str(folder)}
        try:
            with (folder / "log").open("wb") as output:
                self._child = start_child(
                    [*command, *flags], env=environment, stdout=output, stderr=subprocess.STDOUT
                )
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def processes(self) -> list[int]:
        """Process ids of gcloud, Java and its other processes, oldest first."""
        return [self._child.pid, *descendants(self._child.pid)] if self._child else []

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nothing."""
        self._signal_java(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume it."""
        self._signal_java(signal.SIGCONT)

    def kill(self) -> None:
        """End all of it at once. Safe to call twice."""
        if self._child is not None:
            kill_child(self._child)
            self._child = None
            while _listens(self.port):  # Java is gcloud's child, and may live a moment longer
                time.sleep(LOOK)

    def restart(self) -> None:
        """Kill it, and start an empty one on the same port."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Kill it and remove its folder. Safe to call twice."""
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> None:
        assert self._child is not None
        assert self._folder is not None
        deadline = time.monotonic() + SECONDS
        while not _listens(self.port):
            # One that has just ended explains more than a time-out.
            ended = self._child.poll() is not None
            said = (self._folder / "log").read_text(errors="replace")
            assert not ended, f"the Pub/Sub emulator ended: {said}"
            assert time.monotonic() < deadline, f"the Pub/Sub emulator does not listen: {said}"
            time.sleep(LOOK)
        with grpc.insecure_channel(self.host, options=[("grpc.enable_http_proxy", 0)]) as channel:
            publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
            publisher.list_topics(project=f"projects/{self.project}", retry=None, timeout=SECONDS)

    def _signal_java(self, number: signal.Signals) -> None:
        # Not the group: the watcher beside the child has to stay awake.
        for pid in self.processes():
            named = subprocess.run(["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, check=False)
            if named.stdout.strip().endswith(b"java"):
                os.kill(pid, number)
                return
        raise AssertionError("the Pub/Sub emulator is not running")


def write_account(path: Path, project: str) -> None:
    """Write the JSON of a service account that exists nowhere: for the emulator, which needs no login."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": "0",
        "private_key": pem,
        "client_email": f"nobody@{project}.iam.gserviceaccount.com",
        "client_id": "0",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(account), encoding="utf-8")


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex(("127.0.0.1", port)) == 0
