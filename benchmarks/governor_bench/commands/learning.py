"""``governor check learning``."""

from __future__ import annotations

from typing import Any

import click

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.envelope import Stopwatch, envelope

LEARN_S = 90.0
QUICK_LEARN_S = 20.0


@click.command("learning")
@click.option("--quick", is_flag=True, help="Log for a shorter time before the fit.")
@json_option
def check_learning(quick: bool, json_path: str) -> None:
    """Log, fit, refuse, promote and roll back around a live engine; exit status 1 on a failure."""
    from governor_bench.learning.loop import run

    stopwatch = Stopwatch()
    with progress_bar() as progress:
        task = progress.add_task("", total=None)
        result = run(
            QUICK_LEARN_S if quick else LEARN_S,
            lambda stage: progress.update(task, description=stage),
        )
    report = {
        **result,
        "ok": not faults(result),
        **envelope(tier="E", seeds=[1], arguments={"quick": quick}, stopwatch=stopwatch),
    }
    finish(report, json_path, _summary(report))
    if not report["ok"]:
        raise click.ClickException("; ".join(faults(result)))


def faults(result: dict[str, Any]) -> list[str]:
    """What went otherwise than promised."""
    found = [f"a model {name} was taken" for name, why in result["refused"].items() if not why]
    for holds, fault in (
        (result["undisturbed_by_damaged"], "a refused model changed what predicts"),
        (result["installed"], "the fitted model does not predict"),
        (result["rolled_back_after_s"] is not None, "the bad model was not taken out"),
        (not result["failed_requests"], f"{result['failed_requests']} requests failed"),
        (result["requests"], "nobody was served"),
    ):
        if not holds:
            found.append(fault)
    return found


def _summary(report: dict[str, Any]) -> str:
    refused = "\n".join(f"  {name}: {why}" for name, why in report["refused"].items())
    return (
        f"{report['logged_samples']} steps logged; held-out error of the model "
        f"{report['holdout_step_mape']:.2%}; live error {report['step_mape_of_line']:.2%} by the "
        f"line, {report['step_mape_of_model']:.2%} by the model ({report['judgement']})\n"
        f"refused:\n{refused}\n"
        f"the bad model was taken out after {report['rolled_back_after_s']} s; "
        f"{report['requests']} requests, {report['failed_requests']} failed"
    )
