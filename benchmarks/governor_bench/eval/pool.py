"""Many simulated settings, over the machine's cores or over a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from rich.progress import Progress

from controller_service.learning.distributed import run_tasks

S = TypeVar("S")
"""A setting: hashable, and all that determines a run."""
R = TypeVar("R")
"""What a run came to."""
S_contra = TypeVar("S_contra", contravariant=True)


class Cache(Protocol[S_contra, R]):
    """Where finished runs are kept."""

    def get(self, setting: S_contra) -> R | None: ...

    def add(self, outcome: R) -> None: ...


def run_all(
    run: Callable[[S], R],
    settings: Sequence[S],
    progress: Progress,
    *,
    what: str = "simulating",
    cache: Cache[S, R] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
) -> list[R]:
    """Run every setting; outcomes in the order of ``settings``. Duplicates run once.

    Args:
        run: of a module's top level, so that another process finds it by name.
        what: that is done, for the progress bar.
        workers: processes here; default: one a core.
        cluster: address of a Dask scheduler instead; None: this machine.

    Raises:
        ClusterError: the cluster cannot be used.
        Exception: whatever ``run`` raises.
    """
    wanted = list(dict.fromkeys(settings))
    task = progress.add_task(f"{what}, {len(wanted)} runs", total=len(wanted))
    done: dict[S, R] = {}
    for setting in wanted:
        known = None if cache is None else cache.get(setting)
        if known is not None:
            done[setting] = known
            progress.advance(task)
    missing = [setting for setting in wanted if setting not in done]

    def keep(index: int, outcome: R) -> None:
        done[missing[index]] = outcome
        if cache is not None:
            cache.add(outcome)
        progress.advance(task)

    run_tasks(run, missing, cluster=cluster, on_result=keep, workers=workers)
    return [done[setting] for setting in settings]
