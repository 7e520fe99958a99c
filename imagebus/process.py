"""Settings of the interpreter and of malloc for a process that serves until it is stopped."""

from __future__ import annotations

import ctypes
import gc
import sys

# A model's thread that is done waits for the interpreter while the main thread reads and writes messages. By default
# Python lets the latter keep it for 5 ms, which costs a tenth of the images a second.
SWITCH_SECONDS = 0.0005
# Python looks for cycles after every 700 new objects, in the middle of each batch, and finds none. With 10,000, and
# without the objects of the start, `tiny` makes 3% more images a second.
OBJECTS_BETWEEN_LOOKS = 10_000
_M_MMAP_THRESHOLD = -3  # of mallopt, as glibc's malloc.h has it
LARGE = 128 * 1024  # bytes: larger blocks are mappings of their own, as when a process starts


def tune_for_serving() -> None:
    """Shorter turns of the interpreter, fewer collections, and large blocks given back as soon as they are free.

    For the whole process. Call it once, when all is loaded: objects that exist by then are never scanned again.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS)
    _give_back_large_blocks()


def _give_back_large_blocks() -> None:
    """Return the memory of a large block to the system as soon as it is freed.

    glibc raises its limit each time a large block is freed, up to 32 MB, and keeps smaller ones: a megabyte
    here and there leaves holes in the heaps of several threads, and 60,000 messages of mixed sizes turned
    146 MB into 169. Does nothing without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, LARGE)
