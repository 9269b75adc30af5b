"""From measured steps to a model and its manifest: split, fit, compare, fit again to everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from controller_service.learning.acceptance import AcceptanceModel, fit_acceptance
from controller_service.learning.artifact import ACCEPTANCE, LENGTHS
from controller_service.learning.ends import EndColumns
from controller_service.learning.evaluate import (
    Evaluation,
    evaluate,
    measured_externality_error,
)
from controller_service.learning.families import NotEnough, family, family_names
from controller_service.learning.families.assemble import decode_only
from controller_service.learning.families.family import LEAST_DECODE_STEPS
from controller_service.learning.lengths import LengthModel, fit_lengths
from controller_service.learning.manifest import Data, Holdout, Manifest, make_manifest
from controller_service.learning.model import EngineKey, StepModel
from controller_service.learning.regimes import Buckets, regime_keys
from controller_service.learning.samples import Samples

HELD_OUT_SHARE = 0.2
"""Of the samples of every regime."""
UNSEEN_SHARE = 1 / 6
"""Of the regimes, which are held out as a whole."""
LEAST_REGIMES = 6
"""Fewer regimes than this are all needed to fit."""
TIE = 0.03
"""Relative difference of errors up to which the simpler family is chosen."""
MOST_SOURCES = 64

Progress = Callable[[str], None]


class FamilyScore(msgspec.Struct, frozen=True):
    """Errors of one family on held-out steps."""

    family: str
    holdout: Holdout | None
    """None: there was too little to hold any out."""
    failed: str = ""
    """Why it could not be fitted."""

    @property
    def error(self) -> float:
        """What families are compared by: the mean of both errors, on regimes that were seen and
        on those that were not."""
        if self.failed:
            return float("inf")
        if self.holdout is None:
            return 0.0
        unseen = self.holdout.unseen_mape
        seen = self.holdout.step_mape
        return seen if unseen is None else (seen + unseen) / 2


class FitResult(msgspec.Struct, frozen=True, eq=False):
    """A model, what it says of itself, and how the families compared."""

    model: StepModel
    manifest: Manifest
    scores: tuple[FamilyScore, ...]
    lengths: LengthModel | None
    acceptance: AcceptanceModel | None
    extras: Mapping[str, bytes]
    """Files of lengths and acceptance, for :func:`.artifact.save_model`."""


class Split(msgspec.Struct, frozen=True, eq=False):
    """Samples to fit to, samples held out of the same regimes, and of regimes never seen."""

    train: Samples
    held_out: Samples
    unseen: Samples


def fit(
    samples: Samples | Buckets,
    engine: EngineKey,
    families: Sequence[str] = (),
    graph_rows: Sequence[int] = (),
    seed: int = 0,
    *,
    ends: EndColumns | None = None,
    sources: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> FitResult:
    """Fit each family without a holdout, keep the best, and fit that one to everything.

    Args:
        engine: whose steps they are.
        families: to choose from; empty: all.
        graph_rows: batch sizes with a captured graph; empty if not known.
        ends: requests that ended, for lengths and acceptance.
        sources: where the samples came from, for the manifest.
        on_progress: told what is being done, in words.

    Raises:
        NotEnough: too few steps of decode.
        ValueError: a family does not exist.
    """
    kinds = [family(name) for name in (families or family_names())]
    tell = on_progress or (lambda _: None)
    sizes = tuple(sorted({int(size) for size in graph_rows if size > 0}))
    buckets = samples if isinstance(samples, Buckets) else _bucketed(samples, seed)
    every = buckets.samples()
    parts = split(every, seed)
    scores = []
    for kind in kinds:
        tell(f"comparing: {kind.name}")
        scores.append(_score(kind.name, parts, sizes))
    best = _choose(scores)
    tell(f"fitting: {best.family}")
    kind = family(best.family)
    model = kind.fit(every, sizes)
    lengths = None if ends is None else fit_lengths(ends)
    acceptance = None if ends is None else fit_acceptance(ends)
    extras = {
        **({LENGTHS: lengths.to_bytes()} if lengths else {}),
        **({ACCEPTANCE: acceptance.to_bytes()} if acceptance else {}),
    }
    manifest = make_manifest(
        engine=engine,
        family=kind.name,
        features=kind.features,
        graph_rows=sizes,
        seed=seed,
        data=Data(
            samples=len(every),
            offered=buckets.offered,
            regimes=buckets.regime_count,
            sources=tuple(source[:1000] for source in sources[:MOST_SOURCES]),
            source_count=len(sources),
            ends=0 if ends is None else len(ends.reason),
        ),
        holdout=best.holdout,
        files={**model.files(), **extras},
    )
    return FitResult(model, manifest, tuple(scores), lengths, acceptance, extras)


def split(samples: Samples, seed: int) -> Split:
    """A share of every regime is held out, and whole regimes of decode."""
    random = np.random.default_rng(seed)
    keys = regime_keys(samples)
    plain = (samples.prefill_tokens == 0) & (samples.draft_tokens == 0)
    regimes = np.unique(keys[plain])
    count = int(len(regimes) * UNSEEN_SHARE) if len(regimes) >= LEAST_REGIMES else 0
    unseen = np.isin(keys, random.choice(regimes, count, replace=False))
    held_out = ~unseen & _share_of_each(keys, random)
    train = ~(unseen | held_out)
    if len(decode_only(samples.take(train))) < LEAST_DECODE_STEPS:
        unseen, held_out, train = (np.full(len(samples), flag) for flag in (False, False, True))
    return Split(samples.take(train), samples.take(held_out), samples.take(unseen))


def _share_of_each(
    keys: npt.NDArray[np.int64], random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """The same share of every regime, at random; none of one with fewer samples than that takes."""
    order = np.lexsort((random.random(len(keys)), keys))
    _, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
    within = np.arange(len(keys)) - np.repeat(starts, counts)
    chosen = np.zeros(len(keys), dtype=bool)
    chosen[order] = within < np.repeat(np.floor(counts * HELD_OUT_SHARE), counts)
    return chosen


def _bucketed(samples: Samples, seed: int) -> Buckets:
    buckets = Buckets(seed=seed)
    buckets.add(samples)
    return buckets


def _score(name: str, parts: Split, graph_rows: tuple[int, ...]) -> FamilyScore:
    if not len(parts.held_out):
        return FamilyScore(name, None)
    try:
        model = family(name).fit(parts.train, graph_rows)
    except NotEnough as error:
        return FamilyScore(name, None, str(error))
    seen = evaluate(model, parts.held_out)
    unseen = evaluate(model, parts.unseen) if len(parts.unseen) else None
    return FamilyScore(name, _holdout(model, parts, seen, unseen))


def _holdout(
    model: StepModel, parts: Split, seen: Evaluation, unseen: Evaluation | None
) -> Holdout:
    rows = measured_externality_error(model, Samples.join([parts.held_out, parts.unseen]))
    return Holdout(
        samples=seen.samples,
        step_mape=seen.step_mape,
        step_p90_coverage=seen.step_p90_coverage,
        unseen_samples=unseen.samples if unseen else 0,
        unseen_mape=unseen.step_mape if unseen else None,
        unseen_p90_coverage=unseen.step_p90_coverage if unseen else None,
        externality_error=rows.relative if rows else None,
        by_regime=(*seen.by_regime, *(unseen.by_regime if unseen else ())),
    )


def _choose(scores: Sequence[FamilyScore]) -> FamilyScore:
    least = min(score.error for score in scores)
    if not np.isfinite(least):
        raise NotEnough(f"no family could be fitted: {scores[0].failed}")
    return next(score for score in scores if score.error <= (1.0 + TIE) * least)
