"""A profile of the engine: ``governor profile`` over rows, context and prefill."""

from __future__ import annotations

from governor_profiles import MEASURED

from governor_bench.gpu.figures import Calibration, StepCell
from governor_bench.gpu.rig import flush
from governor_bench.gpu.stage import Context, Stage
from governor_bench.gpu.sweep import sweep
from governor_bench.profiling.build import decode_cells


def run(context: Context) -> Calibration:
    """Sweep for as long as the target's sizes say.

    Raises:
        ProfileError: too little was measured.
    """
    governed, sizes = context.rig.governed(), context.sizes
    flush(governed.engine, governed.engine.url)
    facts = governed.facts()
    device = facts.device.lower().replace("nvidia ", "").split(" ")[0].split("-")[0]
    swept = sweep(
        governed,
        context.folder / "calibration",
        sizes.calibration_s,
        rows=sizes.calibration_rows,
        context=sizes.calibration_context,
        choose=lambda plan: plan,
        name=f"qwen3-{context.target.model}-{device or 'device'}{MEASURED}",
        tell=context.tell,
    )
    profile = swept.built.profile
    cells = [cell for item in swept.measured for cell in decode_cells(item)]
    return Calibration(
        points=len(swept.measured),
        cells=tuple(
            StepCell(cell.rows, cell.context_tokens, 1e3 * cell.step_s, cell.steps)
            for cell in cells
        ),
        profile=swept.profile.name,
        samples=swept.samples.name,
        error_pct=profile.error_pct,
        fixed_ms=1e3 * profile.fixed_s,
        row_us=1e6 * profile.row_s,
        context_token_ns=1e9 * profile.context_token_s,
        prefill_token_us=1e6 * profile.prefill_token_s,
        kv_tokens=profile.kv_tokens,
    )


STAGE = Stage(
    "calibration",
    "step times over rows, context and prefill",
    lambda sizes: sizes.calibration_s + 8.0,
    ("governed",),
    run,
)
