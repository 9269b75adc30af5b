"""Which runs the evaluation is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from governor_bench.eval.laps_sd.contestants import LOF, SRPT
from governor_bench.eval.laps_sd.setting import (
    BURSTY,
    DECLARED,
    FEW_PLACES,
    HINTED,
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
OURS = Contender("laps_sd", "laps_sd:protect=false", "governed; no target is promised here")
ORACLE = Contender("srpt", SRPT, "`laps_sd`'s rules, given what really remains")
LONGEST = Contender("lof", LOF, "SGLang's `lof`: highest limit first")
MAIN = (FIRST_COME, LEAST_ATTAINED, SHORTEST_JOB, OURS, ORACLE)
WITH_LIMITS = (FIRST_COME, LONGEST, LEAST_ATTAINED, SHORTEST_JOB, OURS, ORACLE)

BLIND = (FIRST_COME, LEAST_ATTAINED, ORACLE)
"""Who does not look at hints: the oracle knows better."""

TRADE_OFF = (
    Contender("late_share=0", "laps_sd:late_share=0,protect=false"),
    OURS,
    *(
        Contender(
            f"late_share={share:g}:late={late:g}",
            f"laps_sd:late_share={share},late={late},protect=false",
        )
        for share, late in ((0.5, 2.0), (1.0, 1.0))
    ),
)
"""From none to all of the places for who is late, and ever sooner."""

SHARES = (0.5, 0.7, 0.8, 0.9, 0.95)
HINTED_SHARES = SHARES[1:]
"""Headline figures are of no others."""
VARIED, VARIED_SHARE = INSTRUCTIONS, 0.9
"""What everything but the grids is run at."""
SHOWN_SHARE = 0.9
"""Load whose latencies are drawn as distributions."""
QUICK_SHARES = (0.9,)
QUICK_SHORTENED = 8.0

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
    return _grid(SHARES, TELLING, seeds, quick=quick)


def hinted(seeds: Sequence[int], *, quick: bool) -> list[Entry]:
    """The same requests, each of which declares how much it expects to get."""
    return _grid(HINTED_SHARES, HINTED, seeds, quick=quick)


def _grid(
    shares: Sequence[float], lengths: str, seeds: Sequence[int], *, quick: bool
) -> list[Entry]:
    shapes = SHAPES if not quick else (INSTRUCTIONS, REASONING)
    places = [
        Place(shape.name, share, lengths=lengths)
        for shape in shapes
        for share in (QUICK_SHARES if quick else shares)
    ]
    return _entries(places, MAIN, seeds, quick=quick)


def trade_off(seeds: Sequence[int], *, quick: bool) -> list[Entry]:
    """More or fewer places for who is late, at one load of each shape."""
    if quick:
        return []
    places = [Place(shape.name, VARIED_SHARE) for shape in SHAPES]
    contenders = [FIRST_COME, *TRADE_OFF]
    return _entries(places, contenders, seeds, quick=quick)


def variants(seeds: Sequence[int], *, quick: bool) -> list[Entry]:
    """One thing changed at a time: no speculation, Poisson arrivals, more and fewer places, prompts
    that tell nothing of lengths, limits that tell all."""
    if quick:
        return []
    changes: list[dict[str, Any]] = [
        {"cv": POISSON},
        {"places": SGLANG_PLACES},
        {"places": FEW_PLACES},
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
    """What ``contender`` runs at ``place``. Who does not look at hints is not given any, so that it
    need not run twice."""
    is_blind = place.lengths == HINTED and contender in BLIND
    return Setting(
        shape=place.shape,
        share=place.share,
        seed=seed,
        policy=contender.policy,
        speculates=place.speculates,
        cv=place.cv,
        places=place.places,
        lengths=TELLING if is_blind else place.lengths,
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
