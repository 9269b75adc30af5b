"""Many simulated settings over the machine's cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from rich.progress import Progress

from governor_bench.eval.setting import Outcome, Setting
from governor_bench.eval.simulated import run_simulated


def run_all(
    settings: Sequence[Setting], progress: Progress, workers: int | None = None
) -> list[Outcome]:
    """Simulate every setting; outcomes in the order of ``settings``. Duplicates run once."""
    wanted = list(dict.fromkeys(map(_key, settings)))
    by_key = {_key(setting): setting for setting in settings}
    task = progress.add_task(f"simulating {len(wanted)} settings", total=len(wanted))
    done: dict[str, Outcome] = {}
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        running = {pool.submit(run_simulated, by_key[key]): key for key in wanted}
        for future in as_completed(running):
            done[running[future]] = future.result()
            progress.advance(task)
    return [done[_key(setting)] for setting in settings]


def _key(setting: Setting) -> str:
    return repr(setting)
