"""Which runs tier C is made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import msgspec

from governor_bench.eval.speculation.baselines import Table
from governor_bench.eval.speculation.plan import (
    CANDIDATES,
    FIXED,
    PORTABLE,
    SGLANG,
    TURBOSPEC,
    Contender,
    Entries,
)
from governor_bench.eval.speculation.setting import CPU, Setting

LENGTHS = (0, 1, 3, 5, 7)
LOADS = (1, 4, 16)
PLACES = ((1.0, None), (0.0, None), (0.0, 1.0))
"""Share of the requests whose text is drafted well, and that of the first half if it is another."""
MOST_PROMPTS, QUICK_PROMPTS = 160, 32
"""Of each origin, from which texts are taken."""
PILOT_SEED = 0

QUICK_SHORTENED = 3
NOT_IN_QUICK = ("fixed_draft:5", "fixed_draft:7", "turbospec:per_request=false")
FIXED_ON_CPU = tuple(
    msgspec.structs.replace(one, engine=CPU)
    for one in FIXED
    if one.policy in {f"fixed_draft:{length}" for length in LENGTHS}
)
OWN_RULE = Contender(SGLANG.name, "eager", CPU, note="the engine's own rule: nothing is decided")
ONE_LENGTH = Contender(
    PORTABLE.name, "turbospec:per_request=false", CPU, note="all rows the same draft"
)
PILOT = FIXED_ON_CPU
CONTENDERS = (
    *FIXED_ON_CPU,
    OWN_RULE,
    msgspec.structs.replace(CANDIDATES, engine=CPU),
    ONE_LENGTH,
    msgspec.structs.replace(TURBOSPEC, engine=CPU),
)


TREE_LOADS = (4, 16)
TREE_LEVEL = 0.5
"""Traffic of two kinds, so that it matters which rows get the nodes."""
TREE_BUDGETS = (2, 4)
TREES = (
    Contender("none", "fixed_draft:0", CPU),
    Contender("draft_tree", "draft_tree", CPU),
    *(
        Contender(name, policy, CPU)
        for budget in TREE_BUDGETS
        for name, policy in (
            (f"local {budget}", f"local_tree:{budget}"),
            (f"global {budget}", f"draft_tree:budget={budget},protect=false"),
        )
    ),
)


def turn(seed: int, contenders: Sequence[Contender], *, quick: bool) -> Entries:
    """One run of each contender in each cell, one after the other with the same requests. The order
    rotates from turn to turn, so that no policy always follows the same one."""
    run = [one for one in contenders if not quick or one.policy not in NOT_IN_QUICK]
    first = seed % len(run)
    rotated = (*run[first:], *run[:first])
    return [
        (
            contender,
            Setting(
                load, level, contender.policy, seed, other, engine=CPU,
                shortened=QUICK_SHORTENED if quick else 1,
            ),
        )
        for load in (LOADS[1:2] if quick else LOADS)
        for level, other in (PLACES[:2] if quick else PLACES)
        for contender in rotated
    ]  # fmt: skip


def pilot(*, quick: bool) -> Entries:
    """Runs in steady cells, from which the table is tuned and which no figure comes from."""
    entries = turn(PILOT_SEED, PILOT, quick=quick)
    return [(one, setting) for one, setting in entries if setting.other_level is None]


def trees(seed: int) -> Entries:
    """Likewise of an engine with trees."""
    first = seed % len(TREES)
    return [
        (contender, Setting(load, TREE_LEVEL, contender.policy, seed, engine=CPU))
        for load in TREE_LOADS
        for contender in (*TREES[first:], *TREES[:first])
    ]


def by_rows(table: Table) -> Table:
    """A table of loads as one of batch sizes: some users' requests are not in the batch, so that a
    length counts from halfway between two loads on (geometric mean)."""
    loads = sorted(table.by_load)
    starts = [1, *(math.ceil(math.sqrt(a * b)) for a, b in itertools.pairwise(loads))]
    return Table({start: table.by_load[load] for start, load in zip(starts, loads, strict=True)})
