"""``governor eval taper``: runs the plan, writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.progress import Progress

from governor_bench.envelope import Stopwatch, envelope
from governor_bench.eval import emulated, validation
from governor_bench.eval.cache import OutcomeCache
from governor_bench.eval.pool import run_all
from governor_bench.eval.setting import STOCK, Outcome, Setting
from governor_bench.eval.simulated import run_simulated
from governor_bench.eval.taper.figures import cells, headline, with_oracle
from governor_bench.eval.taper.plan import BOUND, FEW, Contender, Plan, plan
from governor_bench.eval.workloads import workload_of


def evaluate_simulated(
    seeds: Sequence[int],
    validated: dict[str, Any] | None,
    progress: Progress,
    cache: OutcomeCache | None,
    *,
    quick: bool,
    cluster: str | None = None,
) -> dict[str, Any]:
    """Tier S.

    Args:
        validated: a report of :func:`validate`, shown beside the figures; None if there is none.
        cache: where finished runs are kept.
        cluster: Dask scheduler that simulates instead of this machine.
    """
    stopwatch = Stopwatch()
    planned = plan(seeds, quick=quick)
    outcomes = run_all(run_simulated, planned.settings, progress, cache=cache, cluster=cluster)
    return _report("S", planned, outcomes, seeds, validated, stopwatch, quick=quick)


def evaluate_emulated(
    seeds: Sequence[int], scale: float, progress: Progress, *, quick: bool
) -> dict[str, Any]:
    """Tier E: the curve's main contenders on real SGLang, with one predictor for all."""
    stopwatch = Stopwatch()
    planned = _for_real_time(plan(seeds, quick=quick), quick=quick)
    task = progress.add_task("starting", total=len(planned.settings))
    outcomes = run_emulated(planned.settings, scale, progress, task)
    return _report("E", planned, outcomes, seeds, None, stopwatch, quick=quick)


def validate(scale: float, progress: Progress, *, quick: bool) -> dict[str, Any]:
    """S against E, on the settings of :mod:`governor_bench.eval.validation`."""
    stopwatch = Stopwatch()
    settings = validation.settings(quick=quick)
    task = progress.add_task("starting", total=len(settings))
    measured = run_emulated(settings, scale, progress, task)
    simulated = run_all(run_simulated, settings, progress)
    return {
        **validation.compare(simulated, measured),
        "workload": _workload(settings[0]),
        **envelope(
            tier="S against E",
            seeds=[setting.seed for setting in settings[:1]],
            arguments={"scale": scale, "quick": quick},
            stopwatch=stopwatch,
        ),
    }


def run_emulated(
    settings: Sequence[Setting], scale: float, progress: Progress, task: Any
) -> list[Outcome]:
    """Run settings of one profile and one predictor on one emulated engine."""

    def stage(text: str) -> None:
        progress.update(task, description=text)

    outcomes = []
    with emulated.emulated_rig(settings[0].profile, settings[0].predictor, scale, stage) as rig:
        stage("training the predictor")
        rig.train(settings[0])
        for setting in settings:
            stage(f"{setting.policy} at load {setting.load:g}")
            outcomes.append(rig.run(setting))
            progress.advance(task)
    return outcomes


REAL_TIME_LOADS = (48.0, 96.0, 144.0)
REAL_TIME = {"seconds": 75.0, "warm_up_s": 30.0}
QUICK_LOADS = (32.0,)
QUICK = {"seconds": 8.0, "warm_up_s": 4.0}


def _for_real_time(planned: Plan, *, quick: bool) -> Plan:
    """The curve alone, at some loads: a run takes as long as it says. An engine that is governed
    and parks nobody stands in for an ungoverned one."""
    loads, timing = (QUICK_LOADS, QUICK) if quick else (REAL_TIME_LOADS, REAL_TIME)
    kept: list[tuple[Contender, Setting]] = []
    for contender, setting in planned.sections["curve"]:
        if contender == BOUND or contender not in FEW or setting.load not in loads:
            continue
        policy = "eager" if setting.policy == STOCK else setting.policy
        changed = msgspec.structs.replace(setting, policy=policy, predictor="linear", **timing)
        kept.append((contender, changed))
    return Plan({"curve": kept})


def _report(
    tier: str,
    planned: Plan,
    outcomes: Sequence[Outcome],
    seeds: Sequence[int],
    validated: dict[str, Any] | None,
    stopwatch: Stopwatch,
    *,
    quick: bool,
) -> dict[str, Any]:
    sections = {}
    start = 0
    for name, entries in planned.sections.items():
        mine = outcomes[start : start + len(entries)]
        start += len(entries)
        pairs = zip((contender for contender, _ in entries), mine, strict=True)
        sections[name] = cells(list(pairs))
    return {
        **(headline(sections) if tier == "S" else {}),
        "curve": with_oracle(sections["curve"]),
        "sections": {
            name: msgspec.to_builtins(found) for name, found in sections.items() if name != "curve"
        },
        "hosts": _hosts(outcomes),
        "validation": None if validated is None else _errors(validated),
        "workloads": {
            setting.workload: _workload(setting) for _, setting in _first_of_each(planned)
        },
        **envelope(
            tier=tier,
            seeds=list(seeds[:1] if quick else seeds),
            arguments={"quick": quick, "runs": len(outcomes)},
            stopwatch=stopwatch,
        ),
    }


def _first_of_each(planned: Plan) -> list[tuple[Contender, Setting]]:
    first: dict[str, tuple[Contender, Setting]] = {}
    for entries in planned.sections.values():
        for entry in entries:
            first.setdefault(entry[1].workload, entry)
    return list(first.values())


def _workload(setting: Setting) -> str:
    return workload_of(
        setting.workload, setting.load, setting.slo_ms, setting.seed, setting.seconds
    ).description


def _hosts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The least favourable figure of each kind over all runs."""
    worst: dict[str, Any] = {}
    for outcome in outcomes:
        for name, value in outcome.host.items():
            if isinstance(value, int | float):
                pick = min if name == "times_real_time" else max
                worst[name] = pick(worst.get(name, value), value)
    return worst


def _errors(validated: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in validated.items() if key.endswith("_pct")} | {
        "settings": validated["settings"]
    }
