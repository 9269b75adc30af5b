"""What users got of one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from governor_workloads.served import Served

from governor_bench.eval.laps_sd.setting import Estimates, Outcome, Setting

LEVELS = np.linspace(0.0, 1.0, 101)


class RunFailed(RuntimeError):
    """A run whose figures would say nothing."""


def judge(
    setting: Setting,
    served: Sequence[Served],
    *,
    end_s: float,
    preemptions: int,
    retractions: int = 0,
    rows: float = 0.0,
    estimates: Estimates | None = None,
    times_real_time: float = 0.0,
    host_limited_share: float = 0.0,
    late_share: float = 0.0,
) -> Outcome:
    """Judge the requests that were sent in the window of ``setting``.

    Args:
        served: every request that was sent, in any order.
        end_s: when the run was cut off.
        preemptions: of the whole run; likewise ``retractions``.

    Raises:
        RunFailed: a request failed, or there is none to be judged.
    """
    failed = sorted({item.error for item in served if item.error})
    if failed:
        raise RunFailed(f"requests failed ({setting}): {failed[:3]}")
    start_s, stop_s = setting.timing.window_s
    judged = [item for item in served if start_s <= item.sent_s < stop_s]
    if not judged:
        raise RunFailed(f"no request was sent that could be judged ({setting})")
    latencies = np.array([latency_s(item, end_s) for item in judged])
    ttft = [item.ttft_s for item in judged if item.ttft_s is not None]
    per_hundred = 100.0 / len(served)
    return Outcome(
        setting=setting,
        judged=len(judged),
        unfinished=sum(not item.finished for item in judged),
        mean_s=float(latencies.mean()),
        p50_s=float(np.quantile(latencies, 0.5)),
        p90_s=float(np.quantile(latencies, 0.9)),
        p99_s=float(np.quantile(latencies, 0.99)),
        longest_s=float(latencies.max()),
        latencies_s=tuple(np.quantile(latencies, LEVELS).round(3).tolist()),
        ttft_s=float(np.mean(ttft)) if ttft else 0.0,
        preemptions=per_hundred * preemptions,
        retractions=per_hundred * retractions,
        rows=rows,
        estimates=estimates,
        times_real_time=round(times_real_time, 2),
        host_limited_share=host_limited_share,
        late_share=late_share,
    )


def latency_s(item: Served, end_s: float) -> float:
    """From the arrival to the last token; to ``end_s`` for one that had not ended."""
    last_s = item.last_token_s if item.finished and item.last_token_s is not None else end_s
    return last_s - item.sent_s
