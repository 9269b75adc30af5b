"""Which runs TAPER's evaluation is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from governor_profiles import preferred_profile
from governor_sim.clairvoyant import NAME as CLAIRVOYANT

from governor_bench.eval.setting import STOCK, Setting
from governor_bench.eval.workloads import SHIFT, STEADY, TARGETS


class Contender(msgspec.Struct, frozen=True):
    """A policy with all that belongs to it, under the name that the tables give it."""

    name: str
    policy: str
    predictor: str = "linear"
    replan_steps: int = 1
    note: str = ""


EAGER = Contender("eager", STOCK, note="every branch advances: ungoverned SGLang")
OFF = Contender("off", "off", note="one row a request")
TAPER = Contender("taper", "taper", "published", note="as published")
PLUS = Contender("taper_plus", "taper_plus", note="all switches on")
BOUND = Contender("clairvoyant", CLAIRVOYANT, note="true step cost, true remaining lengths")
WIDTHS = (2, 5, 12)
CAPS = tuple(
    Contender(f"cap {width}", f"cap:{width}", note="a fixed width, no slack test")
    for width in WIDTHS
)
ABLATIONS = (
    Contender("no slack budget", "taper:slack=false", "published"),
    Contender(
        "no replanning", "taper", "published", replan_steps=32, note="a plan stands 32 steps"
    ),
    Contender("constant predictor", "taper", "constant", note="every row costs the same"),
)
_OFF_SWITCHES = "taper_plus:bank=false,guard=false,floor=0,rho=0.8"
SWITCHES = (
    Contender("taper + bank", "taper_plus:guard=false,floor=0", "published"),
    Contender("taper + guard", "taper_plus:bank=false,floor=0,rho=0.8", "published"),
    Contender("taper + correction", _OFF_SWITCHES, "corrected-published"),
    Contender("taper + floor", "taper_plus:bank=false,guard=false,rho=0.8", "published"),
)
CURVE = (OFF, EAGER, *CAPS, TAPER, PLUS, BOUND)
FEW = (OFF, EAGER, TAPER, PLUS, BOUND)

MAIN_PROFILE = preferred_profile("qwen3-32b-h200")
MAIN_SLO_MS = 50.0
MAIN_LOADS = (16.0, 48.0, 80.0, 96.0, 112.0, 144.0, 192.0)
MIDDLE = (80.0, 144.0)
"""Loads, both included, that are the middle of the curve: from where eager first misses targets to
where one row a request fills the target."""
ALONE_LOADS = (80.0, 112.0, 144.0)
"""Where each ablation and each switch is run."""
SLOS_MS = (15.0, 20.0, 30.0, 50.0, 75.0, 100.0)
SLO_LOAD = 96.0
COST_ROWS = (
    ("qwen3-32b-8xh200-taper", 15.0, 64.0),
    ("qwen3-32b-8xh200", 15.0, 160.0),
)
"""Both 8xH200 rows: profile, TPOT target in ms, users. A row's load is where its eager fails."""
TIGHT = (
    ("qwen3-32b-8xh200-taper", 12.0, (24.0, 32.0)),
    ("qwen3-32b-8xa100", 18.0, (36.0,)),
)
"""Targets of less than twice a step's fixed cost: both of TAPER's ratios are in sight there, since
rows are cheap against the fixed cost and the target is still soon reached."""
WRONG = (0.5, 1.0, 2.0)
"""-50 %, right, +100 %."""
MIS_SET = (
    TAPER,
    Contender("taper_plus, uncorrected", "taper_plus", "published"),
    Contender("taper_plus, corrected", "taper_plus", "corrected-published"),
)
TARGET_LOADS = (48.0, 96.0)
SHIFT_LOADS = (4.5, 5.5)
SHIFT_TIMING = {"seconds": 240.0, "warm_up_s": 80.0}
"""Two whole cycles after a first one; each ends after a low, when what was put off is served."""


class Plan(msgspec.Struct, frozen=True):
    """Settings by section of the report."""

    sections: dict[str, list[tuple[Contender, Setting]]]

    @property
    def settings(self) -> list[Setting]:
        return [setting for entries in self.sections.values() for _, setting in entries]


def plan(seeds: Sequence[int], *, quick: bool) -> Plan:
    """Everything that is run; ``quick`` keeps one seed, few loads and short runs."""
    timing = {"seconds": 40.0, "warm_up_s": 16.0} if quick else {}
    if quick:
        seeds = seeds[:1]
    main = {"profile": MAIN_PROFILE, "slo_ms": MAIN_SLO_MS, "workload": STEADY, **timing}
    loads = [32.0, 112.0] if quick else list(MAIN_LOADS)
    sections = {"curve": _grid(FEW if quick else CURVE, loads, seeds, main)}
    if not quick:
        sections["ablations"] = _grid(ABLATIONS, ALONE_LOADS, seeds, main)
        sections["switches"] = _grid(SWITCHES, ALONE_LOADS, seeds, main)
        sections["slo"] = [
            entry
            for slo_ms in SLOS_MS
            for entry in _grid(FEW, [SLO_LOAD], seeds, main | {"slo_ms": slo_ms})
        ]
        sections["cost_rows"] = [
            entry
            for profile, slo_ms, load in COST_ROWS
            for entry in _grid(
                FEW, [load], seeds[:2], main | {"profile": profile, "slo_ms": slo_ms}
            )
        ]
        sections["tight"] = [
            entry
            for profile, slo_ms, tight_loads in TIGHT
            for entry in _grid(
                FEW, tight_loads, seeds[:2], main | {"profile": profile, "slo_ms": slo_ms}
            )
        ]
        sections["wrong_predictor"] = [
            entry
            for factor in WRONG
            for entry in _grid(MIS_SET, [96.0], seeds, main | {"predictor_factor": factor})
        ]
    sections["targets"] = _grid(
        FEW, [80.0] if quick else TARGET_LOADS, seeds, main | {"workload": TARGETS}
    )
    sections["shift"] = _grid(
        FEW,
        SHIFT_LOADS[:1] if quick else SHIFT_LOADS,
        seeds,
        main | {"workload": SHIFT} | ({} if quick else SHIFT_TIMING),
    )
    return Plan(sections)


def _grid(
    contenders: Iterable[Contender],
    loads: Iterable[float],
    seeds: Iterable[int],
    common: dict[str, object],
) -> list[tuple[Contender, Setting]]:
    return [
        (contender, _setting(contender, load, seed, common))
        for load in loads
        for contender in contenders
        for seed in seeds
    ]


def _setting(contender: Contender, load: float, seed: int, common: dict[str, object]) -> Setting:
    return msgspec.convert(
        {
            **common,
            "load": load,
            "seed": seed,
            "policy": contender.policy,
            "predictor": contender.predictor,
            "replan_steps": contender.replan_steps,
        },
        Setting,
    )
