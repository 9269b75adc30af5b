"""Greedy tokens of a governed engine beside stock.

On a GPU kernels may round differently at different batch sizes, and with dummy weights the two
likeliest tokens are close to each other. So a second run on stock says how much of the difference
is the device's; on a CPU in float32 neither may differ at all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from governor_bench.engine_metrics import read_counters
from governor_bench.equality.check import compare as differences
from governor_bench.equality.check import run as served
from governor_bench.equality.workload import mixed_requests
from governor_bench.gpu.figures import Equality
from governor_bench.gpu.pairs import Pair, Side, compare
from governor_bench.gpu.records import PUBLISHED_AFTER_S
from governor_bench.gpu.stage import SEED, Context, Stage
from governor_bench.load.result import Branch, RequestResult
from governor_bench.load.spec import RequestSpec

POLICY = "random:0.5"
ROUNDS = 2


class Half(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one engine said."""

    outputs: list[list[list[int]]]
    """Token ids by request and branch."""
    errors: list[str]
    """By request; empty: none."""
    parked_row_steps: int


def half(context: Context, side: Side, number: int) -> Half:
    """Serve the mixed requests once."""
    if side.controller is not None:
        side.controller.set_policy(POLICY)
        before = read_counters(side.engine.url)
    results = served(side.engine.url, _specs(context))
    parked = 0
    if side.controller is not None:
        time.sleep(PUBLISHED_AFTER_S)
        parked = read_counters(side.engine.url).since(before).parked_row_steps
    ordered = [results[index] for index in sorted(results)]
    return Half(
        [[branch.output_ids for branch in result.branches] for result in ordered],
        [result.error for result in ordered],
        parked,
    )


def join(context: Context, stock: Sequence[Half], governed: Sequence[Half]) -> Equality:
    """
    Raises:
        RuntimeError: nothing was parked, so nothing was compared.
    """
    specs = _specs(context)
    first = _results(specs, stock[0])
    found = [differences(first, _results(specs, one)) for one in governed]
    noise = differences(first, _results(specs, stock[1]))
    parked = sum(one.parked_row_steps for one in governed)
    if not parked:
        raise RuntimeError("nothing was parked, so nothing was compared")
    return Equality(
        policy=POLICY,
        requests=len(specs) * len(governed),
        governed_differ=sum(len({item.index for item in one}) for one in found),
        stock_differ=len({item.index for item in noise}),
        parked_row_steps=parked,
        first_difference=next((str(one[0]) for one in found if one), ""),
    )


def _specs(context: Context) -> list[RequestSpec]:
    return mixed_requests(context.sizes.equality_requests, SEED, penalties=False)


def _results(specs: Sequence[RequestSpec], one: Half) -> dict[int, RequestResult]:
    by_index = sorted(specs, key=lambda spec: spec.index)
    return {
        spec.index: RequestResult(
            spec,
            0.0,
            branches=[Branch(len(ids), ids) for ids in outputs],
            error=error,
        )
        for spec, outputs, error in zip(by_index, one.outputs, one.errors, strict=True)
    }


PAIR = Pair("equality", Half, lambda sizes: ROUNDS, half, join)
STAGE = Stage(
    "equality",
    "governed tokens beside stock's",
    lambda sizes: 4 * 8.0,
    ("governed",),
    lambda context: compare(PAIR, context),
)
