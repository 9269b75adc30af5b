"""The stages, in the order in which they run: those that share a server follow each other."""

from __future__ import annotations

from governor_bench.gpu.figures import StockHalves
from governor_bench.gpu.pairs import Pair, stock_halves
from governor_bench.gpu.stage import Context, Skipped, Stage
from governor_bench.gpu.stages import (
    bringup,
    calibration,
    drafts,
    emulation,
    environment,
    equality,
    lateness,
    overhead,
    parking,
    taper,
    trace,
)
from governor_bench.gpu.target import Sizes

PAIRS: tuple[Pair, ...] = (equality.PAIR, overhead.PAIR, trace.PAIR)
_COMPARING = (equality.STAGE, overhead.STAGE, trace.STAGE)


def _stock_s(sizes: Sizes) -> float:
    return 0.0 if sizes.beside else sum(stage.work_s(sizes) for stage in _COMPARING) / 2


def _run_stock(context: Context) -> StockHalves:
    if context.sizes.beside:
        raise Skipped("two engines fit beside each other: they take turns in each comparison")
    return stock_halves(PAIRS, context)


STOCK = Stage("stock", "the stock half of every comparison", _stock_s, ("stock",), _run_stock)

STAGES: tuple[Stage, ...] = (
    environment.STAGE,
    STOCK,
    bringup.STAGE,
    equality.STAGE,
    overhead.STAGE,
    trace.STAGE,
    lateness.STAGE,
    parking.STAGE,
    calibration.STAGE,
    taper.STAGE,
    drafts.STAGE,
    emulation.STAGE,
)
