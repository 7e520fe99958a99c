"""What a running process has used, as Linux counts it in /proc."""

from __future__ import annotations

import os
import re
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")  # a second, in the kernel's unit of CPU time


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads so far, user and system, in steps of 10 ms."""
    # The command's name comes before these fields, in brackets, and may hold spaces and brackets.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mb(pid: int) -> tuple[float, float]:
    """Resident memory in MB (10^6 bytes), now and at most so far; shared libraries count in full."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    now, most = (re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE) for name in ("VmRSS", "VmHWM"))
    assert now
    assert most
    return int(now[1]) * 1024 / 1e6, int(most[1]) * 1024 / 1e6


def has_loaded(pid: int, library: str) -> bool:
    """Whether a file with `library` in its name is mapped into the process."""
    return library in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
