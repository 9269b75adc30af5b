"""Many simulated settings, over the machine's cores or over a cluster."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import Progress

from controller_service.learning.distributed import run_tasks
from governor_bench.eval.cache import OutcomeCache
from governor_bench.eval.setting import Outcome, Setting
from governor_bench.eval.simulated import run_simulated


def run_all(
    settings: Sequence[Setting],
    progress: Progress,
    cache: OutcomeCache | None = None,
    workers: int | None = None,
    cluster: str | None = None,
) -> list[Outcome]:
    """Simulate every setting; outcomes in the order of ``settings``. Duplicates run once.

    Args:
        workers: processes here; default: one a core.
        cluster: address of a Dask scheduler instead; None: this machine.

    Raises:
        ClusterError: the cluster cannot be used.
    """
    wanted = list(dict.fromkeys(settings))
    task = progress.add_task(f"simulating {len(wanted)} settings", total=len(wanted))
    done: dict[Setting, Outcome] = {}
    for setting in wanted:
        known = None if cache is None else cache.get(setting)
        if known is not None:
            done[setting] = known
            progress.advance(task)
    missing = [setting for setting in wanted if setting not in done]

    def keep(index: int, outcome: Outcome) -> None:
        done[missing[index]] = outcome
        if cache is not None:
            cache.add(outcome)
        progress.advance(task)

    run_tasks(run_simulated, missing, cluster=cluster, on_result=keep, workers=workers)
    return [done[setting] for setting in settings]
