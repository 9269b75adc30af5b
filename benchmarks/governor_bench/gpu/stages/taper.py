"""The table of policies, on the workload of the evaluations."""

from __future__ import annotations

import time
from collections.abc import Sequence

from governor_workloads.report import LoadReport, summarise

from governor_bench.engine_metrics import read_counters
from governor_bench.gpu.figures import PolicyCell, Taper
from governor_bench.gpu.records import PUBLISHED_AFTER_S, Record, decode_since, last_step
from governor_bench.gpu.results import read, write
from governor_bench.gpu.rig import Governed, flush
from governor_bench.gpu.stage import SEED, Context, Needs, Stage
from governor_bench.gpu.target import Sizes
from governor_bench.gpu.workloads import workload
from governor_bench.load.client import LoadClient

BETWEEN_S = 3.0
"""What a run takes beyond its length."""
LEAST_CELLS = 2
"""Worth the start of a server."""
CELLS_FILE = "taper.cells.json"


def run(context: Context) -> Taper:
    """Every policy at both loads, one after the other; the predictor keeps what it learns.

    Each cell is saved, so that a table that is longer than a call is finished by the next one.

    Raises:
        Needs: there was no time for all of it.
    """
    sizes, path = context.sizes, context.folder / CELLS_FILE
    cells = read(path, list[PolicyCell]) if path.exists() else []
    have = {(cell.users, cell.policy) for cell in cells}
    wanted = [(users, policy) for users in sizes.loads for policy in sizes.policies]
    for users, policy in wanted:
        if (users, policy) in have:
            continue
        if context.left_s() < _cell_s(sizes):
            raise Needs(f"{len(cells)} of {len(wanted)} cells are measured; more time for the rest")
        context.tell(f"taper: {policy}, {users:g} users")
        cells.append(_cell(context, context.rig.governed(), policy, users))
        write(path, cells)
    return Taper(
        slo_ms=sizes.slo_ms,
        run_s=sizes.run_s,
        warm_up_s=sizes.warm_up_s,
        seed=SEED,
        workload=workload(context.target, sizes.loads[0]).description,
        cells=tuple(cells),
    )


def _cell(context: Context, governed: Governed, policy: str, users: float) -> PolicyCell:
    sizes, url = context.sizes, governed.engine.url
    flush(governed.engine, url)
    governed.controller.set_policy(policy)
    before, since = read_counters(url), last_step(governed.controller)
    served = LoadClient(url).run_workload(
        workload(context.target, users), duration_s=sizes.run_s, stream=False
    )
    time.sleep(PUBLISHED_AFTER_S)
    counted = read_counters(url).since(before)
    governed_steps = counted.governed_steps
    late = governed_steps - counted.outcomes.get("applied", 0)
    return policy_cell(
        policy,
        users,
        summarise(served, (sizes.warm_up_s, sizes.run_s)),
        decode_since(governed.controller, since),
        late / governed_steps if governed_steps else 0.0,
    )


def policy_cell(
    policy: str, users: float, report: LoadReport, steps: Sequence[Record], late_share: float
) -> PolicyCell:
    """Figures of one run.

    Raises:
        RuntimeError: no request ended within what is judged.
    """
    if not report.requests:
        raise RuntimeError(f"{policy} at {users:g} users: no request ended; raise run_s")
    return PolicyCell(
        policy=policy,
        users=users,
        requests=report.requests,
        failed=report.failed,
        goodput_tok_s=report.goodput_tok_s,
        throughput_tok_s=report.throughput_tok_s,
        attainment=report.attainment,
        tpot_mean_ms=1e3 * report.tpot_mean_s,
        tpot_p50_ms=1e3 * report.tpot_p50_s,
        victim_tpot_p95_ms=1e3 * report.victim_tpot_p95_s,
        rows=_mean([item["rows"] for item in steps]),
        parked=_mean([item["parked_rows"] for item in steps]),
        step_ms=1e3 * _mean([item["latency_s"] for item in steps]),
        late_share=late_share,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _cell_s(sizes: Sizes) -> float:
    return sizes.run_s + BETWEEN_S


def _work_s(sizes: Sizes) -> float:
    return LEAST_CELLS * _cell_s(sizes)


STAGE = Stage("taper", "policies at two loads", _work_s, ("governed",), run)
