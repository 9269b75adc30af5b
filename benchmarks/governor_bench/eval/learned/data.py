"""Measured steps to learn from and to be judged by, of an engine whose truth is known."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
from governor_profiles import StepProfile
from governor_sim.clairvoyant import TruePredictor
from governor_sim.simulate import SimConfig, simulate

from controller_service.learning.samples import Samples
from controller_service.policies.registry import parse_policy
from controller_service.predictors.base import Floats
from governor_bench.eval.learned.recorder import Recorder
from governor_bench.eval.simulated import LIMITS, NO_AGEING
from governor_bench.eval.workloads import SHIFT, workload_of

SWEEP = "profiling sweep"
SERVED = "served traffic"
SOURCES = (SWEEP, SERVED)

MOST_ROWS = 256
CONTEXT_PER_ROW = (32, 16384)
KV_SHARE = 0.9
STEPS_PER_POINT = 8
PREFILL_STEPS = 300
MOST_PREFILL_TOKENS = 8192

SERVED_POLICIES = ("eager", "taper_plus", "off", "random:0.5")
"""Learning needs steps of many widths; a single policy shows each state one width."""

Keys = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Regime(msgspec.Struct, frozen=True):
    """Rows in (2**(rows-1), 2**rows], summed context likewise."""

    rows: int
    context: int

    @property
    def name(self) -> str:
        return f"rows {_span(self.rows)}, context {_span(self.context)}"


def _span(bucket: int) -> str:
    low, high = (1, 1) if bucket == 0 else (2 ** (bucket - 1) + 1, 2**bucket)
    return str(low) if low == high else f"{low}-{high}"


class Split(msgspec.Struct, frozen=True):
    """What may be learnt from, and what judges."""

    train: Samples
    held_samples: Samples
    """One in five of every regime that is learnt from."""
    held_regimes: Samples
    """All of one regime in six: decode steps of sizes that were never seen."""


def sweep(profile: StepProfile, noise: float, seed: int) -> Samples:
    """Decode steps over a grid of rows and contexts, shuffled, and prefill steps.

    Rows stand at each size up to which SGLang captures a graph and one beyond it; contexts are
    spread evenly in their logarithm up to what KV memory holds. Each point is measured for some
    steps.
    """
    rng = np.random.default_rng(seed)
    graphs = (1, 2, 4, 8, 12, *range(16, MOST_ROWS + 1, 8))
    sizes = {size + more for size in graphs for more in (0, 1)}
    rows: list[float] = []
    context: list[float] = []
    for size in sorted(size for size in sizes if size <= MOST_ROWS):
        most = min(CONTEXT_PER_ROW[1] * size, KV_SHARE * profile.kv_tokens)
        for start in np.geomspace(CONTEXT_PER_ROW[0] * size, most, 8):
            begin = np.rint(start * rng.uniform(0.9, 1.0))
            for step in range(STEPS_PER_POINT):
                rows.append(size)
                context.append(begin + step * size)
    order = rng.permutation(len(rows))
    decode = _measured(
        profile, np.array(rows)[order], np.array(context)[order], np.zeros(len(rows)), noise, rng
    )
    chunks = np.rint(np.geomspace(64, MOST_PREFILL_TOKENS, PREFILL_STEPS))
    prefill_rows = np.rint(rng.uniform(1, 8, PREFILL_STEPS))
    prefill = _measured(profile, prefill_rows, chunks, rng.permutation(chunks), noise, rng)
    return Samples.join([prefill, decode])


def served(
    profile: StepProfile, noise: float, seed: int, seconds: float, load: float, slo_ms: float
) -> Samples:
    """Steps as the controller hears of them while simulated traffic is served under several
    policies, one after the other; the load shifts."""
    parts = []
    for number, label in enumerate(SERVED_POLICIES):
        recorder = Recorder(TruePredictor(profile))
        simulate(
            workload_of(SHIFT, load, slo_ms, seed + 100 * number, seconds),
            profile,
            parse_policy(label),
            recorder,
            SimConfig(limits=LIMITS, engine=NO_AGEING, noise=noise),
            seconds=seconds,
            seed=seed,
        )
        parts.append(recorder.samples().usable())
    return Samples.join(parts)


def split(samples: Samples, seed: int) -> Split:
    """Hold out one decode regime in six, and one sample in five of the rest."""
    rng = np.random.default_rng(seed)
    decode = samples.prefill_tokens == 0
    keys = regime_keys(samples)
    present = np.unique(keys[decode])
    chosen = rng.choice(present, max(1, len(present) // 6), replace=False)
    in_held_regime = decode & np.isin(keys, chosen)
    held = ~in_held_regime & (rng.random(len(samples)) < 0.2)
    return Split(
        train=samples.take(~in_held_regime & ~held),
        held_samples=samples.take(held),
        held_regimes=samples.take(in_held_regime),
    )


def regime_keys(samples: Samples) -> Keys:
    """A number for each sample's regime, shape ``(n,)``; see :func:`regime_of`."""
    return 64 * _bucket(samples.rows) + _bucket(samples.context_tokens)


def regime_of(key: int) -> Regime:
    return Regime(int(key) // 64, int(key) % 64)


def _bucket(values: Floats) -> Keys:
    buckets: Keys = np.ceil(np.log2(np.maximum(values, 1.0))).astype(np.int64)
    return buckets


def _measured(
    profile: StepProfile,
    rows: Floats,
    context: Floats,
    prefill: Floats,
    noise: float,
    rng: np.random.Generator,
) -> Samples:
    truth = TruePredictor(profile).predict(rows, context, prefill)
    latency = truth * (1.0 + noise * np.clip(rng.standard_normal(len(rows)), -4, 4))
    return Samples(rows, context, prefill, np.zeros(len(rows)), latency)
