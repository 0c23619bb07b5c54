"""The memory of the process: freed blocks are kept for the next step, as long as the machine has room for it."""

import ctypes
import os
import platform
from pathlib import Path

import psutil


# Parameters of glibc's mallopt and their values: the largest block from the heap, and what its top may hold unused.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
LARGEST_BLOCK, UNUSED_TOP = 2**30, 2**31 - 1
# Share of the memory below which what is free may not do for the next step. To fault in again what was given
# back takes a third of a step's time, so nothing goes back before.
LEAST_FREE = 0.15
CONTROL_GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """
    Lets glibc keep the memory of freed tensors for the next ones, which come again each step, instead of giving it
    back to the system and faulting it in anew: training on a CPU takes a fifth less time, with large heads half.

    Whoever has set one of glibc's own variables (`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`) has decided
    already. Other C libraries are left alone.

    Returns:
        `bool`: whether it does now.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)) and bool(mallopt(M_TRIM_THRESHOLD, UNUSED_TOP))


def return_freed_memory() -> bool:
    """
    Gives freed memory back to the system where less is left than `LEAST_FREE` of what there is, or than this process
    keeps unused.

    Kept blocks are of the sizes of past steps. Where sentences differ in length, the next step finds none that fits
    and takes new ones beside them: with a large head the process grows to twice what it has in use, and what other
    processes need would be missing in the middle of a step.

    Returns:
        `bool`: whether any was given back.
    """
    available, total = memory_left()
    if platform.libc_ver()[0] != "glibc" or available >= max(LEAST_FREE * total, kept_memory()):
        return False
    return bool(ctypes.CDLL(None).malloc_trim(0))


def kept_memory() -> int:
    """Bytes that this process holds and does not use, by glibc's account (from version 2.33 on; 0 where unknown)."""
    account = getattr(ctypes.CDLL(None), "mallinfo2", None)
    held = psutil.Process().memory_info()
    if account is None or not hasattr(held, "shared"):
        return 0
    account.restype = _Account
    found = account()
    return max(held.rss - held.shared - found.uordblks - found.hblkhd, 0)


class _Account(ctypes.Structure):
    """What glibc's `mallinfo2` returns: among others bytes in use of the heap, and in blocks of their own."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def memory_left() -> tuple[int, int]:
    """
    Bytes of memory that this process may still take, and of how many: those of the machine or, where a container or
    a batch system sets a limit that leaves less, of that (control groups of Linux, version 2).
    """
    machine = psutil.virtual_memory()
    left = [(machine.available, machine.total)]
    try:
        group = CONTROL_GROUPS / OWN_GROUP.read_text().rpartition("::/")[2].strip()
        for folder in (group, *group.parents):
            if CONTROL_GROUPS in (folder, *folder.parents) and (folder / "memory.max").is_file():
                limit = (folder / "memory.max").read_text().strip()
                # Files that were read and not written are counted as in use, but give way.
                files = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                used = int((folder / "memory.current").read_text()) - int(files.get("inactive_file", 0))
                left += [(max(int(limit) - used, 0), int(limit))] if limit != "max" else []
    except (OSError, ValueError):  # another system, or another version
        pass
    return min(left)
