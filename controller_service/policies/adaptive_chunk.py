"""``adaptive_chunk``: TTFT as promised, and TPOT as low as it can be.

After the poster "Adaptive Resource Allocation for Low-Latency LLM Serving" (University of Tokyo):
of all prefill budgets, the one with the lowest TPOT for which every waiting request still meets its
TTFT target. With ``S_i`` tokens to prefill up to request ``i``, which is due in ``D_i`` seconds,
that demands a rate of ``S_i / D_i`` tokens per second. The *pressure* of the queue is the largest
of these over what the engine can do at most, ``1 / token_s``; above 1, somebody is late.

*hold*   While the pressure is low, steps decode. Who waits is gathered, and shares what a step of
         prefill takes besides its tokens; and who gets its first token later is not stalled by the
         prefill of those it was gathered with. How much of the time left is counted on follows from
         how first tokens have turned out (:mod:`controller_service.prefill.leeway`).
*turns*  Below a pressure of nine tenths, and for those who are late already, a step of prefill is
         followed by one of decode.
*order*  The engine's own while that is in good time for everybody, else earliest deadline first,
         with hits of the prefix cache counted as done. Who is due earlier then passes a long prompt
         in the middle of its prefill. Whoever cannot be in time any more comes after those who can
         (:mod:`controller_service.prefill.line`).
*slack*  A chunk stalls those who decode, and whoever comes while it runs. It leaves the ones half
         of what they can spare of their TPOT targets, if that is worth a step of its own, and takes
         a third of the others' TTFT, unless first tokens would be late for that: a pace can be won
         back, and a first token cannot.

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
from controller_service.prefill.room import fits
from controller_service.prefill.stalls import Stalls
from controller_service.state import StepState

TRIED = 16
"""Waiting requests after whose prompt a chunk may end without cutting the next."""
SPREAD = 6
"""Budgets from what is easy to what all who wait need that are tried besides."""
SPARE_FOR_NEWCOMERS = 0.7
"""Of the time left, share within which everybody is prefilled if it can be done: others will come,
whom nobody knows of."""
PRESSING = 0.9
"""Pressure from which on one step of prefill follows another, and those who decode wait."""
SOON_S = 1e-3


class AdaptiveChunkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pressure: Annotated[float, Meta(ge=0, le=1)] = 0.3
    """Share of what the engine can prefill from which on it does; 0: whenever anybody waits."""
    margin: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    """Share of a TTFT target that is kept back."""
    tpot_margin: Annotated[float, Meta(ge=0, lt=1)] = 0.03
    """Share of a TPOT target that is kept back."""
    stall: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """Share of what those who decode can spare that one chunk may take."""
    reach: Annotated[float, Meta(gt=0, le=1)] = 0.35
    """Share of the tightest TTFT target that one step may take: who comes while it runs waits."""
    least_tokens: Annotated[int, Meta(ge=1, le=1 << 20)] = 512
    """No chunk is smaller than this for the sake of those who decode."""
    overhead: Annotated[float, Meta(gt=0, le=1)] = 0.02
    """No chunk is so small that its step spends more than this share on other things than tokens,
    where prefill and decode take turns: that time is lost to everybody, and most of all to those
    who decode."""
    untold_ms: Annotated[float, Meta(gt=0, le=1e7)] = 1000.0
    """A request that was promised nothing is ordered as if it were promised this, and not held."""
    patience: Annotated[float, Meta(ge=1, le=1000)] = 8.0
    """A request that has waited for this many times its target goes first at some steps."""
    turn: Annotated[int, Meta(ge=1, le=1024)] = 8
    """One step in so many lets requests go first that have waited too long (``patience``)."""


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
    token_s, start_s = cost.token_s(), cost.start_s
    easy = _easy(state, cost, stalls, config)
    if not queue.waiting:
        # Whoever comes now is looked at before the next step.
        return PrefillPlan(0 if config.pressure else easy, late_tokens=easy)
    fitting = fits(state, queue)
    line = line_up(queue, fitting, token_s, start_s, config.margin, config.untold_ms / 1e3)
    aged = _aged(queue, config, state.for_step)
    if aged.size:
        order = np.concatenate([aged, line.order[~np.isin(line.order, aged)]])
        return _go(queue, order, easy, easy, cost)
    pressure = _pressure(line, token_s, start_s, cost.decode_s)
    is_held = not line.given_up and not (_untold(queue) | _branches(queue))[fitting].any()
    is_held &= pressure < config.pressure * queue.leeway
    is_their_turn = bool(queue.in_a_row) and pressure < PRESSING * queue.leeway
    if not line.tokens or is_held or (is_their_turn and not queue.mixes_chunks):
        return PrefillPlan(0, late_tokens=easy)
    return _go(queue, line.order, _budget(line, cost, stalls, easy), easy, cost)


def _easy(state: StepState, cost: ChunkCost, stalls: Stalls, config: AdaptiveChunkConfig) -> int:
    """Tokens of a chunk that hurts neither those who decode nor those who may come meanwhile."""
    least = config.least_tokens
    if not cost.queue.mixes_chunks:
        least = max(least, int(cost.start_s / (config.overhead * cost.token_s())))
    decoding = cost.most_within(config.stall * stalls.least_s, least)
    coming = cost.most_within(config.reach * _tightest_s(state, cost.queue), config.least_tokens)
    return min(decoding, coming)


def _tightest_s(state: StepState, queue: PrefillState) -> float:
    """The tightest TTFT target of those who wait and of those who run: of who is likely to come."""
    told = np.concatenate([queue.ttft_slo_s, state.ttft_slo_s])
    return float(np.fmin.reduce(told, initial=MAX_DURATION_S))


def _nobody_decodes(
    queue: PrefillState, cost: ChunkCost, config: AdaptiveChunkConfig
) -> PrefillPlan:
    most = queue.most_tokens
    if not queue.waiting:
        return PrefillPlan(most, late_tokens=most)
    everybody = np.ones(queue.waiting, dtype=np.bool_)
    line = line_up(
        queue, everybody, cost.token_s(), cost.start_s, config.margin, config.untold_ms / 1e3
    )
    return _go(queue, line.order, most, most, cost)


def _pressure(line: Line, token_s: float, start_s: float, decode_s: float) -> float:
    """Of those who can be in time, if one more step decodes before they are prefilled."""
    some = line.in_time
    left_s = np.maximum(line.due_s[:some] - line.kept_back_s[:some] - decode_s, SOON_S)
    needed_s = line.work_tokens[:some] * token_s + start_s
    # NOTE: fmax passes over a NaN that a peer put into a column.
    return float(np.fmax.reduce(needed_s / left_s, initial=0.0))


def _untold(queue: PrefillState) -> Mask:
    """Who was promised nothing."""
    untold: Mask = queue.ttft_slo_s >= MAX_DURATION_S
    return untold


def _branches(queue: PrefillState) -> Mask:
    """Rows of a request that branches. SGLang sends them only after it has prefilled their prompt
    once, so their client has waited for longer than they have, and their siblings may already be
    decoding: their request's pace needs all of them."""
    branches: Mask = queue.group_id != 0
    return branches


def _aged(queue: PrefillState, config: AdaptiveChunkConfig, step: int) -> Index:
    """Who has waited for far too long, longest first, if it is their turn."""
    if step % config.turn:
        return np.zeros(0, dtype=np.intp)
    promised = np.where(_untold(queue), config.untold_ms / 1e3, queue.ttft_slo_s)
    aged = np.flatnonzero(queue.age_s > config.patience * promised)
    longest: Index = aged[(-queue.age_s[aged]).argsort(kind="stable")]
    return longest


def _budget(line: Line, cost: ChunkCost, stalls: Stalls, easy: int) -> int:
    """Tokens by which the fewest first tokens are late, and then the fewest requests hurt.

    Whoever is prefilled in a step has its first token at the end of it, so one that takes in more
    is later for all in it. Of budgets alike, those within ``easy`` come first, and of these the one
    after which all who wait are done soonest.
    """
    most = min(line.tokens, cost.queue.most_tokens)
    whole = line.work_tokens[:TRIED]
    spread = np.linspace(min(easy, most), most, SPREAD)
    sizes = np.concatenate([whole[whole <= most], spread]).astype(np.int64)
    tried = np.unique(sizes).astype(np.float64)
    stall_s = cost.stall_s(tried)
    step_s = stall_s + cost.decode_s
    done_s = np.ceil(line.tokens / tried) * step_s
    order = np.lexsort(
        (
            np.where(tried > easy, tried, done_s),
            tried > easy,
            stalls.hurt(stall_s),
            _missed(line, tried, step_s, SPARE_FOR_NEWCOMERS),
            _missed(line, tried, step_s, 1.0),
        )
    )
    return int(tried[order[0]])


def _missed(line: Line, tokens: Floats, step_s: Floats, share: float) -> Floats:
    """How many of those who can be in time would not be with such budgets, shape of ``tokens``.

    Args:
        share: of the time left that they may take.
    """
    work = line.work_tokens[: line.in_time]
    due = (line.due_s - line.kept_back_s * (share < 1.0))[: line.in_time] * share
    late = np.ceil(work / tokens[:, None]) * step_s[:, None] > due
    counts: Floats = np.count_nonzero(late, axis=1).astype(np.float64)
    return counts


def _go(
    queue: PrefillState, order: Index, tokens: int, late_tokens: int, cost: ChunkCost
) -> PrefillPlan:
    """Prefill ``tokens``, in this order."""
    work = pages(queue)[order].cumsum()
    started = queue.started
    place = int(np.flatnonzero(order == started)[0]) if started >= 0 else 0
    if place and work[0] <= queue.most_tokens:
        # Those before it pass, as far as they fit whole: two prompts cannot both be cut.
        some = max(1, int(work[:place].searchsorted(max(tokens, work[0]), side="right")))
        first, tokens = np.append(order[:some], started), int(work[some - 1])
    else:
        if place:
            order = np.concatenate([[started], order[order != started]])
            work = pages(queue)[order].cumsum()
        first = order[: int(work.searchsorted(tokens, side="left")) + 1]
    tokens = min(tokens, queue.most_tokens)
    held = min(tokens, int(work[-1]))
    return PrefillPlan(
        tokens,
        first,
        late_tokens,
        predicted_step_s=float(cost.step_s(float(held))),
        riding_tokens=held if queue.mixes_chunks else 0,
    )


ADAPTIVE_CHUNK = PolicyKind(
    "adaptive_chunk",
    decide,
    AdaptiveChunkConfig,
    usage="adaptive_chunk:pressure=0.7",
    summary="the prefill that TTFT targets need, when it costs those who decode least",
    knob=Knob.PREFILL,
)
