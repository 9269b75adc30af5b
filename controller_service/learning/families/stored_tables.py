"""Models that are stored as what they were compiled into: plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller_service.learning.arrays import pack, unpack
from controller_service.learning.families.assemble import Fitted, coefficients
from controller_service.learning.families.compiled import CompiledModel, table_arrays, table_from
from controller_service.learning.families.spread import spread_table, table_mesh
from controller_service.predictors.table import CompiledTable

FILE = "table.npz"


def model_of(family: str, fitted: Fitted) -> CompiledModel:
    """The mean as it was compiled, and its 90th percentile by regime."""
    ratio = fitted.spread.at(*table_mesh(fitted.mean))
    p90 = spread_table(fitted.mean, ratio, fitted.spread.surcharge)
    return _model(family, fitted.mean, p90)


def loader(family: str) -> Callable[[Mapping[str, bytes]], CompiledModel]:
    """``load`` of a family whose models :func:`model_of` makes."""

    def load(files: Mapping[str, bytes]) -> CompiledModel:
        if FILE not in files:
            raise ValueError(f"{FILE} is missing")
        arrays = unpack(files[FILE], FILE)
        mean, p90 = table_from(arrays, "mean"), table_from(arrays, "p90")
        return _model(family, mean, p90)

    return load


def _model(family: str, mean: CompiledTable, p90: CompiledTable) -> CompiledModel:
    def files() -> Mapping[str, bytes]:
        return {FILE: pack({**table_arrays(mean, "mean"), **table_arrays(p90, "p90")})}

    return CompiledModel(family, mean, p90, coefficients(mean), files)
