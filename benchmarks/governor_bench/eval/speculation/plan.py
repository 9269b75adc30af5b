"""Which runs the evaluation is made of; a table by batch size is tuned on some and run after."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from governor_bench.eval.speculation.setting import EMULATED, Setting


class Contender(msgspec.Struct, frozen=True):
    """A policy under the name that the tables give it."""

    name: str
    policy: str
    engine: str = "ragged"
    note: str = ""


FIXED_LENGTHS = (0, 1, 3, 5, 7, 10)
FIXED = tuple(
    Contender("none" if not k else f"fixed {k}", f"fixed_draft:{k}") for k in FIXED_LENGTHS
)
TURBOSPEC = Contender("turbospec", "turbospec", note="each request its own draft")
PORTABLE = Contender(
    "turbospec, one length",
    "turbospec",
    "batch",
    note="an engine whose rows all pay for the longest",
)
PUBLISHED = Contender(
    "turbospec, published",
    "turbospec:per_request=false,estimate=average,value=sum,reluctance=1.1,protect=false,keep=0",
    note="one average over the batch, no drafts count x1.1",
)
CANDIDATES = Contender(
    "adaptive_candidates", "adaptive_candidates", note="one length, measured tables"
)
SGLANG = Contender("sglang adaptive", "sglang_adaptive", note="average by batch-size tier")
TABLE = "batch table"
"""Tuned on the runs of the fixed lengths, so its policy is known only after those."""
MAIN = (*FIXED, SGLANG, PUBLISHED, CANDIDATES, PORTABLE, TURBOSPEC)

LOADS = (1, 8, 32, 96, 192, 384)
LEVELS = (0.3, 0.5, 0.7, 0.85, 0.95)
SHIFTS = ((0.95, 0.3), (0.85, 0.5))
TREE_LOADS = (32, 96)
TREE_LEVELS = (0.6, 0.8)
TREE_SPREAD = 0.35
"""Traffic of two kinds: text that is all but copied, and text that can hardly be guessed."""
BUDGETS = (2, 4, 8)
TARGET_LOADS = (8, 32, 96)
TARGET_LEVEL, TARGET_SPREAD = 0.7, 0.25
UNPROTECTED = Contender("turbospec, nobody protected", "turbospec:protect=false")
TARGETS = (*FIXED, SGLANG, PUBLISHED, UNPROTECTED, TURBOSPEC)

Entries = list[tuple[Contender, Setting]]


def main(seeds: Sequence[int], contenders: Sequence[Contender], *, quick: bool) -> Entries:
    """The grid: load x acceptance, steady and shifting."""
    loads = (1, 32) if quick else LOADS
    places: list[tuple[float, float | None]] = [
        (level, None) for level in LEVELS[:: 2 if quick else 1]
    ]
    places.extend(SHIFTS[:1] if quick else SHIFTS)
    return [
        (
            contender,
            Setting(
                load, level, contender.policy, seed, other, engine=contender.engine,
                shortened=_shortened(quick),
            ),
        )
        for load in loads
        for level, other in places
        for contender in contenders
        for seed in seeds
    ]  # fmt: skip


def trees(seeds: Sequence[int], *, quick: bool) -> Entries:
    """Global against local trees at equal budgets, and the budget that the policy chooses."""
    contenders = [
        Contender("none", "fixed_draft:0", "tree"),
        Contender("draft_tree", "draft_tree", "tree"),
    ]
    for budget in BUDGETS[1:2] if quick else BUDGETS:
        contenders.append(Contender(f"local {budget}", f"local_tree:{budget}", "tree"))
        policy = f"draft_tree:budget={budget},protect=false"
        contenders.append(Contender(f"global {budget}", policy, "tree"))
    return [
        (
            contender,
            Setting(
                load, level, contender.policy, seed, spread=TREE_SPREAD, engine="tree",
                shortened=_shortened(quick),
            ),
        )
        for load in (TREE_LOADS[1:2] if quick else TREE_LOADS)
        for level in (TREE_LEVELS[1:2] if quick else TREE_LEVELS)
        for contender in contenders
        for seed in seeds
    ]  # fmt: skip


def targets(seeds: Sequence[int], *, quick: bool) -> Entries:
    """Half the users are promised a time per token."""
    return [
        (
            contender,
            Setting(
                load, TARGET_LEVEL, contender.policy, seed, spread=TARGET_SPREAD,
                engine=contender.engine, has_targets=True, shortened=_shortened(quick),
            ),
        )
        for load in (TARGET_LOADS[1:2] if quick else TARGET_LOADS)
        for contender in TARGETS
        for seed in seeds
    ]  # fmt: skip


EMULATED_LOADS = (8, 32)
EMULATED_LEVELS = (0.3, 0.7, 0.95)
EMULATED_OUTPUT_TOKENS = 80
"""Shorter than in the simulator: a run takes as long as it says, times the scale."""
ON_EMULATED = tuple(
    msgspec.structs.replace(one, engine=EMULATED)
    for one in (*(one for one in FIXED if one.policy != "fixed_draft:10"), SGLANG, TURBOSPEC)
)


def emulated(seeds: Sequence[int], contenders: Sequence[Contender], *, quick: bool) -> Entries:
    """Tier E's grid; the policies of a cell follow one another on the same engine."""
    places: list[tuple[float, float | None]] = [(level, None) for level in EMULATED_LEVELS]
    places.append(SHIFTS[0])
    return [
        (
            contender,
            Setting(
                load, level, contender.policy, seed, other, engine=EMULATED,
                shortened=_shortened(quick), output_tokens=EMULATED_OUTPUT_TOKENS,
            ),
        )
        for load in (EMULATED_LOADS[:1] if quick else EMULATED_LOADS)
        for level, other in (places[1:2] if quick else places)
        for seed in seeds
        for contender in contenders
    ]  # fmt: skip


def _shortened(quick: bool) -> int:
    return 4 if quick else 1
