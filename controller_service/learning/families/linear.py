"""``a + b*rows + c*context + d*prefill + e*draft`` (TAPER's form): robust, nothing negative."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controller_service.learning.arrays import pack, unpack
from controller_service.learning.families.assemble import assemble, coefficients
from controller_service.learning.families.compiled import CompiledModel, table_arrays, table_from
from controller_service.learning.families.family import Family
from controller_service.learning.families.line import Line, line_s
from controller_service.learning.families.spread import spread_table
from controller_service.learning.samples import Samples
from controller_service.predictors.base import Floats
from controller_service.predictors.table import CompiledTable

FILE = "line.npz"


def fit(train: Samples, graph_rows: tuple[int, ...] = ()) -> CompiledModel:
    """See :class:`~.family.Family`. ``graph_rows`` make no difference to a line."""
    fitted = assemble(train, (), lambda _, line: lambda n, c: line_s(line, n, c), bent=False)
    mean = _straight(fitted.line, fitted.mean)
    ratio = np.full(mean.latency_s.shape, fitted.spread.overall)
    p90 = spread_table(mean, ratio, fitted.spread.surcharge)
    return _model(mean, p90)


def load(files: Mapping[str, bytes]) -> CompiledModel:
    """See :class:`~.family.Family`."""
    if FILE not in files:
        raise ValueError(f"{FILE} is missing")
    arrays = unpack(files[FILE], FILE)
    mean, p90 = table_from(arrays, "mean"), table_from(arrays, "p90")
    return _model(mean, p90)


def _straight(line: Line, like: CompiledTable) -> CompiledTable:
    """A line needs no grid: two rows, two contexts, and slopes beyond."""
    corners: Floats = line_s(line, np.array([[0.0], [1.0]]), np.array([[0.0, 1.0]]))
    return CompiledTable(np.array([0.0, 1.0]), corners, line[1:], like.prefill, like.draft)


def _model(mean: CompiledTable, p90: CompiledTable) -> CompiledModel:
    stored = pack({**table_arrays(mean, "mean"), **table_arrays(p90, "p90")})
    return CompiledModel("linear", mean, p90, coefficients(mean), lambda: {FILE: stored})


FAMILY = Family(
    name="linear",
    summary="a + b·rows + c·context, robust, nothing negative",
    features=("rows", "context_tokens", "prefill_tokens", "draft_tokens"),
    libraries=("numpy",),
    fit=fit,
    load=load,
)
