"""Taking memory and disk from a live process, and giving them back. Linux only."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def without_memory(pid: int, spare_bytes: int) -> Iterator[None]:
    """The process can have ``spare_bytes`` of address space more than it has now."""
    soft = psutil.Process(pid).memory_info().vms + spare_bytes
    with _limited(pid, resource.RLIMIT_AS, soft):
        yield


@contextlib.contextmanager
def without_disk(pid: int, most_bytes: int) -> Iterator[None]:
    """No file that the process writes can grow past ``most_bytes``, as on a full disk."""
    with _limited(pid, resource.RLIMIT_FSIZE, most_bytes):
        yield


@contextlib.contextmanager
def _limited(pid: int, what: int, soft: int) -> Iterator[None]:
    before = resource.prlimit(pid, what, (soft, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have ended of it
            resource.prlimit(pid, what, before)
