"""Which runs the evaluation is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from governor_bench.eval.chunk.setting import (
    DEFAULT_TOKENS,
    FITTED_TREES,
    MIXED,
    PREFILL_FIRST,
    Setting,
)
from governor_bench.eval.chunk.shapes import CHAT, CODE, LONG_BURSTS, SYNTHETIC, shapes
from governor_bench.eval.setting import STOCK


class Contender(msgspec.Struct, frozen=True):
    """A budget under the name that the tables give it."""

    name: str
    policy: str = STOCK
    chunk_tokens: int = DEFAULT_TOKENS
    predictor: str = "corrected-linear"
    schedule: str = ""
    """Empty: the cell's."""
    note: str = ""


class Place(NamedTuple):
    """One cell: all contenders meet the same requests there."""

    shape: str
    schedule: str
    share: float
    """Load, as a share of what saturates the engine."""
    target_factor: float
    """Every TTFT target of the shape is multiplied by it."""


FIXED_TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192)
FIXED = tuple(Contender(f"fixed {tokens}", chunk_tokens=tokens) for tokens in FIXED_TOKENS)
DEFAULT = Contender(
    "default", schedule=PREFILL_FIRST, note=f"SGLang's own: {DEFAULT_TOKENS}, {PREFILL_FIRST}"
)
ADAPTIVE = Contender("adaptive_chunk", "adaptive_chunk", note="governed")
TREES = Contender(
    "adaptive_chunk, Extra-Trees",
    "adaptive_chunk",
    predictor=FITTED_TREES,
    note="its step times from Extra-Trees that were fitted to a profiling sweep beforehand",
)
MAIN = (*FIXED, DEFAULT, ADAPTIVE)

SCHEDULES = (PREFILL_FIRST, MIXED)
SHARES = (0.2, 0.4, 0.6, 0.8, 0.95, 1.1)
LOOSE_SHARES, LOOSE_FACTOR = (0.6, 0.8, 0.95), 2.0
LOOSE_SHAPES = (CHAT.name, CODE.name)
TREES_SHARE = 0.6
QUICK_SHARES = (0.4, 0.8)
QUICK_SHORTENED = 4.0

ON_EMULATED = (
    Contender("fixed 2048", "fixed_chunk:2048"),
    Contender(f"fixed {DEFAULT_TOKENS}", "eager"),
    Contender(DEFAULT.name, "eager", schedule=PREFILL_FIRST),
    ADAPTIVE,
)
"""Tier E: the engine is started once a schedule, so the policy brings the budget."""
EMULATED_CELLS = ((CHAT.name, 0.6), (LONG_BURSTS.name, 0.4))

Entry = tuple[Place, Contender, Setting]


def main(seeds: Sequence[int], *, quick: bool) -> list[Entry]:
    """The grid: shape x schedule x load; and looser targets where few budgets meet the others."""
    names = [CHAT.name, LONG_BURSTS.name] if quick else [shape.name for shape in shapes()]
    shares = QUICK_SHARES if quick else SHARES
    places = [
        Place(name, schedule, share, 1.0)
        for name in names
        for schedule in SCHEDULES
        for share in shares
    ]
    if not quick:
        places += [
            Place(name, schedule, share, LOOSE_FACTOR)
            for name in LOOSE_SHAPES
            for schedule in SCHEDULES
            for share in LOOSE_SHARES
        ]
    return _entries(places, MAIN, seeds, quick=quick)


def trees(seeds: Sequence[int], *, quick: bool) -> list[Entry]:
    """Another predictor, at one load of each shape."""
    if quick:
        return []
    places = [
        Place(shape.name, schedule, TREES_SHARE, 1.0)
        for shape in SYNTHETIC
        for schedule in SCHEDULES
    ]
    return _entries(places, (ADAPTIVE, TREES), seeds[:1], quick=quick)


def emulated(seeds: Sequence[int], *, quick: bool) -> list[Entry]:
    """Tier E's cells."""
    return [
        (
            place,
            contender,
            msgspec.structs.replace(
                setting_of(place, contender, seed, shortened=1.0), emulated=True
            ),
        )
        for schedule in (SCHEDULES[:1] if quick else SCHEDULES)
        for shape, share in (EMULATED_CELLS[:1] if quick else EMULATED_CELLS)
        for place in (Place(shape, schedule, share, 1.0),)
        for seed in seeds
        for contender in (ON_EMULATED[2:] if quick else ON_EMULATED)
    ]


def setting_of(place: Place, contender: Contender, seed: int, *, shortened: float) -> Setting:
    """What ``contender`` runs at ``place``."""
    return Setting(
        shape=place.shape,
        share=place.share,
        seed=seed,
        policy=contender.policy,
        chunk_tokens=contender.chunk_tokens,
        schedule=contender.schedule or place.schedule,
        predictor=contender.predictor,
        target_factor=place.target_factor,
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
