"""Draft lengths switched while a batch decodes, with acceptance as SGLang simulates it.

Dummy weights make every draft wrong. ``SGLANG_SIMULATE_ACC_LEN`` has the verification accept so
many tokens a step whatever it found; drafting and verifying cost what they cost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from governor_profiles import ProfileError

from governor_bench.gpu.figures import DraftCell, Drafts
from governor_bench.gpu.records import Record, decode_since, last_step
from governor_bench.gpu.rig import ACCEPT_TOKENS, Governed, flush
from governor_bench.gpu.stage import Context, Stage
from governor_bench.gpu.sweep import sweep
from governor_bench.load.client import LoadClient
from governor_bench.load.spec import RequestSpec
from governor_bench.profiling.draft_costs import DraftCosts
from governor_bench.profiling.point import Point

SWITCHES = 40
SWITCHED = (1, 3)
"""Lengths between which the batch goes to and fro."""
DWELL_STEPS = 10
LEAST_SWITCHES = 4
CORNERS = 6
"""Points of plain decode at the beginning of a plan, without which there is no profile."""


def run(context: Context) -> Drafts:
    """Switch a batch to and fro, then sweep over draft lengths.

    Raises:
        RuntimeError: the engine was never seen to switch.
    """
    governed, sizes = context.rig.drafting(), context.sizes
    facts = governed.facts()
    context.tell("drafts: a batch goes to and fro between lengths")
    steps = _switching(governed, sizes.draft_rows, 1.0 if context.target.device == "cuda" else 0.2)
    switches = switch_costs_us(steps, sizes.draft_rows)
    if len(switches) < LEAST_SWITCHES:
        raise RuntimeError(f"{len(switches)} switches of the draft length seen, too few")
    costs = _costs(context, governed)
    told = facts.drafting.switch_s if facts.drafting is not None else 0.0
    return Drafts(
        algorithm=facts.speculative_algorithm,
        lengths=facts.draft_lengths,
        simulated_accept_tokens=ACCEPT_TOKENS,
        seen_accept_tokens=accepted_a_row(steps, max(SWITCHED)),
        cells=tuple(
            DraftCell(
                rows,
                length,
                float(np.median([1e3 * item["latency_s"] for item in some])),
                len(some),
            )
            for (rows, length), some in _by_shape(steps)
            if rows == sizes.draft_rows
        ),
        switches=len(switches),
        switch_us=float(np.median(switches)),
        switch_p95_us=float(np.quantile(switches, 0.95)),
        told_switch_us=1e6 * told,
        draft_token_us=None if costs is None else 1e6 * costs.token_s,
        draft_step_us=None if costs is None else 1e6 * costs.step_s,
        draft_row_us=None if costs is None else 1e6 * costs.row_s,
        cost_error=None if costs is None else costs.error,
    )


def switch_costs_us(steps: Sequence[Record], rows: int) -> list[float]:
    """First step of each stretch of equal draft lengths beyond the later ones of the stretch.

    Only of stretches that follow another of the same rows, and of at least three steps.
    """
    found = []
    before: tuple[int, int] | None = None
    for key, stretch in groupby(steps, key=lambda item: (item["rows"], item["draft_length"])):
        inner = [1e6 * item["latency_s"] for item in stretch]
        followed = before is not None and before[0] == rows == key[0]
        if followed and len(inner) >= 3:
            found.append(inner[0] - float(np.median(inner[1:])))
        before = key
    return found


def accepted_a_row(steps: Sequence[Record], length: int) -> float:
    """Tokens of a row and step at a draft length: those accepted and the one beyond."""
    some = [item for item in steps if item["draft_length"] == length and item["rows"]]
    rows = sum(item["rows"] for item in some)
    return 1.0 + sum(item["accepted_tokens"] for item in some) / rows if rows else 0.0


def _by_shape(steps: Sequence[Record]) -> list[tuple[tuple[int, int], list[Record]]]:
    found: dict[tuple[int, int], list[Record]] = {}
    for item in steps:
        found.setdefault((item["rows"], item["draft_length"]), []).append(item)
    return sorted(found.items())


def _switching(governed: Governed, rows: int, haste: float) -> list[Record]:
    """Steps of a batch whose draft length changes every few of them."""
    flush(governed.engine, governed.engine.url)
    governed.controller.set_policy(f"fixed_draft:{SWITCHED[0]}")
    since = last_step(governed.controller)
    tokens = int((SWITCHES + 4) * DWELL_STEPS * (1 + max(SWITCHED)) * haste)
    specs = [RequestSpec(at, 0.0, tuple(range(3 + at, 67 + at)), tokens) for at in range(rows)]
    client = threading.Thread(target=LoadClient(governed.engine.url).run_open, args=(specs,))
    client.start()
    for number in range(int(SWITCHES * haste)):
        _wait_steps(governed, client)
        if not client.is_alive():
            break
        length = SWITCHED[(number + 1) % len(SWITCHED)]
        governed.controller.set_policy(f"fixed_draft:{length}")
    client.join()
    return decode_since(governed.controller, since)


def _wait_steps(governed: Governed, client: threading.Thread) -> None:
    """Until a few more steps have run, or the load has ended."""
    target = last_step(governed.controller) + DWELL_STEPS
    while client.is_alive() and last_step(governed.controller) < target:
        time.sleep(0.02)


def _costs(context: Context, governed: Governed) -> DraftCosts | None:
    """From a profile with drafts; none where the time was too short for one."""
    sizes = context.sizes
    flush(governed.engine, governed.engine.url)
    try:
        swept = sweep(
            governed,
            context.folder / "drafts",
            sizes.draft_sweep_s,
            rows=sizes.calibration_rows,
            context=sizes.calibration_context,
            choose=drafts_first,
            name=f"qwen3-{context.target.model}-drafts",
            tell=context.tell,
        )
    except ProfileError as error:
        context.tell(f"no costs of drafts: {error}")
        return None
    return swept.built.drafting


def drafts_first(plan: Sequence[Point]) -> list[Point]:
    """The corners, then all points of drafts."""
    return [*plan[:CORNERS], *(point for point in plan[CORNERS:] if point.kind == "draft")]


STAGE = Stage(
    "drafts",
    "draft lengths switched, and what that costs",
    lambda sizes: sizes.draft_sweep_s + 30.0,
    ("drafting",),
    run,
)
