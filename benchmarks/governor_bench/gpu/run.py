"""Stage after stage within a budget. What fails is noted, and the rest goes on."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from governor_bench.envelope import Stopwatch, envelope
from governor_bench.gpu.figures import Figures
from governor_bench.gpu.results import Envelope, StageResult, read_result, write
from governor_bench.gpu.stage import SEED, Context, Needs, Skipped, Stage
from governor_bench.gpu.target import FORMAT

LONGEST_REASON = 8_000

Became = Literal["done", "skipped", "failed", "kept", "no time", "waits"]


class Line(NamedTuple):
    """What became of one stage in this run."""

    stage: str
    became: Became
    """``kept``: an earlier run had finished it. ``no time``, ``waits``: left for a later run."""
    seconds: float
    why: str = ""


def run_stages(
    stages: Sequence[Stage],
    context: Context,
    budget_s: float,
    *,
    resume: bool,
    arguments: dict[str, object],
    saved: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Line]:
    """Run what of ``stages`` is not done and fits what is left of the budget.

    Args:
        resume: keep what is done or skipped; what failed is tried again. If not, all that is known
            of ``stages`` is forgotten.
        arguments: of the command, for the results.
        saved: called after each result.
        clock: seconds that never go back.

    Raises:
        ResultError: a result cannot be read or written.
    """
    begun_s = clock()
    context = context._replace(left_s=lambda: budget_s - (clock() - begun_s))
    lines = []
    if not resume:
        for stage in stages:
            _forget(stage, context)
    for stage in stages:
        if _is_whole(read_result(context.folder, stage.name)):
            lines.append(Line(stage.name, "kept", 0.0))
            continue
        left_s = context.left_s()
        expected_s = stage.expected_s(context.sizes, context.rig.running)
        if expected_s > left_s:
            why = f"expected {expected_s:.0f} s, {left_s:.0f} s are left"
            lines.append(Line(stage.name, "no time", 0.0, why))
            continue
        lines.append(_run(stage, context, arguments, saved))
    return lines


def _run(
    stage: Stage, context: Context, arguments: dict[str, object], saved: Callable[[], None]
) -> Line:
    stopwatch = Stopwatch()
    context.tell(stage.name)
    figures: Figures | None = None
    became: Literal["done", "skipped", "failed"] = "done"
    reason, logs = "", {}
    try:
        figures = stage.run(context)
    except Needs as missing:
        saved()
        return Line(stage.name, "waits", stopwatch.seconds(), str(missing))
    except Skipped as why:
        became, reason = "skipped", str(why)
    except Exception as error:  # noqa: BLE001 - whatever one stage does, the others go on
        became, reason = "failed", _told(error)
        logs = context.rig.log_tails()
        context.rig.settle()
    tier = "G" if context.target.device == "cuda" else "C"
    made = envelope(tier=tier, seeds=[SEED], arguments=dict(arguments), stopwatch=stopwatch)
    write(
        context.folder / f"{stage.name}.json",
        StageResult(
            format=FORMAT,
            stage=stage.name,
            target=context.target,
            status=became,
            envelope=msgspec.convert(made, Envelope),
            figures=figures,
            reason=reason,
            logs=logs,
        ),
    )
    saved()
    return Line(stage.name, became, stopwatch.seconds(), reason.strip().rpartition("\n")[2])


def _forget(stage: Stage, context: Context) -> None:
    for path in context.folder.glob(f"{stage.name}.*"):
        path.unlink()


def _is_whole(result: StageResult | None) -> bool:
    return result is not None and result.status in {"done", "skipped"}


def _told(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    return text[-LONGEST_REASON:]
