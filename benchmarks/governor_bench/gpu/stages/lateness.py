"""Decisions that were not there when their step began."""

from __future__ import annotations

import time

from governor_bench.engine_metrics import read_counters
from governor_bench.gpu.figures import Lateness
from governor_bench.gpu.records import PUBLISHED_AFTER_S
from governor_bench.gpu.rig import flush
from governor_bench.gpu.stage import Context, Stage
from governor_bench.gpu.workloads import workload
from governor_bench.load.client import LoadClient

POLICY = "taper_plus"


def run(context: Context) -> Lateness:
    """Serve the table's workload for a while, and count.

    Raises:
        RuntimeError: no step was governed.
    """
    governed, sizes = context.rig.governed(), context.sizes
    governed.controller.set_policy(POLICY)
    flush(governed.engine, governed.engine.url)
    before = read_counters(governed.engine.url)
    LoadClient(governed.engine.url).run_workload(
        workload(context.target, sizes.loads[0]), duration_s=sizes.lateness_s, stream=False
    )
    time.sleep(PUBLISHED_AFTER_S)
    counted = read_counters(governed.engine.url).since(before)
    steps = counted.governed_steps
    if not steps:
        raise RuntimeError("no step was governed")
    return Lateness(
        policy=POLICY,
        users=sizes.loads[0],
        seconds=sizes.lateness_s,
        governed_steps=steps,
        outcomes=counted.outcomes,
        falls={name: count for name, count in counted.falls.items() if count},
        late_per_10k=1e4 * (steps - counted.outcomes.get("applied", 0)) / steps,
    )


STAGE = Stage(
    "lateness",
    "decisions late per 10,000 steps",
    lambda sizes: sizes.lateness_s + 5.0,
    ("governed",),
    run,
)
