"""A fitted model as it is used: two tables, and the files that it can be loaded from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from controller_service.learning.arrays import Array, floats
from controller_service.learning.families.axes import Axes
from controller_service.predictors.base import Floats, V
from controller_service.predictors.table import CompiledTable, Surcharge, monotone

LEAST_ROW_SHARE = 0.02
"""A row and a context token cost at least this share of what the line says: noise must not make
them free. Small, as within one captured graph a row really costs almost nothing."""


class CompiledModel:
    """A :class:`~controller_service.learning.model.StepModel` over compiled tables."""

    def __init__(
        self,
        family: str,
        mean: CompiledTable,
        p90: CompiledTable,
        coefficients: Mapping[str, float],
        files: Callable[[], Mapping[str, bytes]],
    ) -> None:
        self.family = family
        self._mean, self._p90 = mean, p90
        self._coefficients = dict(coefficients)
        self._files = files

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._mean.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        return self._p90.predict(rows, context_tokens, prefill_tokens, draft_tokens)

    def least_rows_s(self, most_rows: int) -> Floats:
        """Cumulated least cost of rows; see
        :class:`~controller_service.predictors.base.KnowsRowCost`."""
        return self._mean.least_rows_s(most_rows)

    def coefficients(self) -> Mapping[str, float]:
        return self._coefficients

    def files(self) -> Mapping[str, bytes]:
        return self._files()


def rasterize(
    axes: Axes,
    seconds: Floats,
    line: tuple[float, float, float],
    prefill: Surcharge,
    draft: Surcharge,
) -> CompiledTable:
    """A table out of values on a grid, repaired so that it falls nowhere.

    Args:
        seconds: shape ``(r, c)`` over ``axes``; may fall here and there.
        line: seconds; seconds a row; seconds a context token.
    """
    rows, context = axes.mesh()
    _, row_s, token_s = line
    floor = LEAST_ROW_SHARE * (row_s * rows + token_s * context)
    smallest = 1e-3 * float(np.median(seconds))
    repaired = monotone(np.maximum(seconds, smallest), floor)
    repaired = np.maximum(repaired, smallest + floor)
    return CompiledTable(axes.context, axes.dense(repaired), (row_s, token_s), prefill, draft)


def table_arrays(table: CompiledTable, prefix: str) -> dict[str, Array]:
    """A table as arrays, for :func:`table_from`."""
    return {
        f"{prefix}_context": table.context,
        f"{prefix}_latency_s": table.latency_s,
        f"{prefix}_slopes": np.array(table.slopes),
        **surcharge_arrays(table.prefill, f"{prefix}_prefill"),
        **surcharge_arrays(table.draft, f"{prefix}_draft"),
    }


def table_from(arrays: Mapping[str, Array], prefix: str) -> CompiledTable:
    """
    Raises:
        ValueError: an array is missing or wrong.
    """
    row_s, token_s = _exactly(floats(arrays, f"{prefix}_slopes", 1), 2)
    return CompiledTable(
        floats(arrays, f"{prefix}_context", 1),
        floats(arrays, f"{prefix}_latency_s", 2),
        (row_s, token_s),
        surcharge_from(arrays, f"{prefix}_prefill"),
        surcharge_from(arrays, f"{prefix}_draft"),
    )


def surcharge_arrays(surcharge: Surcharge, prefix: str) -> dict[str, Array]:
    """A surcharge as arrays, for :func:`surcharge_from`."""
    return {
        f"{prefix}_tokens": surcharge.tokens,
        f"{prefix}_seconds": surcharge.seconds,
        f"{prefix}_coupling": np.array([surcharge.coupling]),
    }


def surcharge_from(arrays: Mapping[str, Array], prefix: str) -> Surcharge:
    """
    Raises:
        ValueError: an array is missing or wrong.
    """
    (coupling,) = _exactly(floats(arrays, f"{prefix}_coupling", 1), 1)
    return Surcharge(
        floats(arrays, f"{prefix}_tokens", 1), floats(arrays, f"{prefix}_seconds", 1), coupling
    )


def _exactly(values: Floats, count: int) -> list[float]:
    if len(values) != count:
        raise ValueError(f"expected {count} values, found {len(values)}")
    return [float(value) for value in values]
