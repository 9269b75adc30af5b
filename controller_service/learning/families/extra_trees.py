"""Extremely Randomized Trees, read out into a table (Adaptive Resource Allocation, section on
``PerIterExecTime``; trees after Geurts, Ernst and Wehenkel 2006).

scikit-learn takes milliseconds for one prediction, so the forest is asked once for every point of
the table and then thrown away. It learns the ratio to a line rather than seconds: trees cannot
extrapolate, and the line can.
"""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from controller_service.learning.families.assemble import DecodeCurve, assemble
from controller_service.learning.families.axes import padded
from controller_service.learning.families.compiled import CompiledModel
from controller_service.learning.families.family import Family
from controller_service.learning.families.line import Line, line_s
from controller_service.learning.families.stored_tables import loader, model_of
from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats

TREES = 200
LEAST_IN_LEAF = 5
LARGEST_RATIO = 4.0
"""To the line. What is further off is a pause of the machine."""


def fit(train: Samples, graph_rows: tuple[int, ...] = ()) -> CompiledModel:
    """See :class:`~.family.Family`."""

    def curve(decode: Samples, line: Line) -> DecodeCurve:
        return _forest(decode, line, graph_rows)

    return model_of("extra_trees", assemble(train, graph_rows, curve))


def _forest(decode: Samples, line: Line, graph_rows: tuple[int, ...]) -> DecodeCurve:
    ratio = decode.latency_s / line_s(line, decode.rows, decode.context_tokens)
    trees = ExtraTreesRegressor(
        n_estimators=TREES,
        min_samples_leaf=min(LEAST_IN_LEAF, max(1, len(decode) // 20)),
        max_features=None,
        random_state=7,
        n_jobs=1,
    )
    trees.fit(
        _features(decode.rows, decode.context_tokens, graph_rows),
        np.clip(ratio, 1 / LARGEST_RATIO, LARGEST_RATIO),
    )

    def seconds(rows: Floats, context: Floats) -> Floats:
        found: Floats = trees.predict(_features(rows, context, graph_rows))
        return found * line_s(line, rows, context)

    return seconds


def _features(rows: Floats, context: Floats, graph_rows: tuple[int, ...]) -> Floats:
    # Logarithms: a random split is then as likely between 1 and 2 rows as between 128 and 256.
    return np.column_stack(
        [
            np.log2(np.maximum(padded(rows, graph_rows), 0.5)),
            np.log2(np.maximum(context, 1.0)),
        ]
    )


FAMILY = Family(
    name="extra_trees",
    summary="Extremely Randomized Trees read out into a table",
    features=("rows", "context_tokens", "prefill_tokens", "draft_tokens"),
    libraries=("numpy",),
    fit=fit,
    load=loader("extra_trees"),
)
