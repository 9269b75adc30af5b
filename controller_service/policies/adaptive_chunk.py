"""``adaptive_chunk``: TTFT as promised, and TPOT as low as it can be.

After the poster "Adaptive Resource Allocation for Low-Latency LLM Serving" (University of Tokyo):
of all prefill budgets, the one with the lowest TPOT for which every waiting request still meets its
TTFT target. With ``S_i`` tokens to prefill up to request ``i``, which is due in ``D_i`` seconds,
that demands a rate of ``S_i / D_i`` tokens per second. The *pressure* of the queue is the largest
of these over what the engine can do at most, ``1 / token_s``; above 1, somebody is late.

*hold*   While the pressure is low, steps decode. Who waits is gathered, and shares what a step of
         prefill takes besides its tokens; and who gets its first token later is not stalled by the
         prefill of those it was gathered with. What is kept free by a pressure below 1 is there for
         who comes next.
*turns*  Below a pressure of nine tenths, and for those who are late already, a step of prefill is
         followed by one of decode.
*order*  Earliest deadline first, with hits of the prefix cache counted as done. Who is due earlier
         passes a long prompt in the middle of its prefill. Whoever cannot be in time any more comes
         after those who can (:mod:`controller_service.prefill.line`).
*slack*  A chunk stalls those who decode. It is no longer than leaves them half of what they can
         spare of their TPOT targets, unless more promises are kept by a longer one.

Nobody starves: at one step in ``turn``, whoever has waited ``patience`` times its target is first.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from governor_protos.limits import MAX_DURATION_S
from msgspec import Meta

from controller_service.columns import Mask
from controller_service.groups import Index
from controller_service.policies.base import Knob, PolicyKind, PrefillPlan, StepPlan
from controller_service.predictors.base import Floats, StepLatencyPredictor
from controller_service.prefill.cost import ChunkCost
from controller_service.prefill.line import Line, line_up, pages
from controller_service.prefill.queue import PrefillState
from controller_service.prefill.stalls import Stalls
from controller_service.state import StepState

TRIED = 8
"""Chunks between the one that leaves slack and the one that holds all who wait."""
PRESSING = 0.9
"""Pressure from which on one step of prefill follows another, and those who decode wait."""
SOON_S = 1e-3


class AdaptiveChunkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pressure: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Share of what the engine can prefill from which on it does; 0: whenever anybody waits."""
    margin: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    """Share of a TTFT target that is kept back."""
    tpot_margin: Annotated[float, Meta(ge=0, lt=1)] = 0.03
    """Likewise of a TPOT target."""
    stall: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """Share of what those who decode can spare that one chunk may take."""
    least_tokens: Annotated[int, Meta(ge=1, le=1 << 20)] = 512
    """No chunk is smaller than this for the sake of those who decode."""
    untold_ms: Annotated[float, Meta(gt=0, le=1e7)] = 1000.0
    """A request that was promised nothing is ordered as if it were promised this, and not held."""
    patience: Annotated[float, Meta(ge=1, le=1000)] = 8.0
    turn: Annotated[int, Meta(ge=1, le=1024)] = 8


def decide(
    state: StepState, predictor: StepLatencyPredictor, config: AdaptiveChunkConfig, plan: StepPlan
) -> PrefillPlan:
    queue = state.prefill
    if queue is None or not predictor.fitted:
        return PrefillPlan()
    cost = ChunkCost.of(state, queue, predictor, plan.park & state.parkable)
    if not cost.rows:
        return _nobody_decodes(queue, cost, config)
    stalls = Stalls.of(state, cost.decode_s, config.tpot_margin)
    easy = cost.most_within(config.stall * stalls.least_s, config.least_tokens)
    if not queue.waiting:
        # Whoever comes now is looked at before the next step.
        return PrefillPlan(0 if config.pressure else easy, late_tokens=easy)
    token_s, start_s = cost.token_s(), cost.start_s
    line = line_up(queue, token_s, start_s, config.margin, config.untold_ms / 1e3)
    aged = _aged(queue, config, state.for_step)
    pressure = _pressure(line, token_s, start_s, cost.decode_s)
    is_held = pressure < config.pressure and not line.given_up and not _untold(queue).any()
    is_their_turn = bool(queue.in_a_row) and pressure < PRESSING and not queue.mixes_chunks
    if not aged.size and (is_held or is_their_turn):
        return PrefillPlan(0, late_tokens=easy)
    tokens = _budget(line, cost, stalls, easy)
    order = line.order
    if aged.size:
        order = np.concatenate([aged, order[~np.isin(order, aged)]])
    return _go(queue, order, tokens, easy)


def _nobody_decodes(
    queue: PrefillState, cost: ChunkCost, config: AdaptiveChunkConfig
) -> PrefillPlan:
    most = queue.most_tokens
    if not queue.waiting:
        return PrefillPlan(most, late_tokens=most)
    line = line_up(queue, cost.token_s(), cost.start_s, config.margin, config.untold_ms / 1e3)
    return _go(queue, line.order, most, most)


def _pressure(line: Line, token_s: float, start_s: float, decode_s: float) -> float:
    """Of those who can be in time, if one more step decodes before they are prefilled."""
    kept = len(line.order) - line.given_up
    left_s = np.maximum(line.due_s[:kept] - line.kept_back_s[:kept] - decode_s, SOON_S)
    needed_s = line.work_tokens[:kept] * token_s + start_s
    # NOTE: fmax passes over a NaN that a peer put into a column.
    return float(np.fmax.reduce(needed_s / left_s, initial=0.0))


def _untold(queue: PrefillState) -> Mask:
    """Who was promised nothing."""
    untold: Mask = queue.ttft_slo_s >= MAX_DURATION_S
    return untold


def _aged(queue: PrefillState, config: AdaptiveChunkConfig, step: int) -> Index:
    """Who has waited for far too long, longest first, if it is their turn."""
    if step % config.turn:
        return np.zeros(0, dtype=np.intp)
    promised = np.where(_untold(queue), config.untold_ms / 1e3, queue.ttft_slo_s)
    aged = np.flatnonzero(queue.age_s > config.patience * promised)
    longest: Index = aged[(-queue.age_s[aged]).argsort(kind="stable")]
    return longest


def _budget(line: Line, cost: ChunkCost, stalls: Stalls, easy: int) -> int:
    """Tokens that keep most promises; of those alike, what stalls least beyond ``easy``."""
    wanted = min(line.tokens, cost.queue.most_tokens)
    if wanted <= easy:
        return wanted
    tried = np.linspace(easy, wanted, TRIED)
    stall_s = cost.stall_s(tried)
    kept = len(line.order) - line.given_up
    missed = _missed(line, kept, tried / (stall_s + cost.decode_s))
    return int(tried[np.argmin(missed + stalls.hurt(stall_s))])


def _missed(line: Line, kept: int, rate: Floats) -> Floats:
    """How many of the first ``kept`` would be late at each rate, in tokens per second."""
    late = line.work_tokens[:kept] > rate[:, None] * line.due_s[:kept]
    counts: Floats = np.count_nonzero(late, axis=1).astype(np.float64)
    return counts


def _go(queue: PrefillState, order: Index, tokens: int, easy: int) -> PrefillPlan:
    """Prefill ``tokens``, in this order."""
    missing = pages(queue)[order]
    work = missing.cumsum()
    started = queue.started
    place = int(np.flatnonzero(order == started)[0]) if started >= 0 else 0
    if place and missing[0] <= queue.most_tokens:
        # Those before it pass, as far as they fit whole: two prompts cannot both be cut.
        whole = max(1, int(work[:place].searchsorted(max(tokens, missing[0]), side="right")))
        passing = order[:whole]
        return _plan(queue, np.append(passing, started), int(work[whole - 1]), easy)
    if place:
        order = np.concatenate([[started], order[order != started]])
        work = pages(queue)[order].cumsum()
    some = int(work.searchsorted(tokens, side="left")) + 1
    return _plan(queue, order[:some], tokens, easy)


def _plan(queue: PrefillState, first: Index, tokens: int, easy: int) -> PrefillPlan:
    tokens = min(tokens, queue.most_tokens)
    riding = min(tokens, int(pages(queue).sum())) if queue.mixes_chunks else 0
    return PrefillPlan(tokens, first, late_tokens=easy, riding_tokens=riding)


ADAPTIVE_CHUNK = PolicyKind(
    "adaptive_chunk",
    decide,
    AdaptiveChunkConfig,
    usage="adaptive_chunk:pressure=0.7",
    summary="the prefill that TTFT targets need, when it costs those who decode least",
    knob=Knob.PREFILL,
)
