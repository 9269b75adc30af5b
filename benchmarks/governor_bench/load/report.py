"""What is measured of a run, in the field's terms (durations in seconds unless named).

- TTFT: arrival to first token. TPOT: (t_last - t_first) / (tokens - 1).
- SLO attainment: share of finished requests that meet every target that they carry.
- Goodput: output tokens per second of the requests that meet every target. A request with branches
  counts all its branches' tokens and is judged once, by its own TPOT.
- Victim TPOT: TPOT of serial requests that share steps with branching ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from governor_bench.load.client import RequestResult


class LoadReport(msgspec.Struct, frozen=True):
    """Figures of one run of one setting."""

    requests: int
    failed: int
    wall_s: float
    output_tokens: int
    throughput_tok_s: float
    goodput_tok_s: float
    attainment: float
    serial_attainment: float
    ttft_p50_s: float
    ttft_p99_s: float
    victim_tpot_p50_s: float
    victim_tpot_p95_s: float
    branching_requests: int
    branching_latency_p50_s: float
    """Arrival to last token of branching requests."""
    branch_tokens_per_s: float
    """Speed of one branching request: its tokens, all branches, over its time; mean."""


def meets_targets(result: RequestResult) -> bool:
    """Whether a finished request met every target that it carries."""
    spec = result.spec
    if not result.finished:
        return False
    if spec.ttft_slo_ms is not None and (result.ttft_s or 0.0) * 1e3 > spec.ttft_slo_ms:
        return False
    return spec.tpot_slo_ms is None or result.tpot_s * 1e3 <= spec.tpot_slo_ms


def summarise(results: Sequence[RequestResult]) -> LoadReport:
    """Sum up one run. Aborted requests count as neither met nor missed."""
    judged = [item for item in results if item.spec.abort_after_s is None]
    done = [item for item in judged if item.finished]
    serial = [item for item in done if not item.spec.branching]
    branching = [item for item in done if item.spec.branching]
    victims = [item for item in serial if any(_overlap(item, other) for other in branching)]
    good = [item for item in done if meets_targets(item)]
    wall_s = _span_s(done)
    tokens = sum(item.output_tokens for item in done)
    latencies = [(item.last_token_s or 0.0) - item.sent_s for item in branching]
    return LoadReport(
        requests=len(judged),
        failed=len(judged) - len(done),
        wall_s=wall_s,
        output_tokens=tokens,
        throughput_tok_s=tokens / wall_s if wall_s else 0.0,
        goodput_tok_s=sum(item.output_tokens for item in good) / wall_s if wall_s else 0.0,
        attainment=len(good) / len(judged) if judged else 0.0,
        serial_attainment=(
            sum(meets_targets(item) for item in serial) / len(serial) if serial else 0.0
        ),
        ttft_p50_s=_quantile([item.ttft_s or 0.0 for item in done], 0.5),
        ttft_p99_s=_quantile([item.ttft_s or 0.0 for item in done], 0.99),
        victim_tpot_p50_s=_quantile([item.tpot_s for item in victims], 0.5),
        victim_tpot_p95_s=_quantile([item.tpot_s for item in victims], 0.95),
        branching_requests=len(branching),
        branching_latency_p50_s=_quantile(latencies, 0.5),
        branch_tokens_per_s=(
            float(
                np.mean(
                    [
                        item.output_tokens / latency
                        for item, latency in zip(branching, latencies, strict=True)
                    ]
                )
            )
            if branching
            else 0.0
        ),
    )


def _overlap(one: RequestResult, other: RequestResult) -> bool:
    """Whether two requests produced tokens at the same time."""
    if one.first_token_s is None or other.first_token_s is None:
        return False
    return one.first_token_s < (other.last_token_s or 0.0) and other.first_token_s < (
        one.last_token_s or 0.0
    )


def _span_s(done: Sequence[RequestResult]) -> float:
    if not done:
        return 0.0
    return max(item.last_token_s or 0.0 for item in done) - min(item.sent_s for item in done)


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else 0.0
