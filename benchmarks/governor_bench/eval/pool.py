"""Many simulated settings over the machine's cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from rich.progress import Progress

from governor_bench.eval.cache import OutcomeCache
from governor_bench.eval.setting import Outcome, Setting
from governor_bench.eval.simulated import run_simulated


def run_all(
    settings: Sequence[Setting],
    progress: Progress,
    cache: OutcomeCache | None = None,
    workers: int | None = None,
) -> list[Outcome]:
    """Simulate every setting; outcomes in the order of ``settings``. Duplicates run once."""
    wanted = list(dict.fromkeys(settings))
    task = progress.add_task(f"simulating {len(wanted)} settings", total=len(wanted))
    done: dict[Setting, Outcome] = {}
    for setting in wanted:
        known = None if cache is None else cache.get(setting)
        if known is not None:
            done[setting] = known
            progress.advance(task)
    missing = [setting for setting in wanted if setting not in done]
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run_simulated, setting): setting for setting in missing}
        for future in as_completed(running):
            outcome = done[running[future]] = future.result()
            if cache is not None:
                cache.add(outcome)
            progress.advance(task)
    return [done[setting] for setting in settings]
