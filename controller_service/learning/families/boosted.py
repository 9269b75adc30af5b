"""A smooth backbone, and LightGBM on what it misses: mean and 90th percentile.

What trees learn is the relative residual of the backbone, and that need not rise where the whole
does: a backbone that is too steep somewhere has a falling residual. LightGBM's
``monotone_constraints`` on it would forbid just the corrections that are needed (a step bound by
the slower of compute and memory), so the trees are free, and it is the sum that is made monotone,
when it is compiled (:func:`.compiled.rasterize`). Trees are kept only if they do better on samples
that they have not seen. They see rows padded to the captured graph, so that they cannot put a jump
where none can be.

The percentile is a second, small set of trees (quantile loss) on the ratio of measured to
predicted, brought to its coverage on steps not seen (:mod:`.spread`). Prefill and draft tokens
come on top (:mod:`.line`), monotone as well. Trees are never asked at run time: see :mod:`.axes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightgbm
import msgspec
import numpy as np

from controller_service.learning.arrays import floats, pack, unpack
from controller_service.learning.families.assemble import (
    DecodeCurve,
    Fitted,
    assemble,
    coefficients,
)
from controller_service.learning.families.axes import Axes, padded
from controller_service.learning.families.backbone import Backbone, backbone_from, fit_backbone
from controller_service.learning.families.compiled import (
    CompiledModel,
    rasterize,
    surcharge_arrays,
    surcharge_from,
)
from controller_service.learning.families.family import Family
from controller_service.learning.families.line import Line
from controller_service.learning.families.spread import conformal, spread_table, table_mesh
from controller_service.learning.families.tree_text import booster_from
from controller_service.learning.samples import Samples
from controller_service.predictors.base import P90, Floats
from controller_service.predictors.table import CompiledTable, Surcharge

BACKBONE, MEAN, QUANTILE = "backbone.npz", "residual.txt", "p90.txt"
MOST_RESIDUAL = 0.5
"""Trees may move the backbone by this share of it at most."""
LEAST_FOR_TREES = 400
"""Fewer decode steps, and the backbone stands alone."""
LEAST_GAIN = 0.02
"""Relative gain in error on steps not seen, for which trees are worth having."""
MOST_TREES = 200
QUANTILE_TREES = 60
LEAST_RATIO = 0.1
"""Of the percentile to the mean, so that it stays a duration."""
MOST_AXIS = 8192
MOST_CELLS = 70_000
"""Of the table that a stored model is compiled into: as many as a fitted one can have."""
FEATURES = 2
"""Padded rows and context."""

_COMMON = {
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 7,
    "verbose": -1,
}
_MEAN_PARAMETERS = {
    **_COMMON,
    "objective": "huber",
    "alpha": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "learning_rate": 0.05,
    "lambda_l2": 5.0,
}
_QUANTILE_PARAMETERS = {
    **_COMMON,
    "objective": "quantile",
    "alpha": P90,
    "num_leaves": 7,
    "min_data_in_leaf": 50,
    "learning_rate": 0.08,
}


class _Parts(msgspec.Struct, frozen=True, eq=False):
    """A model as it is stored: what compiles into its tables."""

    axes: Axes
    line: Line
    backbone: Backbone
    trees: str
    """LightGBM text; empty: the backbone stands alone."""
    prefill: Surcharge
    draft: Surcharge
    quantile: str
    """LightGBM text of the ratio's 90th percentile; empty: one ratio everywhere."""
    calibration: float
    """On top of the quantile, or the one ratio."""
    surcharge: float
    """The same of what prefill and draft tokens add."""


def fit(train: Samples, graph_rows: tuple[int, ...] = ()) -> CompiledModel:
    """See :class:`~.family.Family`."""
    curves: list[tuple[Backbone, str]] = []

    def curve(decode: Samples, line: Line) -> DecodeCurve:
        backbone = fit_backbone(decode, line, graph_rows)
        trees = _boost(decode, backbone)
        curves.append((backbone, trees))
        return _curve(backbone, trees)

    fitted = assemble(train, graph_rows, curve)
    backbone, trees = curves[-1]
    quantile, calibration = _percentile(fitted, graph_rows)
    return _model(
        _Parts(
            fitted.axes,
            fitted.line,
            backbone,
            trees,
            fitted.mean.prefill,
            fitted.mean.draft,
            quantile,
            calibration,
            fitted.spread.surcharge,
        )
    )


def load(files: Mapping[str, bytes]) -> CompiledModel:
    """See :class:`~.family.Family`."""
    missing = [name for name in (BACKBONE, MEAN, QUANTILE) if name not in files]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    arrays = unpack(files[BACKBONE], BACKBONE)
    axes = Axes(floats(arrays, "axis_rows", 1), floats(arrays, "axis_context", 1))
    _check_axes(axes)
    a, b, c, calibration, surcharge = _scalars(floats(arrays, "scalars", 1))
    try:
        return _model(
            _Parts(
                axes,
                (a, b, c),
                backbone_from(arrays),
                files[MEAN].decode("ascii"),
                surcharge_from(arrays, "prefill"),
                surcharge_from(arrays, "draft"),
                files[QUANTILE].decode("ascii"),
                calibration,
                surcharge,
            )
        )
    except lightgbm.basic.LightGBMError as error:
        raise ValueError(f"{MEAN} or {QUANTILE} is no LightGBM text: {error}") from error


def _check_axes(axes: Axes) -> None:
    for axis in (axes.rows, axes.context):
        if not 2 <= len(axis) <= MOST_AXIS or axis[0] or (np.diff(axis) <= 0).any():
            raise ValueError("an axis of the table must start at 0 and rise")
    if axes.rows[-1] > MOST_AXIS or (axes.rows % 1).any():
        raise ValueError(f"rows of the table must be whole, at most {MOST_AXIS}")
    if len(axes.rows) * len(axes.context) > MOST_CELLS:
        raise ValueError(f"the table has more than {MOST_CELLS} cells")


def _scalars(values: Floats) -> tuple[float, float, float, float, float]:
    if len(values) != 5 or (values < 0).any():
        raise ValueError("expected 5 scalars, each at least 0")
    a, b, c, calibration, surcharge = (float(value) for value in values)
    return a, b, c, calibration, surcharge


def _model(parts: _Parts) -> CompiledModel:
    rows, context = parts.axes.mesh()
    seconds = _curve(parts.backbone, parts.trees)(rows.ravel(), context.ravel())
    mean = rasterize(
        parts.axes, seconds.reshape(rows.shape), parts.line, parts.prefill, parts.draft
    )
    ratio = parts.calibration * _ratio(mean, parts.quantile, parts.backbone.graph_rows)
    p90 = spread_table(mean, ratio, parts.surcharge)
    told = {**coefficients(mean), "trees": float(_count(parts.trees))}
    return CompiledModel("boosted", mean, p90, told, lambda: _files(parts))


def _files(parts: _Parts) -> Mapping[str, bytes]:
    arrays = {
        **parts.backbone.arrays(),
        **surcharge_arrays(parts.prefill, "prefill"),
        **surcharge_arrays(parts.draft, "draft"),
        "axis_rows": parts.axes.rows,
        "axis_context": parts.axes.context,
        "scalars": np.array([*parts.line, parts.calibration, parts.surcharge]),
    }
    return {
        BACKBONE: pack(arrays),
        MEAN: parts.trees.encode("ascii"),
        QUANTILE: parts.quantile.encode("ascii"),
    }


def _boost(decode: Samples, backbone: Backbone) -> str:
    """Trees on the relative residual, as text; empty if they are no better than none."""
    if len(decode) < LEAST_FOR_TREES:
        return ""
    residual = decode.latency_s / backbone.seconds(decode.rows, decode.context_tokens) - 1.0
    residual = np.clip(residual, -MOST_RESIDUAL, MOST_RESIDUAL)
    features = _features(decode.rows, decode.context_tokens, backbone.graph_rows)
    held_out = np.arange(len(residual)) % 5 == 0
    data = lightgbm.Dataset(features[~held_out], label=residual[~held_out])
    judge = data.create_valid(features[held_out], label=residual[held_out])
    trained = lightgbm.train(
        {**_MEAN_PARAMETERS, "metric": "l1"},
        data,
        MOST_TREES,
        valid_sets=[judge],
        callbacks=[lightgbm.early_stopping(20, verbose=False)],
    )
    without = float(np.abs(residual[held_out]).mean())
    left = float(np.abs(residual[held_out] - trained.predict(features[held_out])).mean())
    if left > (1.0 - LEAST_GAIN) * without:
        return ""
    every = lightgbm.Dataset(features, label=residual)
    return str(lightgbm.train(_MEAN_PARAMETERS, every, trained.best_iteration).model_to_string())


def _curve(backbone: Backbone, trees: str) -> DecodeCurve:
    booster = booster_from(trees, FEATURES) if trees else None

    def seconds(rows: Floats, context: Floats) -> Floats:
        straight = backbone.seconds(rows, context)
        if booster is None:
            return straight
        residual = booster.predict(_features(rows, context, backbone.graph_rows))
        bent: Floats = straight * (1.0 + np.clip(residual, -MOST_RESIDUAL, MOST_RESIDUAL))
        return bent

    return seconds


def _percentile(fitted: Fitted, graph_rows: tuple[int, ...]) -> tuple[str, float]:
    """Quantile trees as text, and the factor that brings them to their coverage.

    The factor is measured crosswise: trees of one half of the steps judged by the other half.
    """
    plain = fitted.unseen.decode_only()
    if len(plain) < LEAST_FOR_TREES:
        return "", fitted.spread.overall
    steps = fitted.unseen.samples.take(plain)
    ratio = steps.latency_s / fitted.unseen.decode_s[plain]
    features = _features(steps.rows, steps.context_tokens, graph_rows)
    half = np.random.default_rng(5).permutation(len(plain)) % 2 == 0
    asked, level = np.empty(len(plain)), np.empty(len(plain))
    for learn in (half, ~half):
        trees = _quantile(features[learn], ratio[learn])
        asked[~learn] = np.maximum(trees.predict(features[~learn]), LEAST_RATIO)
        level[~learn] = np.quantile(ratio[learn], P90)
    if _pinball(ratio, asked) > (1.0 - LEAST_GAIN) * _pinball(ratio, level):
        return "", fitted.spread.overall  # the noise is the same everywhere: one ratio says it
    return str(_quantile(features, ratio).model_to_string()), conformal(ratio / asked)


def _pinball(found: Floats, asked: Floats) -> float:
    """The loss whose minimum is the 90th percentile."""
    beyond = found - asked
    return float(np.maximum(P90 * beyond, (P90 - 1.0) * beyond).mean())


def _quantile(features: Floats, ratio: Floats) -> lightgbm.Booster:
    data = lightgbm.Dataset(features, label=ratio)
    return lightgbm.train(_QUANTILE_PARAMETERS, data, QUANTILE_TREES)


def _ratio(mean: CompiledTable, quantile: str, graph_rows: tuple[int, ...]) -> Floats:
    if not quantile:
        return np.ones(mean.latency_s.shape)
    rows, context = table_mesh(mean)
    booster = booster_from(quantile, FEATURES)
    found = booster.predict(_features(rows.ravel(), context.ravel(), graph_rows))
    return np.maximum(np.reshape(found, rows.shape), LEAST_RATIO)


def _features(rows: Floats, context: Floats, graph_rows: tuple[int, ...]) -> Floats:
    return np.column_stack([padded(rows, graph_rows), context])


def _count(trees: str) -> Any:
    return trees.count("\nTree=")


FAMILY = Family(
    name="boosted",
    summary="a smooth backbone with the bends that GPUs show, and LightGBM on what it misses",
    features=("padded_rows", "context_tokens", "prefill_tokens", "draft_tokens"),
    libraries=("lightgbm", "numpy"),
    fit=fit,
    load=load,
)
