"""What the table of policies is served: the evaluations' workload, and on a CPU a small one."""

from __future__ import annotations

from governor_workloads.generator import generate
from governor_workloads.mix import Mix
from governor_workloads.spec import Workload

from governor_bench.eval.workloads import STEADY, workload_of
from governor_bench.gpu.stage import SEED
from governor_bench.gpu.target import Target, sizes_of

_SMALL = {
    "prompt_tokens": {"kind": "uniform", "min": 8, "max": 32},
    "output_tokens": {"kind": "uniform", "min": 16, "max": 32},
    "branching_share": 0.5,
    "widths": [[4, 1]],
    "branch_tokens": {"kind": "uniform", "min": 8, "max": 16},
    "requests": 400,
}


def workload(target: Target, users: float) -> Workload:
    """Closed loop of ``users``, one TPOT target for all."""
    sizes = sizes_of(target)
    if target.device == "cuda":
        return workload_of(STEADY, users, sizes.slo_ms, SEED, sizes.run_s)
    mix = {
        **_SMALL,
        "arrivals": {"kind": "closed", "users": int(users)},
        "targets": [{"tpot_slo_s": sizes.slo_ms / 1e3}],
    }
    return generate(Mix.of(mix), SEED)
