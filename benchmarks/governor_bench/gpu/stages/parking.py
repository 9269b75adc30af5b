"""What parking costs a step: a batch of which half is parked, beside one of that half alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from governor_bench.gpu.figures import Parking, ParkingCell
from governor_bench.gpu.records import Record, decode_since, last_step
from governor_bench.gpu.rig import Governed, flush
from governor_bench.gpu.stage import Context, Stage
from governor_bench.load.client import LoadClient
from governor_bench.load.spec import RequestSpec

ROUNDS = 3
TOKENS = 96
EDGE = 3
"""Steps after a change of the batch that do not count."""
LEAST_STEPS = 8


def run(context: Context) -> Parking:
    """Measure each size, with and without parking in turns.

    Raises:
        RuntimeError: of no size there were enough steps.
    """
    governed = context.rig.governed()
    rows_of = [
        rows for rows in context.sizes.parking_rows if rows < governed.facts().max_running_requests
    ]
    cells = []
    for rows in rows_of:
        context.tell(f"parking: {rows} rows")
        plain: list[Record] = []
        parking: list[Record] = []
        for _ in range(ROUNDS):
            plain += _steps(governed, rows // 2, "eager")
            parking += _steps(governed, rows, f"cap:{rows // 2}")
        cell = parking_cell(rows, plain, parking)
        if cell is not None:
            cells.append(cell)
    if not cells:
        raise RuntimeError(f"fewer than {LEAST_STEPS} steps of each kind at {rows_of} rows")
    return Parking(tuple(cells))


def parking_cell(
    rows: int, plain: Sequence[Record], parking: Sequence[Record]
) -> ParkingCell | None:
    """What parking half of ``rows`` costs; None if too few steps show it."""
    half = rows // 2
    without = [
        1e6 * item["latency_s"]
        for item in plain
        if (item["rows"], item["parked_rows"]) == (half, 0)
    ]
    beside = [
        1e6 * item["latency_s"]
        for item in parking
        if (item["rows"], item["parked_rows"]) == (half, rows - half)
    ]
    if min(len(without), len(beside)) < LEAST_STEPS:
        return None
    low_us, plain_us, high_us = (float(x) for x in np.quantile(without, (0.25, 0.5, 0.75)))
    parked_us = float(np.median(beside))
    return ParkingCell(
        advancing=half,
        parked=rows - half,
        plain_us=plain_us,
        parked_us=parked_us,
        cost_us=parked_us - plain_us,
        spread_us=high_us - low_us,
        steps=len(beside),
    )


def _steps(governed: Governed, rows: int, policy: str) -> list[Record]:
    """Steps of one request of so many branches.

    Raises:
        RuntimeError: it fails.
    """
    flush(governed.engine, governed.engine.url)
    governed.controller.set_policy(policy)
    since = last_step(governed.controller)
    spec = RequestSpec(0, 0.0, tuple(range(3, 67)), TOKENS, n=rows)
    result = LoadClient(governed.engine.url).run_open([spec])[0]
    if result.error:
        raise RuntimeError(f"a request of {rows} branches failed: {result.error}")
    return decode_since(governed.controller, since)[EDGE:-EDGE]


STAGE = Stage(
    "parking",
    "cost of parking by rows",
    lambda sizes: len(sizes.parking_rows) * ROUNDS * 2 * 3.0,
    ("governed",),
    run,
)
