"""How far models of the device are from it: the measured profile under the measured workload.

Needs the results of calibration and of the table of policies, and no GPU: it may run afterwards on
another machine, from the saved folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from governor_profiles import StepProfile, load_profile
from governor_sim.simulate import SimConfig, simulate
from governor_workloads.report import LoadReport, summarise

from controller_service.policies.registry import parse_policy
from governor_bench.eval.emulated_pair import emulated_pair
from governor_bench.eval.predictors import trained
from governor_bench.eval.simulated import LIMITS, NO_AGEING
from governor_bench.gpu.figures import Calibration, Emulation, PolicyCell, Taper, TierCell
from governor_bench.gpu.stage import SEED, Context, Stage
from governor_bench.gpu.target import Sizes
from governor_bench.gpu.workloads import workload

PREDICTOR = "corrected-linear"
EMULATED = ("eager", "taper_plus")
"""Policies that are run on the emulated engine, at the low load: it takes real time."""


def run(context: Context) -> Emulation:
    """Simulate every cell of the table, and run two of them on the emulated engine.

    Raises:
        Needs: there is no profile or no table yet.
    """
    calibration, taper = context.figures_of("calibration"), context.figures_of("taper")
    if not isinstance(calibration, Calibration) or not isinstance(taper, Taper):
        raise TypeError("calibration.json or taper.json holds figures of another stage")
    context.rig.close()
    path = context.folder / calibration.profile
    profile = load_profile(path)
    cells = [_simulated(context, profile, cell) for cell in taper.cells]
    cells += _emulated(context, str(path), taper)
    goodput = [cell.goodput_ratio for cell in cells if cell.goodput_ratio is not None]
    return Emulation(
        cells=tuple(cells),
        scale=context.sizes.emulated_scale,
        median_tpot_error_pct=median(100 * abs(cell.tpot_ratio - 1) for cell in cells),
        median_goodput_error_pct=(
            median(100 * abs(ratio - 1) for ratio in goodput) if goodput else None
        ),
    )


def tier_cell(tier: str, seen: PolicyCell, report: LoadReport, host_share: float) -> TierCell:
    """A model's figures beside the device's."""
    return TierCell(
        policy=seen.policy,
        users=seen.users,
        tier=tier,
        tpot_ratio=1e3 * report.tpot_mean_s / seen.tpot_mean_ms,
        goodput_ratio=report.goodput_tok_s / seen.goodput_tok_s if seen.goodput_tok_s else None,
        host_limited_share=host_share,
    )


def _simulated(context: Context, profile: StepProfile, cell: PolicyCell) -> TierCell:
    context.tell(f"emulation: simulating {cell.policy}, {cell.users:g} users")
    sizes = context.sizes
    result = simulate(
        workload(context.target, cell.users),
        profile,
        parse_policy(cell.policy),
        trained(PREDICTOR, profile, SEED),
        SimConfig(limits=LIMITS, engine=NO_AGEING),
        seconds=sizes.run_s,
        seed=SEED,
    )
    return tier_cell("S", cell, summarise(result.served, (sizes.warm_up_s, sizes.run_s)), 0.0)


def _emulated(context: Context, profile: str, taper: Taper) -> Iterator[TierCell]:
    sizes = context.sizes
    low = min(cell.users for cell in taper.cells)
    chosen = [cell for cell in taper.cells if cell.policy in EMULATED and cell.users == low]
    governor = {"MAX_PARKED_STEPS": str(NO_AGEING.max_parked_steps)}
    with emulated_pair(
        profile, PREDICTOR, sizes.emulated_scale, context.tell, governor=governor
    ) as pair:
        for cell in chosen:
            context.tell(f"emulation: {cell.policy} on the emulated engine")
            seen = pair.observe(
                cell.policy, workload(context.target, cell.users), duration_s=sizes.run_s
            )
            report = summarise(seen.served, (sizes.warm_up_s, sizes.run_s))
            yield tier_cell("E", cell, report, seen.host_limited_share)


def _work_s(sizes: Sizes) -> float:
    return 60.0 + len(EMULATED) * sizes.run_s * sizes.emulated_scale


STAGE = Stage(
    "emulation", "the measured profile in simulator and emulated engine", _work_s, (), run
)
