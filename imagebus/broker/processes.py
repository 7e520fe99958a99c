"""Child processes that cannot outlive their parent, however it ends.

Beside each child waits a watcher: a subshell that reads from a pipe whose other end only the parent
has. When the parent is gone, killed with SIGKILL or not, the pipe closes and the watcher ends the
child. Shell and pipe are all it takes, so it works alike on Linux and macOS. The child gets a
session of its own: a terminal's Ctrl-C reaches only the parent, which then stops its children in
the order it wants.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

STOP_LIMIT = 15.0  # seconds from SIGTERM to SIGKILL; an idle broker takes 0.4, a replier's last batch a few

# The watcher first, then the command takes the shell's place and its process id ($$). The watcher is in
# the child's process group, so that the group's number cannot go to others while it waits: `kill 0`
# never hits a stranger. It ignores the SIGTERM that it sends, and dies of the SIGKILL.
_WATCHED = f"""
exec 3<&0 </dev/null
(
    trap '' TERM INT HUP
    read -r _ <&3
    kill -s TERM 0
    kill -s CONT 0
    waited=0
    while [ $waited -lt {STOP_LIMIT:.0f} ] && kill -s 0 $$; do
        sleep 1
        waited=$((waited + 1))
    done
    kill -s KILL 0
) >/dev/null 2>&1 &
exec "$@" 3<&-
"""

Child = subprocess.Popen[bytes]


def start_child(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> Child:
    """Start `command` so that it ends when this process does; its standard input is empty.

    `pid`, `poll()`, `wait()` and signals of the result are the command's own. End it with
    `stop_child` or `kill_child`, also when it died by itself. A command that is not there ends
    at once with 127.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCHED, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )


def stop_child(child: Child, limit: float = STOP_LIMIT) -> int:
    """Ask with SIGTERM, wait up to `limit` seconds, then kill. Returns the child's exit status."""
    if child.poll() is None:
        child.terminate()
        child.send_signal(signal.SIGCONT)  # a frozen process takes no SIGTERM
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(limit)
    return kill_child(child)


def kill_child(child: Child) -> int:
    """Kill the child, what it started in its group and the watcher. Safe to call twice."""
    if child.stdin and not child.stdin.closed:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies
            os.killpg(child.pid, signal.SIGKILL)
        child.stdin.close()
    return child.wait()


def descendants(pid: int) -> list[int]:
    """Process ids of all that `pid` started and what those started."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    found = [int(each) for each in listed.stdout.split()]
    return found + [each for child in found for each in descendants(child)]
