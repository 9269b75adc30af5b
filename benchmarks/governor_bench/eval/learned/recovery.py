"""How long it takes until predictions and attainment are right again after a change.

A run starts with a predictor that is right. In its middle either the machine changes (every step
takes twice or half as long from then on) or the predictor does (every prediction of its base is
twice or half of what it was, as after a model was put in that is another machine's). A second run
of the same seed has a predictor that knows; it is what the first is compared with.
"""

from __future__ import annotations

import msgspec
import numpy as np
from governor_profiles import Shift, StepProfile, load_profile
from governor_sim.clairvoyant import TruePredictor
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_sim.steps import StepSeries

from controller_service.policies.registry import parse_policy
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.predictors.corrected import CorrectedPredictor
from controller_service.predictors.registry import CORRECTED
from governor_bench.eval.learned.data import sweep
from governor_bench.eval.learned.models import ModelPredictor, fitted
from governor_bench.eval.learned.recorder import Recorder
from governor_bench.eval.learned.turned import TurnedPredictor
from governor_bench.eval.predictors import trained
from governor_bench.eval.simulated import LIMITS, NO_AGEING
from governor_bench.eval.workloads import STEADY, workload_of

MACHINE = "machine"
PREDICTOR = "predictor"
ERROR_WINDOW = 16
"""Steps over which the median error is taken."""
RIGHT = 0.05
WINDOW = 64
"""Steps over which attainment is taken."""
LASTING = 200
"""Steps for which a recovery must hold."""
CLOSE = 0.02
CURVE = (-100, 500)
"""Steps around the change that a curve shows."""
CURVE_EVERY = 4
"""Steps from one point of a curve to the next."""


class RecoveryTask(msgspec.Struct, frozen=True):
    """A run, what happens in it, and who is put to it."""

    profile: str
    predictors: tuple[str, ...]
    """``linear`` learns online; another family's name stands for a model of it that was fitted
    once. ``corrected-`` before either follows what is measured. Each has a run of its own."""
    policy: str
    changes: str
    """:data:`MACHINE` or :data:`PREDICTOR`."""
    factor: float
    """Of the step times, or of the predictions."""
    seed: int
    noise: float = 0.01
    load: float = 48.0
    slo_ms: float = 50.0
    seconds: float = 90.0
    change_at_step: int = 1200


class Recovery(msgspec.Struct, frozen=True):
    """What came of it. Steps are counted from the change; None: not within the run."""

    predictor: str
    task: RecoveryTask
    error_steps: int | None
    """Until the median |predicted / measured - 1| of the last 16 steps falls below 5 % and stays
    there for 200."""
    attainment_steps: int | None
    """Until the share of tokens on time is within 2 points of the run that was right,
    and stays there for 200 steps."""
    error_curve: list[float]
    attainment_curve: list[float]
    right_attainment_curve: list[float]
    """From 100 steps before the change to 500 after it."""
    shortfall: float
    """Largest distance of the attainment below that of the run that was right, after the change."""


def run_recovery(task: RecoveryTask) -> list[Recovery]:
    """One result a predictor, in their order."""
    profile = load_profile(task.profile)
    right = _simulate(task, profile, _all_knowing(task, profile))
    right_share = on_time_share(right.steps, task.slo_ms)
    return [_one_recovery(task, name, profile, right_share) for name in task.predictors]


def _one_recovery(task: RecoveryTask, name: str, profile: StepProfile, theirs: Floats) -> Recovery:
    recorder = Recorder(_predictor(task, name, profile))
    result = _simulate(task, profile, recorder)
    errors = _error_by_step(recorder)
    change = task.change_at_step
    mine = on_time_share(result.steps, task.slo_ms)
    usual = float(np.median(theirs[change + WINDOW :]))
    low, high = change + CURVE[0], change + CURVE[1]
    return Recovery(
        predictor=name,
        task=task,
        error_steps=first_lasting(errors[change:] < RIGHT, LASTING),
        attainment_steps=first_lasting(mine[change:] >= usual - CLOSE, LASTING),
        error_curve=_rounded(errors[low:high:CURVE_EVERY]),
        attainment_curve=_rounded(mine[low:high:CURVE_EVERY]),
        right_attainment_curve=_rounded(theirs[low:high:CURVE_EVERY]),
        shortfall=max(0.0, usual - float(mine[change:].min())),
    )


def first_lasting(good: np.ndarray[tuple[int], np.dtype[np.bool_]], steps: int) -> int | None:
    """Steps until ``good`` begins to hold for ``steps`` in a row; None if it never does."""
    if len(good) < steps:
        return None
    bad = np.concatenate([[0], np.cumsum(~good)])
    clear = np.flatnonzero(bad[steps:] == bad[:-steps])
    return int(clear[0]) if len(clear) else None


def on_time_share(steps: StepSeries, slo_ms: float) -> Floats:
    """Share of decoded tokens that came within one target of the step before, over the last 64
    steps; shape ``(steps,)``.

    Judged are decode steps that follow a decode step: what a prefill in between takes is no matter
    of who advances, and no policy here decides on it.
    """
    decode = steps.prefill_tokens == 0
    judged = decode & np.concatenate([[False], decode[:-1]])
    gap_s = np.diff(steps.end_s, prepend=0.0)
    weight = np.where(judged, steps.rows, 0.0)
    on_time = _rolling_sum(np.where(gap_s <= slo_ms / 1e3, weight, 0.0))
    share: Floats = on_time / np.maximum(_rolling_sum(weight), 1.0)
    return share


def _rolling_sum(values: Floats) -> Floats:
    total = np.concatenate([np.zeros(WINDOW), np.cumsum(values)])
    sums: Floats = total[WINDOW:] - total[:-WINDOW]
    return sums


def _error_by_step(recorder: Recorder) -> Floats:
    """Median error of the last decode steps, at each observed step; shape ``(steps,)``."""
    samples, predicted_s = recorder.samples(), recorder.predicted_s()
    decode = samples.prefill_tokens == 0
    error = np.where(decode, np.abs(predicted_s / samples.latency_s - 1.0), np.nan)
    padded = np.concatenate([np.full(ERROR_WINDOW - 1, np.nan), error])
    windows = np.lib.stride_tricks.sliding_window_view(padded, ERROR_WINDOW)
    seen = np.isfinite(windows).any(axis=1)
    median = np.full(len(error), np.inf)
    median[seen] = np.nanmedian(windows[seen], axis=1)
    return median


def _predictor(task: RecoveryTask, label: str, profile: StepProfile) -> StepLatencyPredictor:
    name = label.removeprefix(CORRECTED)
    base: StepLatencyPredictor
    if name == "linear":
        base = trained(name, profile, task.seed)
    else:
        model = fitted(name, sweep(profile, task.noise, task.seed), profile.graph_rows)
        base = ModelPredictor(model)
    if task.changes == PREDICTOR:
        base = TurnedPredictor(base, task.change_at_step, task.factor)
    return CorrectedPredictor(base) if label.startswith(CORRECTED) else base


def _all_knowing(task: RecoveryTask, profile: StepProfile) -> StepLatencyPredictor:
    truth = TruePredictor(profile, task.noise)
    if task.changes == MACHINE:
        return TurnedPredictor(truth, task.change_at_step, task.factor)
    return truth


def _simulate(
    task: RecoveryTask, profile: StepProfile, predictor: StepLatencyPredictor
) -> SimResult:
    changes = task.changes == MACHINE
    return simulate(
        workload_of(STEADY, task.load, task.slo_ms, task.seed, task.seconds),
        profile,
        parse_policy(task.policy),
        predictor,
        SimConfig(
            limits=LIMITS,
            engine=NO_AGEING,
            noise=task.noise,
            shift=Shift(at_step=task.change_at_step, factor=task.factor) if changes else None,
        ),
        seconds=task.seconds,
        seed=task.seed,
    )


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in np.nan_to_num(values, posinf=1.0)]
