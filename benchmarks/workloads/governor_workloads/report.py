"""What is measured of a run, whoever served it: simulator, emulated engine or real one.

- TTFT: arrival to first token. TPOT: (t_last - t_first) / (tokens - 1).
- SLO attainment: share of finished requests that meet every target that they carry.
- Goodput: output tokens of the requests that meet every target, over wall time. A request with
  branches counts all its branches' tokens and is judged once, by its own TPOT.
- Victim TPOT: TPOT of serial requests that share steps with branching ones; told by time, as no
  user sees steps: both produced tokens at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from governor_workloads.errors import WorkloadError
from governor_workloads.served import Served


class LoadReport(msgspec.Struct, frozen=True):
    """Figures of one run of one setting. A figure over no requests is 0."""

    requests: int
    """Judged: finished or failed."""
    failed: int
    """Ended with an error."""
    wall_s: float
    """First send to last token, or the window's length; s."""
    output_tokens: int
    """Of finished requests, all branches."""
    throughput_tok_s: float
    """Output tokens of finished requests over wall time."""
    goodput_tok_s: float
    """Output tokens of finished requests that meet every target, over wall time."""
    attainment: float
    """Share of finished requests that meet every target, 0 to 1."""
    serial_attainment: float
    """The same, of serial requests."""
    ttft_p50_s: float
    ttft_p99_s: float
    victim_tpot_p50_s: float
    """TPOT of serial requests that ran beside branching ones, s/token."""
    victim_tpot_p95_s: float
    branching_requests: int
    """Finished requests with branches."""
    branching_latency_p50_s: float
    """Arrival to last token of branching requests."""
    branch_tokens_per_s: float
    """Speed of one branching request: its tokens, all branches, over its time; mean."""
    branching_attainment: float = 0.0
    """Attainment of branching requests."""
    ttft_p90_s: float = 0.0
    tpot_p50_s: float = 0.0
    """Of all finished requests, s/token; tokens of all branches of a request count."""
    tpot_p90_s: float = 0.0
    tpot_p99_s: float = 0.0
    serial_tpot_p50_s: float = 0.0
    """Of serial requests, s/token."""
    serial_tpot_p90_s: float = 0.0
    serial_tpot_p99_s: float = 0.0
    tpot_mean_s: float = 0.0
    branching_tpot_mean_s: float = 0.0
    victims: int = 0
    """Serial requests that ran beside branching ones."""
    unfinished: int = 0
    """Cut off while in flight; neither met nor missed, and in no other figure."""


def summarise(served: Sequence[Served], window: tuple[float, float] | None = None) -> LoadReport:
    """Sum up one run.

    Args:
        served: every request that was sent.
        window: (t0, t1) in seconds of the workload's clock: judge only requests whose last token
            falls in [t0, t1), over a wall time of t1 - t0. So neither the filling of the engine
            nor its draining distorts what a closed loop or an overloaded engine does in between.
            A failed request belongs to the window in which it was sent.

    Raises:
        WorkloadError: the window is empty.
    """
    if window is not None and not window[0] < window[1]:
        raise WorkloadError(f"window: {window[0]:g} to {window[1]:g} s is empty; end it later")
    done = [item for item in served if item.finished and _within(item.last_token_s, window)]
    failed = [item for item in served if item.error and _within(item.sent_s, window)]
    unfinished = sum(not item.error and not item.finished for item in served)
    serial = [item for item in done if not item.branching]
    branching = [item for item in done if item.branching]
    victims = _victims(serial, served)
    wall_s = window[1] - window[0] if window is not None else _span_s(done)
    tokens = sum(item.output_tokens for item in done)
    good_tokens = sum(item.output_tokens for item in done if item.meets_targets)
    ttft_s = _quantiles([item.ttft_s or 0.0 for item in done], 0.5, 0.9, 0.99)
    tpot_s = _quantiles([item.tpot_s for item in done], 0.5, 0.9, 0.99)
    serial_tpot_s = _quantiles([item.tpot_s for item in serial], 0.5, 0.9, 0.99)
    victim_tpot_s = _quantiles([item.tpot_s for item in victims], 0.5, 0.95)
    latencies_s = [(item.last_token_s or 0.0) - item.sent_s for item in branching]
    speeds = [
        item.output_tokens / latency_s
        for item, latency_s in zip(branching, latencies_s, strict=True)
        if latency_s > 0
    ]
    return LoadReport(
        requests=len(done) + len(failed),
        failed=len(failed),
        wall_s=wall_s,
        output_tokens=tokens,
        throughput_tok_s=tokens / wall_s if wall_s else 0.0,
        goodput_tok_s=good_tokens / wall_s if wall_s else 0.0,
        attainment=_attainment(done),
        serial_attainment=_attainment(serial),
        ttft_p50_s=ttft_s[0],
        ttft_p99_s=ttft_s[2],
        victim_tpot_p50_s=victim_tpot_s[0],
        victim_tpot_p95_s=victim_tpot_s[1],
        branching_requests=len(branching),
        branching_latency_p50_s=_quantiles(latencies_s, 0.5)[0],
        branch_tokens_per_s=_mean(speeds),
        branching_attainment=_attainment(branching),
        ttft_p90_s=ttft_s[1],
        tpot_p50_s=tpot_s[0],
        tpot_p90_s=tpot_s[1],
        tpot_p99_s=tpot_s[2],
        serial_tpot_p50_s=serial_tpot_s[0],
        serial_tpot_p90_s=serial_tpot_s[1],
        serial_tpot_p99_s=serial_tpot_s[2],
        tpot_mean_s=_mean([item.tpot_s for item in done]),
        branching_tpot_mean_s=_mean([item.tpot_s for item in branching]),
        victims=len(victims),
        unfinished=unfinished,
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _within(time_s: float | None, window: tuple[float, float] | None) -> bool:
    return window is None or (time_s is not None and window[0] <= time_s < window[1])


def _attainment(done: Sequence[Served]) -> float:
    return sum(item.meets_targets for item in done) / len(done) if done else 0.0


def _victims(serial: Sequence[Served], served: Sequence[Served]) -> list[Served]:
    """Serial requests during whose tokens a branching one, judged or not, produced tokens.

    Those that started before a request's last token, less those that had ended by its first.
    """
    spans = [
        (item.first_token_s, np.inf if item.last_token_s is None else item.last_token_s)
        for item in served
        if item.branching and item.first_token_s is not None
    ]
    if not spans or not serial:
        return []
    starts = np.sort([first for first, _ in spans])
    ends = np.sort([last for _, last in spans])
    firsts = [item.first_token_s or 0.0 for item in serial]
    lasts = [item.last_token_s or 0.0 for item in serial]
    beside = starts.searchsorted(lasts, side="left") > ends.searchsorted(firsts, side="right")
    return [item for item, shared in zip(serial, beside.tolist(), strict=True) if shared]


def _span_s(done: Sequence[Served]) -> float:
    if not done:
        return 0.0
    return max(item.last_token_s or 0.0 for item in done) - min(item.sent_s for item in done)


def _quantiles(values: Sequence[float], *shares: float) -> list[float]:
    return (
        [float(value) for value in np.quantile(values, shares)] if values else [0.0] * len(shares)
    )
