"""What users got of one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from governor_workloads.served import Served
from governor_workloads.spec import Workload

from governor_bench.eval.chunk.setting import Outcome, Setting
from governor_bench.eval.chunk.shapes import is_long


class RunFailed(RuntimeError):
    """A run whose figures would say nothing."""


def judge(
    setting: Setting,
    workload: Workload,
    served: Sequence[Served],
    *,
    end_s: float,
    times_real_time: float,
    prefill_tokens_per_step: float = 0.0,
    host_limited_share: float = 0.0,
    late_share: float = 0.0,
) -> Outcome:
    """Judge the requests that were sent in the window of ``setting``.

    Args:
        workload: that was run.
        served: every request that was sent, in any order.
        end_s: when the run was cut off, or later: what has not come by then has not come.

    Raises:
        RunFailed: a request failed, or none of those to be judged finished.
    """
    failed = sorted({item.error for item in served if item.error})
    if failed:
        raise RunFailed(f"requests failed ({setting}): {failed[:3]}")
    start_s, stop_s = setting.timing.window_s
    judged = [item for item in served if start_s <= item.sent_s < stop_s]
    finished = [item for item in judged if item.finished]
    if not finished:
        raise RunFailed(f"no request was served that could be judged ({setting})")
    long = {item.index for item in workload.requests if is_long(item.prompt_tokens)}
    short = [item for item in judged if item.index not in long]
    tpot_s = [item.tpot_s for item in finished]
    # Of what a client of tier E cuts off it knows the first token alone.
    counted = [item for item in served if item.finished or not setting.emulated]
    waits_s, short_waits_s = _waits_s(judged, end_s), _waits_s(short, end_s)
    return Outcome(
        setting=setting,
        judged=len(judged),
        unfinished=len(judged) - len(finished),
        tpot_ms=1e3 * float(np.mean(tpot_s)),
        tpot_p99_ms=1e3 * float(np.quantile(tpot_s, 0.99)),
        ttft_attainment=attainment(judged, end_s),
        ttft_p50_s=float(np.median(waits_s)),
        ttft_p99_s=float(np.quantile(waits_s, 0.99)),
        short_ttft_p50_s=float(np.median(short_waits_s)),
        short_ttft_p99_s=float(np.quantile(short_waits_s, 0.99)),
        short_tpot_ms=1e3 * float(np.mean([item.tpot_s for item in short if item.finished])),
        throughput_tok_s=tokens_between(counted, start_s, stop_s, end_s) / (stop_s - start_s),
        longest_wait_s=max(waits_s),
        times_real_time=round(times_real_time, 2),
        prefill_tokens_per_step=prefill_tokens_per_step,
        host_limited_share=host_limited_share,
        late_share=late_share,
    )


def attainment(judged: Iterable[Served], end_s: float) -> float:
    """Share of the requests whose first token came in time. Of those that have none yet, only
    those whose time is over by ``end_s`` count, as missed."""
    met = missed = 0
    for item in judged:
        target_s = item.ttft_slo_s
        if target_s is None:
            continue
        if item.ttft_s is None:
            missed += end_s - item.sent_s > target_s
        else:
            met += item.ttft_s <= target_s
            missed += item.ttft_s > target_s
    return met / (met + missed) if met + missed else 1.0


def tokens_between(served: Iterable[Served], start_s: float, stop_s: float, end_s: float) -> float:
    """Output tokens that users received from ``start_s`` to ``stop_s``, those of each request
    spread evenly between its first and its last; of one that was cut off, until ``end_s``."""
    total = 0.0
    for item in served:
        if item.first_token_s is None or not item.output_tokens:
            continue
        first_s = item.first_token_s
        last_s = item.last_token_s if item.last_token_s is not None else end_s
        inside_s = min(last_s, stop_s) - max(first_s, start_s)
        if last_s > first_s:
            total += item.output_tokens * max(0.0, inside_s) / (last_s - first_s)
        else:
            total += item.output_tokens * (start_s <= first_s < stop_s)
    return total


def _waits_s(judged: Iterable[Served], end_s: float) -> list[float]:
    return [end_s - item.sent_s if item.ttft_s is None else item.ttft_s for item in judged]
