"""From measured steps to a portable :class:`~governor_profiles.StepProfile`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from governor_profiles import Bends, Grid, ProfileError, StepProfile

from governor_bench.profiling.cells import Cell, cells_of
from governor_bench.profiling.draft_costs import DraftCosts, draft_costs
from governor_bench.profiling.engine import EngineFacts
from governor_bench.profiling.nonnegative import relative_fit
from governor_bench.profiling.point import Point
from governor_bench.profiling.steps import DECODE, Step
from governor_bench.profiling.surface import Surface, held_out_error

LEAST_PREFILL_TOKENS = 64
LEAST_FIXED_S = 1e-6


class Measured(msgspec.Struct, frozen=True):
    """A finished point and the steps that measure it."""

    point: Point
    steps: list[Step]
    spent_s: float = 0.0


class Built(NamedTuple):
    """What became of the measurements."""

    profile: StepProfile
    drafting: DraftCosts | None
    """None where drafting was not measured."""


def build_profile(facts: EngineFacts, measured: Sequence[Measured], name: str, when: str) -> Built:
    """The profile of an engine.

    Args:
        when: date of the measurement, for the profile's ``source``.

    Raises:
        ProfileError: too little was measured.
    """
    cells = [cell for item in measured for cell in decode_cells(item)]
    try:
        surface = Surface(cells, facts.graph_rows, facts.max_total_tokens)
    except ValueError as error:
        raise ProfileError(f"profile {name}: {error}") from None
    fixed_s, row_s, context_token_s = _line(cells)
    rows, contexts, seconds = surface.table()
    prefill_s, prefills = _prefill_token_s(measured, surface)
    off = held_out_error(cells, facts.graph_rows, facts.max_total_tokens)
    drafting = draft_costs([cells_of_drafts(item) for item in measured], surface, row_s)
    profile = StepProfile(
        name=name[:100],
        source=_source(facts, cells, prefills, drafting, when)[:2000],
        measured=True,
        fixed_s=max(fixed_s, LEAST_FIXED_S),
        row_s=row_s,
        context_token_s=context_token_s,
        prefill_token_s=prefill_s,
        draft_token_s=row_s if drafting is None else drafting.token_s,
        draft_step_s=0.0 if drafting is None else drafting.step_s,
        draft_row_s=0.0 if drafting is None else drafting.row_s,
        kv_tokens=facts.max_total_tokens,
        error_pct=min(100.0, round(100.0 * off, 2)),
        grid=Grid(
            rows=rows,
            context_tokens=contexts,
            seconds=[[round(float(value), 9) for value in line] for line in seconds],
        ),
        bends=Bends(graph_rows=facts.graph_rows) if facts.graph_rows else None,
    )
    return Built(profile, drafting)


def decode_cells(item: Measured) -> list[Cell]:
    """Cells of steps without drafts."""
    if item.point.kind == "prefill":
        return []
    return [cell for cell in cells_of(item.point, item.steps) if not cell.draft_length]


def cells_of_drafts(item: Measured) -> list[Cell]:
    """Cells of a batch that went through draft lengths; none of another point."""
    return cells_of(item.point, item.steps) if item.point.kind == "draft" else []


def _line(cells: Sequence[Cell]) -> tuple[float, float, float]:
    """The straight line of least relative error; what lies outside the grid follows its slopes."""
    times = np.array([cell.step_s for cell in cells])
    columns = np.array([(1.0, cell.rows, cell.context_tokens) for cell in cells])
    fixed_s, row_s, token_s = map(float, relative_fit(columns, times))
    return fixed_s, row_s, token_s


def _prefill_token_s(measured: Sequence[Measured], surface: Surface) -> tuple[float, int]:
    """Time of a prefilled token beyond the decode step around it: weighted median; and of how many
    steps."""
    steps = [
        step
        for item in measured
        for step in item.steps
        if step.kind != DECODE and step.prefill_tokens >= LEAST_PREFILL_TOKENS
    ]
    if not steps:
        return 0.0, 0
    rows = np.array([float(surface.padded(step.rows)) for step in steps])
    around_s = surface.step_s(rows, np.array([float(step.context_tokens) for step in steps]))
    tokens = np.array([float(step.prefill_tokens) for step in steps])
    per_token_s = (np.array([step.latency_s for step in steps]) - around_s) / tokens
    order = np.argsort(per_token_s)
    share = np.cumsum(tokens[order]) / tokens.sum()
    median = float(per_token_s[order][np.searchsorted(share, 0.5)])
    return max(0.0, median), len(steps)


def _source(
    facts: EngineFacts,
    cells: Sequence[Cell],
    prefills: int,
    drafting: DraftCosts | None,
    when: str,
) -> str:
    steps = sum(cell.steps for cell in cells)
    prefill = (
        f"Prefill: median of {prefills} steps, less the decode step of their rows."
        if prefills
        else "Prefill: not measured, 0."
    )
    device = facts.device or "device unknown"
    return (
        f"Measured by 'governor profile' on {when}: {facts.model}, {device}"
        f", SGLang {facts.sglang_version}, tensor parallel {facts.tp_size}. Grid: {len(cells)} "
        f"cells, medians of {steps} decode steps, fitted as a monotone function of rows plus one "
        f"of context with a local correction; error_pct is its mean error on cells left out of "
        f"the fit, sizes left out whole for their share. {prefill} {_drafting(facts, drafting)}"
    )


def _drafting(facts: EngineFacts, costs: DraftCosts | None) -> str:
    if costs is None:
        return "Draft token: not measured, assumed to cost as much as a row."
    worst = costs.worst
    return (
        f"Drafting ({facts.speculative_algorithm or 'drafts'}): {costs.cells} medians of batches "
        f"of {costs.sizes} sizes that went through the engine's draft lengths; mean error on "
        f"sizes left out of the fit {costs.error_text}, largest of those in it "
        f"{100 * abs(costs.worst_error):.1f} % ({worst.rows} rows, {worst.draft_length} drafts). "
        "Where all rows draft alike a verified token cannot be told from a row in a draft step: "
        "the token is taken to cost what a row does at most."
    )
