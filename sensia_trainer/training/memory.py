"""One setting of the C library that makes training on a CPU faster."""

import ctypes
import platform


def keep_freed_memory():
    """
    Let glibc keep the memory of freed tensors for the next ones, instead of giving it back to the system.

    By default every large tensor is mapped anew and each of its pages is faulted in; in training, whose tensors come
    again each step, that is about a third of the time of a small model on CPU (`examples/benchmark.py adapt` runs with
    and without it). Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    mallopt(m_mmap_threshold, 2**30)
    mallopt(m_trim_threshold, 2**31 - 1)
