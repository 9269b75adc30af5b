"""One run of this evaluation, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from governor_profiles import load_profile
from governor_sim.batching import EngineLimits
from governor_sim.drafting import DraftingConfig
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_workloads.generator import generate
from governor_workloads.mix import Mix
from governor_workloads.served import Served
from governor_workloads.spec import Workload

from governor_bench.eval.predictors import trained
from governor_bench.eval.speculation.baselines import policy_of
from sglang_patch.config import EngineConfig

LENGTHS = (0, 1, 2, 3, 5, 7, 10)
TREE_WIDTH, TREE_NODES = 4, 32
LEAST_REQUESTS, MOST_REQUESTS = 24, 384
"""Requests that are judged, beside as many as there are users before them and after them."""
LEAST_EMULATED = 12
"""Likewise on tier E."""
SPREAD, DRIFT, BURST_SHARE = 0.15, 0.3, 0.1
NO_TARGET_MS = 60_000.0
"""What a request that names no target is taken to have; an engine would say 50 ms."""
EMULATED = "emulated"
CPU = "cpu"
LEAST_ON_CPU = 12
TIGHT_MS = 30.0
"""TPOT target of half the users where there are targets; the others have none."""


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that determines one run."""

    load: int
    """Users of a closed loop."""
    level: float
    """Mean acceptance; on tier C, share of the requests that go on from text which is drafted
    well."""
    policy: str
    """As :func:`..baselines.policy_of` reads it."""
    seed: int
    other_level: float | None = None
    """The same of the first half of what is judged; None: steady."""
    spread: float = SPREAD
    burst_share: float = BURST_SHARE
    burst_tokens: int = 16
    burst_factor: float = 0.4
    engine: str = "ragged"
    """``ragged``: each row pays for its own draft; ``batch``: for the longest; ``tree``: trees;
    ``emulated``: as tier E's engine; ``cpu``: tier C's."""
    has_targets: bool = False
    profile: str = "qwen3-32b-h200"
    predictor: str = "corrected-linear"
    shortened: int = 1
    """Requests are divided by it, for quick runs."""
    output_tokens: int = 300
    """Mean length of an output."""


class RunFailed(RuntimeError):
    """A run whose figures would say nothing."""


class StepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Means over the decode steps of a run, and how far the machine that ran it can be trusted."""

    rows: float
    draft_tokens_per_row: float
    accepted_per_row: float
    length: float
    """Draft steps a step."""
    step_ms: float
    times_real_time: float
    host_limited_share: float = 0.0
    """Tier E: share of its time for which the device waited for the host."""
    late_share: float = 0.0
    """Tier E: governed steps without a fresh decision."""


class Outcome(StepFigures, frozen=True, kw_only=True):
    """What one run came to, over the same requests under every policy."""

    setting: Setting
    tokens_per_s: float
    """Users times the output of the judged requests over the time that they took, one with the
    other (Little's law): what the loop gives if it goes on with such requests. How many tokens fall
    into a window says less: a policy that serves the easy requests first gives more at first."""
    goodput_tok_s: float
    """The same, of the output of those that met their target."""
    tight_attainment: float | None
    """Share of the requests with a target that met it; None without targets."""
    tight_tpot_ms: float | None
    """Their mean time per token."""


def judged_requests(setting: Setting) -> int:
    most = max(LEAST_REQUESTS, min(3 * setting.load, MOST_REQUESTS))
    if setting.engine == EMULATED:
        # It takes as long as it says.
        most = max(LEAST_EMULATED, min(round(1.25 * setting.load), MOST_REQUESTS))
    if setting.engine == CPU:
        most = max(LEAST_ON_CPU, round(1.5 * setting.load))
    return max(2, most // setting.shortened)


def workload_of(setting: Setting) -> Workload:
    """As many requests as there are users to begin with, then those that are judged, then as many
    again, which keep the batch full."""
    judged = judged_requests(setting)
    shifts = []
    if setting.other_level is not None:
        shifts = [
            {"from_request": setting.load, "level": setting.other_level},
            {"from_request": setting.load + judged // 2, "level": setting.level},
        ]
    tight = {"tpot_slo_s": TIGHT_MS / 1e3}
    mix = {
        "arrivals": {"kind": "closed", "users": setting.load},
        "requests": 2 * setting.load + judged,
        "prompt_tokens": {"kind": "uniform", "min": 100, "max": 300},
        "output_tokens": {
            "kind": "lognormal",
            "mean": setting.output_tokens,
            "cv": 0.5,
            "min": 8 * setting.output_tokens // 75,
            "max": 8 * setting.output_tokens // 3,
        },
        "targets": [tight, {}] if setting.has_targets else [],
        "acceptance": {
            "level": setting.level,
            "spread": setting.spread,
            "drift": DRIFT,
            "burst_share": setting.burst_share,
            "burst_tokens": setting.burst_tokens,
            "burst_factor": setting.burst_factor,
            "shifts": shifts,
        },
    }
    return generate(Mix.of(mix), setting.seed)


def engine_of(setting: Setting) -> DraftingConfig:
    if setting.engine == "tree":
        return DraftingConfig(lengths=LENGTHS, width=TREE_WIDTH, most_tokens=TREE_NODES)
    ragged = DraftingConfig(lengths=LENGTHS, most_tokens=LENGTHS[-1])
    if setting.engine == EMULATED:
        return msgspec.structs.replace(ragged, switch_s=0.0)
    return msgspec.structs.replace(ragged, is_ragged=setting.engine == "ragged")


def run(setting: Setting) -> Outcome:
    """Simulate ``setting``."""
    profile = load_profile(setting.profile)
    workload = workload_of(setting)
    result = simulate(
        workload,
        profile,
        policy_of(setting.policy),
        trained(setting.predictor, profile, setting.seed),
        SimConfig(
            limits=EngineLimits(max_running_requests=2048),
            drafting=engine_of(setting),
            engine=EngineConfig(default_tpot_slo_ms=NO_TARGET_MS),
            # A request of tier E ends with its limit, which is what it will say.
            max_new_tokens=0 if setting.engine == EMULATED else 1024,
        ),
        seed=setting.seed,
    )
    return judge(setting, result.served, _steps(setting, result))


def judge(setting: Setting, all_served: Sequence[Served], steps: StepFigures) -> Outcome:
    """What the judged requests of a run came to.

    Raises:
        RunFailed: not all of them were served.
    """
    served = {item.index: item for item in all_served}
    indexes = range(setting.load, setting.load + judged_requests(setting))
    judged = [served[index] for index in indexes if index in served and served[index].finished]
    if len(judged) < len(indexes):
        errors = {item.error for item in all_served if item.error}
        raise RunFailed(
            f"{len(indexes) - len(judged)} of {len(indexes)} judged requests were not served "
            f"({setting}): {sorted(errors)[:3]}"
        )
    taken_s = sum((item.last_token_s or 0.0) - item.sent_s for item in judged)
    tokens = sum(item.output_tokens for item in judged)
    kept = sum(item.output_tokens for item in judged if item.meets_targets)
    tight = [item for item in judged if item.tpot_slo_s is not None]
    return Outcome(
        setting=setting,
        tokens_per_s=setting.load * tokens / taken_s,
        goodput_tok_s=setting.load * kept / taken_s,
        tight_attainment=(
            sum(item.meets_targets for item in tight) / len(tight) if tight else None
        ),
        tight_tpot_ms=1e3 * float(np.mean([item.tpot_s for item in tight])) if tight else None,
        **msgspec.structs.asdict(steps),
    )


def _steps(setting: Setting, result: SimResult) -> StepFigures:
    """Over the decode steps while the judged requests were sent."""
    served = {item.index: item for item in result.served}
    last = setting.load + judged_requests(setting)
    start_s, end_s = served[setting.load].sent_s, served[last].sent_s
    steps = result.steps
    inside = (steps.prefill_tokens == 0) & (steps.end_s > start_s) & (steps.end_s <= end_s)
    rows = float(steps.rows[inside].sum())
    return StepFigures(
        rows=rows / max(1, int(inside.sum())),
        draft_tokens_per_row=float(steps.draft_tokens[inside].sum()) / rows,
        accepted_per_row=float(steps.accepted_tokens[inside].sum()) / rows,
        length=float(steps.draft_length[inside].mean()),
        step_ms=1e3 * float(steps.seconds[inside].mean()),
        times_real_time=round(result.times_real_time, 1),
    )
