"""From outcomes to the report's figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from governor_bench.eval.setting import Outcome
from governor_bench.eval.taper.plan import (
    BOUND,
    CAPS,
    EAGER,
    MIDDLE,
    OFF,
    PLUS,
    TAPER,
    Contender,
)

AIM_VS_OFF = 1.77
AIM_VS_EAGER = 1.48
CLEAR = 1.02
"""The bound is clearly above the published policy from this ratio on; below, no gap is counted."""


class Cell(msgspec.Struct, frozen=True):
    """One contender at one place, over all seeds: medians, and the spread of the goodput."""

    name: str
    load: float
    slo_ms: float
    profile: str
    predictor_factor: float
    goodput_tok_s: float
    goodput_range: tuple[float, float]
    throughput_tok_s: float
    attainment: float
    serial_attainment: float
    tpot_p50_ms: float
    serial_tpot_p50_ms: float
    victim_tpot_p95_ms: float
    ttft_p50_s: float
    branching_latency_p50_s: float
    rows: float
    parked: float
    step_ms: float
    late_share: float
    seeds: int


Place = tuple[float, float, str, float]
"""Load, SLO in ms, profile, predictor factor."""


def cells(entries: Sequence[tuple[Contender, Outcome]]) -> list[Cell]:
    """Sum up the seeds of each contender at each place."""
    found: dict[tuple[str, Place], list[Outcome]] = {}
    for contender, outcome in entries:
        found.setdefault((contender.name, _place(outcome)), []).append(outcome)
    return [_cell(name, place, outcomes) for (name, place), outcomes in found.items()]


def headline(sections: dict[str, list[Cell]]) -> dict[str, Any]:
    """The figures at the top of the report."""
    curve = sections["curve"]
    by_case = _cases(sections, PLUS.name)
    anywhere = [*curve, *sections.get("tight", [])]
    return {
        "policy": PLUS.name,
        **_comparison(anywhere, PLUS.name),
        "published": _comparison(anywhere, TAPER.name),
        "worst_vs_better_of_off_and_eager": _worst(
            _ratio(here, PLUS.name, (OFF.name, EAGER.name)) for here in _places(anywhere)
        ),
        "gap_closed": _worst(_gaps_closed(curve)),
        "improved_vs_published": _worst(by_case.values()),
        "improved_vs_published_by_case": by_case,
        "bound_vs_published_by_case": _cases(sections, BOUND.name),
    }


def _cases(sections: dict[str, list[Cell]], name: str) -> dict[str, float]:
    """Worst goodput of ``name`` over published TAPER: where targets differ, where load shifts."""
    return {
        case: min(_ratio(here, name, (TAPER.name,)) for here in _places(sections[case]))
        for case in ("targets", "shift")
    }


def with_oracle(curve: Sequence[Cell]) -> list[dict[str, Any]]:
    """The curve by load: every contender, and the best fixed width at that load."""
    fixed = {OFF.name, EAGER.name, *(cap.name for cap in CAPS)}
    rows = []
    for here in _places(curve):
        oracle = max((cell for cell in here.values() if cell.name in fixed), key=_goodput)
        any_cell = next(iter(here.values()))
        rows.append(
            {
                "load": any_cell.load,
                "slo_ms": any_cell.slo_ms,
                "best_fixed_width": {"name": oracle.name, "goodput_tok_s": oracle.goodput_tok_s},
                "policies": {name: msgspec.to_builtins(cell) for name, cell in here.items()},
            }
        )
    return rows


def _comparison(curve: Sequence[Cell], name: str) -> dict[str, Any]:
    """Where ``name`` comes closest to both of TAPER's ratios at once."""

    def closeness(here: dict[str, Cell]) -> float:
        return min(
            _ratio(here, name, (OFF.name,)) / AIM_VS_OFF,
            _ratio(here, name, (EAGER.name,)) / AIM_VS_EAGER,
        )

    here = max(_places(curve), key=closeness)
    cell = here[name]
    return {
        "goodput_vs_off": _ratio(here, name, (OFF.name,)),
        "goodput_vs_eager": _ratio(here, name, (EAGER.name,)),
        "attainment": cell.attainment,
        "load": cell.load,
        "slo_ms": cell.slo_ms,
        "profile": cell.profile,
    }


def _gaps_closed(curve: Sequence[Cell]) -> Iterable[float]:
    for here in _places(curve):
        published, improved, bound = here[TAPER.name], here[PLUS.name], here[BOUND.name]
        clear = bound.goodput_tok_s > CLEAR * published.goodput_tok_s
        if MIDDLE[0] <= published.load <= MIDDLE[1] and clear:
            gap = bound.goodput_tok_s - published.goodput_tok_s
            yield (improved.goodput_tok_s - published.goodput_tok_s) / gap


def _places(some: Sequence[Cell]) -> list[dict[str, Cell]]:
    """Cells by name, one dictionary a place, in order of load."""
    found: dict[Place, dict[str, Cell]] = {}
    for cell in some:
        place = (cell.load, cell.slo_ms, cell.profile, cell.predictor_factor)
        found.setdefault(place, {})[cell.name] = cell
    return [found[place] for place in sorted(found)]


def _ratio(here: dict[str, Cell], name: str, others: Iterable[str]) -> float:
    best = max(here[other].goodput_tok_s for other in others)
    return here[name].goodput_tok_s / best if best else float("inf")


def _worst(ratios: Iterable[float]) -> float | None:
    return min(ratios, default=None)


def _goodput(cell: Cell) -> float:
    return cell.goodput_tok_s


def _place(outcome: Outcome) -> Place:
    setting = outcome.setting
    return setting.load, setting.slo_ms, setting.profile, setting.predictor_factor


def _cell(name: str, place: Place, outcomes: Sequence[Outcome]) -> Cell:
    reports = [outcome.report for outcome in outcomes]
    goodput = [report.goodput_tok_s for report in reports]
    load, slo_ms, profile, factor = place
    return Cell(
        name=name,
        load=load,
        slo_ms=slo_ms,
        profile=profile,
        predictor_factor=factor,
        goodput_tok_s=_median(goodput),
        goodput_range=(min(goodput), max(goodput)),
        throughput_tok_s=_median([report.throughput_tok_s for report in reports]),
        attainment=_median([report.attainment for report in reports]),
        serial_attainment=_median([report.serial_attainment for report in reports]),
        tpot_p50_ms=1e3 * _median([report.tpot_p50_s for report in reports]),
        serial_tpot_p50_ms=1e3 * _median([report.serial_tpot_p50_s for report in reports]),
        victim_tpot_p95_ms=1e3 * _median([report.victim_tpot_p95_s for report in reports]),
        ttft_p50_s=_median([report.ttft_p50_s for report in reports]),
        branching_latency_p50_s=_median([report.branching_latency_p50_s for report in reports]),
        rows=_median([outcome.rows for outcome in outcomes]),
        parked=_median([outcome.parked for outcome in outcomes]),
        step_ms=_median([outcome.step_ms for outcome in outcomes]),
        late_share=_median([outcome.late_share for outcome in outcomes]),
        seeds=len(outcomes),
    )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
