"""One run of this evaluation: what determines it, and what came of it."""

from __future__ import annotations

import msgspec
from governor_profiles import load_profile
from governor_sim.batching import EngineLimits
from governor_workloads.spec import Workload

from governor_bench.eval.chunk.shapes import shape_of, workload_of
from governor_bench.eval.setting import STOCK
from governor_bench.eval.timing import Timing

DEFAULT_TOKENS, MOST_TOKENS = 8192, 16384
"""SGLang's own ``chunked_prefill_size`` and ``max_prefill_tokens`` on a card of this size."""
PREFILL_FIRST, MIXED = "prefill first", "mixed chunk"
"""SGLang's schedules: a step prefills or decodes (overlap loop), or does both (normal loop)."""
PROFILE = "qwen3-32b-h200"
FITTED_TREES = "fitted trees"
"""Instead of a predictor's name: Extra-Trees that were fitted beforehand and learn nothing more."""
JUDGED_REQUESTS, MOST_JUDGED_S = 400, 240.0
WARM_UP_S, GOES_ON_S, DRAIN_S = 30.0, 20.0, 90.0

EMULATED = Timing(warm_up_s=6.0, judged_s=28.0, goes_on_s=2.0, drain_s=4.0)
"""Of every run of tier E, which takes as long as it says."""


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that determines one run."""

    shape: str
    """Name in :mod:`..shapes`."""
    share: float
    """Load, as a share of what saturates the engine."""
    seed: int
    policy: str = STOCK
    chunk_tokens: int = DEFAULT_TOKENS
    """``chunked_prefill_size`` that the engine starts with."""
    schedule: str = PREFILL_FIRST
    predictor: str = "corrected-linear"
    profile: str = PROFILE
    target_factor: float = 1.0
    """Every TTFT target is multiplied by it."""
    shortened: float = 1.0
    """Warm-up and window are divided by it."""
    emulated: bool = False
    """Tier E, or the simulator beside it."""

    @property
    def rate_per_s(self) -> float:
        """Requests per second, on average."""
        return self.share * shape_of(self.shape).saturation_per_s

    @property
    def timing(self) -> Timing:
        if self.emulated:
            return EMULATED
        judged_s = min(
            max(JUDGED_REQUESTS / self.rate_per_s, shape_of(self.shape).least_judged_s),
            MOST_JUDGED_S,
        )
        return Timing(
            WARM_UP_S / self.shortened,
            judged_s / self.shortened,
            GOES_ON_S / self.shortened,
            DRAIN_S,
        )

    @property
    def mixes_chunks(self) -> bool:
        return self.schedule == MIXED


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the judged requests of one run came to."""

    setting: Setting
    judged: int
    unfinished: int
    """Of those, how many had not finished at the end of the run."""
    tpot_ms: float
    """Mean over finished requests of each one's time per token."""
    tpot_p99_ms: float
    ttft_attainment: float
    """Share of the requests whose first token came within their target."""
    ttft_p50_s: float
    ttft_p99_s: float
    short_ttft_p50_s: float
    """Of requests that are not long ones of a burst."""
    short_ttft_p99_s: float
    short_tpot_ms: float
    throughput_tok_s: float
    """Output tokens that users received while judged requests were sent; on tier E, those of
    requests that finished."""
    longest_wait_s: float
    """For a first token; of those that had none, until the end of the run."""
    times_real_time: float
    prefill_tokens_per_step: float = 0.0
    """Over steps that prefilled."""
    host_limited_share: float = 0.0
    """Tier E: share of its time for which the device waited for the host."""
    late_share: float = 0.0
    """Governed steps without a fresh decision."""


def workload_for(setting: Setting) -> Workload:
    """The requests of ``setting``: equal for all that differ in engine or policy alone."""
    return workload_of(
        setting.shape,
        setting.rate_per_s,
        setting.seed,
        setting.timing.sending_s,
        load_profile(setting.profile),
        setting.target_factor,
    )


def limits_of(setting: Setting) -> EngineLimits:
    """What the engine was started with."""
    return EngineLimits(
        max_running_requests=2048,
        chunked_prefill_size=setting.chunk_tokens,
        max_prefill_tokens=MOST_TOKENS,
        mixed_chunk=setting.mixes_chunks,
    )
