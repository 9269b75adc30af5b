"""Which runs the evaluation is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from governor_bench.eval.laps_sd.contestants import LOF, SRPT
from governor_bench.eval.laps_sd.setting import (
    BURSTY,
    DECLARED,
    PLACES,
    POISSON,
    SGLANG_PLACES,
    SILENT,
    TELLING,
    Setting,
)
from governor_bench.eval.laps_sd.shapes import INSTRUCTIONS, REASONING, SHAPES, SYNTHESIS
from governor_bench.eval.setting import STOCK


class Contender(msgspec.Struct, frozen=True):
    """An order of service under the name that the tables give it."""

    name: str
    policy: str
    note: str = ""


class Place(NamedTuple):
    """One cell: all contenders meet the same requests there."""

    shape: str
    share: float
    """Load, as a share of what saturates the engine."""
    speculates: bool = True
    cv: float = BURSTY
    """Of the gaps between arrivals."""
    places: int = PLACES
    """In the batch."""
    lengths: str = TELLING
    """What is told of how much a request will say."""


FIRST_COME = Contender("fcfs", STOCK, "SGLang's own order, ungoverned")
LEAST_ATTAINED = Contender("las", "las", "least attained service, in queues of doubling quanta")
SHORTEST_JOB = Contender("sjf", "sjf", "shortest predicted length; nobody yields")
OURS = Contender("laps_sd", "laps_sd", "governed")
ORACLE = Contender("srpt", SRPT, "`laps_sd`'s rules, given what really remains")
LONGEST = Contender("lof", LOF, "SGLang's `lof`: highest limit first")
MAIN = (FIRST_COME, LEAST_ATTAINED, SHORTEST_JOB, OURS, ORACLE)
WITH_LIMITS = (FIRST_COME, LONGEST, LEAST_ATTAINED, SHORTEST_JOB, OURS, ORACLE)

SHARES = (0.5, 0.7, 0.8, 0.9, 0.95)
VARIED, VARIED_SHARE = INSTRUCTIONS, 0.9
"""What everything but the grid is run at."""
SHOWN_SHARE = 0.9
"""Load whose latencies are drawn as distributions."""
QUICK_SHARES = (0.9,)
QUICK_SHORTENED = 4.0

ON_EMULATED = (
    Contender(FIRST_COME.name, "fcfs", "SGLang's own order, governed"),
    LEAST_ATTAINED,
    SHORTEST_JOB,
    OURS,
)
EMULATED_CELLS = ((SYNTHESIS.name, 0.9), (INSTRUCTIONS.name, 0.9))

Entry = tuple[Place, Contender, Setting]


def main(seeds: Sequence[int], *, quick: bool) -> list[Entry]:
    """The grid: shape x load."""
    shapes = SHAPES if not quick else (INSTRUCTIONS, REASONING)
    places = [
        Place(shape.name, share)
        for shape in shapes
        for share in (QUICK_SHARES if quick else SHARES)
    ]
    return _entries(places, MAIN, seeds, quick=quick)


def variants(seeds: Sequence[int], *, quick: bool) -> list[Entry]:
    """One thing changed at a time: no speculation, Poisson arrivals, more places, prompts that tell
    nothing of lengths, limits that tell all."""
    if quick:
        return []
    changes: list[dict[str, Any]] = [
        {"cv": POISSON},
        {"places": SGLANG_PLACES},
        {"lengths": SILENT},
    ]
    places = [
        *(Place(shape.name, VARIED_SHARE, speculates=False) for shape in SHAPES),
        *(Place(VARIED.name, VARIED_SHARE, **change) for change in changes),
    ]
    declared = [Place(VARIED.name, VARIED_SHARE, lengths=DECLARED)]
    return [
        *_entries(places, MAIN, seeds, quick=quick),
        *_entries(declared, WITH_LIMITS, seeds, quick=quick),
    ]


def emulated(seeds: Sequence[int], *, quick: bool) -> list[Entry]:
    """Tier E's cells; requests declare their length there."""
    return [
        (
            place,
            contender,
            msgspec.structs.replace(
                setting_of(place, contender, seed, shortened=1.0), emulated=True
            ),
        )
        for shape, share in (EMULATED_CELLS[:1] if quick else EMULATED_CELLS)
        for place in (Place(shape, share, lengths=DECLARED),)
        for seed in seeds
        for contender in (ON_EMULATED[::3] if quick else ON_EMULATED)
    ]


def setting_of(place: Place, contender: Contender, seed: int, *, shortened: float) -> Setting:
    """What ``contender`` runs at ``place``."""
    return Setting(
        shape=place.shape,
        share=place.share,
        seed=seed,
        policy=contender.policy,
        speculates=place.speculates,
        cv=place.cv,
        places=place.places,
        lengths=place.lengths,
        shortened=shortened,
    )


def _entries(
    places: Iterable[Place], contenders: Iterable[Contender], seeds: Iterable[int], *, quick: bool
) -> list[Entry]:
    shortened = QUICK_SHORTENED if quick else 1.0
    return [
        (place, contender, setting_of(place, contender, seed, shortened=shortened))
        for place in places
        for contender in contenders
        for seed in seeds
    ]
