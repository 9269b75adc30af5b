"""Independent tasks, over this machine's cores or over a Dask cluster that exists already.

One function maps over items; what it does is the same in both places, so a result never hangs on
where it was computed. Dask's own protocol moves Python objects with pickle between its peers: a
cluster is as trusted as this process (``docs/scaling.md``). No socket of Governor's speaks it.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import as_completed as finished_here
from functools import cache, partial
from importlib import metadata
from importlib.util import find_spec
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, TypeVar

from controller_service.parent import end_with_parent
from controller_service.version import DISTRIBUTION

T = TypeVar("T")
R = TypeVar("R")

CONNECT_S = 10.0
RETRIES = 2
"""Times that a task may lose its worker to something else than an error of its own."""
LIBRARIES = ("numpy", "scipy", "scikit-learn", "lightgbm", "pyarrow", "msgspec", "distributed")
"""Results hang on their versions."""
PACKAGES = (
    "controller_service",
    "governor_bench",
    "governor_profiles",
    "governor_protos",
    "governor_sim",
    "governor_workloads",
    "sglang_patch",
)
"""Ours, whose source is compared: a version number does not tell two checkouts apart."""


class ClusterError(RuntimeError):
    """The cluster cannot be used; the message says why and what to do."""


class ClusterMismatch(ClusterError):
    """A worker runs other code than this process."""


def run_tasks(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    cluster: str | None = None,
    on_result: Callable[[int, R], None] | None = None,
    workers: int | None = None,
) -> list[R]:
    """``function`` of every item, in the order of ``items``.

    Args:
        function: of a module's top level, so that another process finds it by name; it and its
            results must not hang on the process that runs it.
        items: msgspec structs, arrays or plain values.
        cluster: address of a Dask scheduler, such as ``tcp://host:8786``; None or empty: a pool of
            processes here.
        on_result: called in this process with index and result, in order of completion.
        workers: processes of the pool here; default: one a core.

    Raises:
        ClusterError: the cluster cannot be reached, has no workers or keeps losing them.
        ClusterMismatch: a worker runs another version; names it.
        Exception: whatever ``function`` raises; tasks that have not begun are dropped.
    """
    if not items:
        return []
    if cluster:
        return _over_cluster(function, items, cluster, on_result)
    return _over_cores(function, items, on_result, workers)


def _over_cores(
    function: Callable[[T], R],
    items: Sequence[T],
    on_result: Callable[[int, R], None] | None,
    workers: int | None,
) -> list[R]:
    results: dict[int, R] = {}
    most = min(workers or os.cpu_count() or 1, len(items))
    others = set(active_children())
    with ProcessPoolExecutor(most, get_context("spawn"), initializer=end_with_parent) as pool:
        try:
            running = {pool.submit(function, item): index for index, item in enumerate(items)}
            for future in finished_here(running):
                _keep(results, running[future], future.result(), on_result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(active_children()) - others:
                worker.kill()  # what they are at may take minutes, and nobody waits for it
            raise
    return [results[index] for index in range(len(items))]


def _over_cluster(
    function: Callable[[T], R],
    items: Sequence[T],
    address: str,
    on_result: Callable[[int, R], None] | None,
) -> list[R]:
    client = _connect(address)
    from distributed import KilledWorker, as_completed  # noqa: PLC0415 - only with a cluster

    try:
        expected = versions()
        _require_same(client, expected, address)
        task = partial(_guarded, expected, function)
        futures = client.map(task, items, pure=False, retries=RETRIES)
        indices = {future.key: index for index, future in enumerate(futures)}
        results: dict[int, R] = {}
        try:
            for future in as_completed(futures, loop=client.loop):
                _keep(results, indices[future.key], future.result(), on_result)
        except KilledWorker as error:
            raise ClusterError(
                f"cluster {address}: a task lost its worker {RETRIES + 1} times: look into the "
                f"workers' logs, most often it is memory ({error})"
            ) from error
        finally:
            client.cancel(futures)
        return [results[index] for index in range(len(items))]
    finally:
        client.close()


def _keep(
    results: dict[int, R], index: int, result: R, on_result: Callable[[int, R], None] | None
) -> None:
    results[index] = result
    if on_result is not None:
        on_result(index, result)


def _connect(address: str) -> Any:
    """A client of a scheduler that has workers."""
    try:
        from distributed import Client  # noqa: PLC0415 - an extra
    except ImportError:
        raise ClusterError(
            f"cluster {address}: Dask is not installed here; pip install '{DISTRIBUTION}[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"cluster {address}: no Dask scheduler answers ({error}): start one with "
            "'dask scheduler', and check address, firewall and TLS settings"
        ) from error
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError:
        client.close()
        raise ClusterError(
            f"cluster {address}: it has no workers: start some with 'dask worker {address}'"
        ) from None
    return client


def _require_same(client: Any, expected: dict[str, str], address: str) -> None:
    """Ask every worker before any work is sent: by the standard library alone at first, as a
    worker without Governor could not even load a function of ours."""
    found = client.run(metadata.version, DISTRIBUTION, on_error="return")
    for worker, version in found.items():
        if version != expected[DISTRIBUTION]:
            told = "none" if isinstance(version, Exception) else version
            raise ClusterMismatch(
                f"cluster {address}: worker {worker} has {DISTRIBUTION} {told}, this process "
                f"{expected[DISTRIBUTION]}: install the same version on both"
            )
    for worker, theirs in client.run(versions).items():
        _compare(theirs, expected, f"cluster {address}: worker {worker}")


def _guarded(expected: dict[str, str], function: Callable[[T], R], item: T) -> R:
    """On a worker, which may have joined after the others were asked."""
    _compare(versions(), expected, f"worker on {platform.node()}")
    return function(item)


def _compare(theirs: dict[str, str], expected: dict[str, str], who: str) -> None:
    wrong = [
        f"{name} {theirs.get(name, 'none')} instead of {version}"
        for name, version in expected.items()
        if theirs.get(name) != version
    ]
    if wrong:
        raise ClusterMismatch(
            f"{who} differs from this process: {', '.join(wrong)}; install the same versions on "
            "both, as results hang on them"
        )


@cache
def versions() -> dict[str, str]:
    """What results hang on: this process's Python, libraries, and the source of our packages."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in (DISTRIBUTION, *LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return {**found, "source": source_hash(PACKAGES)}


def source_hash(packages: Sequence[str]) -> str:
    """Short hash over the source files of packages and modules; absent ones count as empty."""
    digest = hashlib.sha256()
    for package in packages:
        for path in _sources(package):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sources(name: str) -> list[Path]:
    """Files of a package, or the one of a module."""
    spec = find_spec(name)
    if spec is None:
        return []
    folders = spec.submodule_search_locations
    if folders is None:
        return [] if spec.origin is None else [Path(spec.origin)]
    return sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
