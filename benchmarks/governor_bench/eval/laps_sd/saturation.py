"""How many requests per second an engine can serve of a shape.

``python -m governor_bench.eval.laps_sd.saturation`` prints what stands in :mod:`..shapes` as
``saturation_per_s``: medians over seeds.
"""

from __future__ import annotations

from statistics import median

import msgspec
import numpy as np

from governor_bench.eval.laps_sd.setting import POISSON, Setting
from governor_bench.eval.laps_sd.shapes import SHAPES, shape_of, workload_of
from governor_bench.eval.laps_sd.simulated import simulated

REQUESTS, SEEDS = 10_000, (1, 2, 3)
FILLS = 0.1
"""Share of the requests that come into the batch before ends are counted: all begin at once, and so
the short ones end before any long one can."""
ENDLESS = 1e-3
"""Shortens a run to a thousand times its length: nobody is cut off."""


def main() -> None:
    """Print the figures of every shape."""
    for shape in SHAPES:
        for places in shape.saturation_per_s:
            drafting, plain = (
                median(
                    saturation_per_s(shape.name, places, seed, speculates=speculates)
                    for seed in SEEDS
                )
                for speculates in (True, False)
            )
            print(f"{shape.name}, {places} places: {drafting:.3g} drafting, {plain:.3g} not")


def saturation_per_s(
    shape: str, places: int, seed: int, *, speculates: bool, requests: int = REQUESTS
) -> float:
    """Requests that end per second as long as others wait, first come, first served.

    Args:
        requests: that are there from the beginning.
    """
    setting = Setting(shape, 1.0, seed, speculates=speculates, places=places, shortened=ENDLESS)
    workload = workload_of(shape_of(shape), 1.0, POISSON, seed, float(requests))
    backlog = msgspec.structs.replace(
        workload,
        requests=tuple(msgspec.structs.replace(one, arrival_s=0.0) for one in workload.requests),
    )
    served = simulated(setting, backlog, None).served
    begun = np.sort([one.first_token_s for one in served if one.first_token_s is not None])
    ended = np.array([one.last_token_s for one in served if one.last_token_s is not None])
    start_s, stop_s = begun[int(FILLS * requests)], begun[-1]
    return float(((ended >= start_s) & (ended < stop_s)).sum() / (stop_s - start_s))


if __name__ == "__main__":
    main()
