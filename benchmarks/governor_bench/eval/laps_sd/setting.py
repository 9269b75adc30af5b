"""One run of this evaluation: what determines it, and what came of it."""

from __future__ import annotations

import msgspec
from governor_sim.batching import EngineLimits
from governor_sim.drafting import DraftingConfig
from governor_workloads.spec import Workload

from governor_bench.eval.laps_sd.shapes import shape_of, workload_of
from governor_bench.eval.setting import STOCK
from governor_bench.eval.timing import Timing

PROFILE = "qwen3-32b-h200"
PLACES, SGLANG_PLACES, FEW_PLACES = 16, 48, 4
"""In the batch. The first keep it full at all loads that count; the others are what SGLang gives
itself as soon as it speculates, and those of a deployment for low latency."""
BURSTY, POISSON = 4.0, 1.0
"""Coefficient of variation of the gaps between arrivals. Counts of renewals that are that bursty
have a variance of cv^2 = 16 times their mean in the long run, as those of Azure's public
conversation trace of 2023 have over a minute (16.1 in ``AzureLLMInferenceTrace_conv.csv``; 164 in
its trace of code). Poisson's have 1."""
DRAFT_TOKENS = 3
"""Drafted for every row at every step; nobody decides about it here."""
TELLING, HINTED, SILENT, DECLARED = "prompt", "hints", "nothing", "declared"
"""What tells of the length of an output: that of the prompt; a hint as well, which is off by a
factor (:data:`..shapes.HINT_SPREAD`); nothing; or the limit that the request names, which then is
just what it will say."""
LEAST_SHARE, MOST_SHARE = 0.7, 0.95
"""Loads that headline figures are of."""

EMULATED = Timing(warm_up_s=8.0, judged_s=24.0, goes_on_s=4.0, drain_s=12.0)
"""Of every run of tier E, which takes as long as it says."""


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that determines one run."""

    shape: str
    """Name in :mod:`..shapes`."""
    share: float
    """Load, as a share of what saturates the engine."""
    seed: int
    policy: str = STOCK
    """As :func:`..contestants.policy_of` reads it."""
    speculates: bool = True
    cv: float = BURSTY
    """Of the gaps between arrivals."""
    places: int = PLACES
    lengths: str = TELLING
    """What is told of how much a request will say."""
    predictor: str = "corrected-linear"
    profile: str = PROFILE
    shortened: float = 1.0
    """Every time of the run is divided by it."""
    emulated: bool = False
    """Tier E, or the simulator beside it."""

    @property
    def rate_per_s(self) -> float:
        """Requests per second, on average."""
        drafting, plain = shape_of(self.shape).saturation_per_s[self.places]
        return self.share * (drafting if self.speculates else plain)

    @property
    def timing(self) -> Timing:
        if self.emulated:
            return EMULATED
        shape = shape_of(self.shape)
        return Timing(
            shape.warm_up_s / self.shortened,
            shape.judged_s / self.shortened,
            shape.goes_on_s / self.shortened,
            shape.drain_s / self.shortened,
        )


class Estimates(msgspec.Struct, frozen=True):
    """How far predictions were off that were made as soon as requests were perceptible; medians of
    relative errors."""

    requests: int = 0
    seconds: float = 0.0
    """Of the remaining time."""
    pace: float = 0.0
    """Of the time per token: what would be left of the error if lengths were known."""
    tokens: float = 0.0
    """Of the remaining length."""
    after_tokens: float = 0.0
    """What requests had written by then, median."""
    pace_bias: float = 0.0
    """Median of the signed errors of the pace; above 0 where it was taken for slower."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the judged requests of one run came to. A latency is the time from the arrival to the
    last token; of a request that had not ended with the run, its age by then."""

    setting: Setting
    judged: int
    unfinished: int
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    longest_s: float
    latencies_s: tuple[float, ...]
    """Their quantiles, from 0 to 1 in steps of 0.01."""
    ttft_s: float
    """Mean time to the first token, of those that got one."""
    preemptions: float
    """Of the whole run, per 100 requests of it."""
    retractions: float
    """Because memory was short, likewise."""
    rows: float = 0.0
    """In a decode step while judged requests were sent, mean."""
    estimates: Estimates | None = None
    times_real_time: float = 0.0
    host_limited_share: float = 0.0
    """Tier E: share of its time for which the device waited for the host."""
    late_share: float = 0.0
    """Governed steps without a fresh decision."""


def workload_for(setting: Setting) -> Workload:
    """The requests of ``setting``: equal for all that differ in the order of service alone."""
    return workload_of(
        shape_of(setting.shape),
        setting.rate_per_s,
        setting.cv,
        setting.seed,
        setting.timing.sending_s,
        is_telling=setting.lengths != SILENT,
        is_hinted=setting.lengths == HINTED,
    )


def limits_of(setting: Setting) -> EngineLimits:
    """What the engine was started with."""
    return EngineLimits(max_running_requests=setting.places)


def drafting_of(setting: Setting) -> DraftingConfig | None:
    """How it speculates."""
    if not setting.speculates:
        return None
    return DraftingConfig(
        lengths=(0, DRAFT_TOKENS), own_length=DRAFT_TOKENS, most_tokens=DRAFT_TOKENS, switch_s=0.0
    )
