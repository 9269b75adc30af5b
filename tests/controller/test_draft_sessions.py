"""A session with an engine that speculates: what it learns, and what its decisions say."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from controller_builders import feedback_of, fitted_line, hello_of, rows_of, serial
from governor_protos import decode_to_engine
from governor_protos.limits import MAX_DURATION_S
from governor_protos.messages import Decision, Rows, Snapshot, StepFeedback
from speculation_builders import LENGTHS, drafting_hello

from controller_service.learning.acceptance import AcceptanceModel
from controller_service.policies.registry import parse_policy
from controller_service.prefill_share import PrefillShare
from controller_service.session import EngineSession

LINE = (0.016, 6e-5, 5e-8)
DRAFT_STEP_S = 1e-3


class Engine:
    """Rows of one acceptance, whose steps take what a line says and a millisecond a draft step."""

    def __init__(self, chance: float, rows: int = 16, **drafting: object) -> None:
        self.session = EngineSession(drafting_hello(**drafting), fitted_line(*LINE), 4)
        self._chance, self._count = chance, rows
        self._rng = np.random.default_rng(4)
        self._totals = np.zeros((3, rows), dtype=int)
        self._step = 0
        self._feedback: list[StepFeedback] = []

    def rows(self) -> Rows:
        output, drafted, accepted = self._totals
        return rows_of(
            [
                serial(
                    request_id=index + 1,
                    output_tokens=int(output[index]),
                    draft_tokens=int(drafted[index]),
                    accepted_tokens=int(accepted[index]),
                    tpot_slo_s=MAX_DURATION_S,
                )
                for index in range(self._count)
            ]
        )

    def step(self, policy: str) -> Decision:
        """Ask, and do as one is told."""
        self._step += 1
        snapshot = Snapshot(self._step, self.rows(), 0, 1 << 20, 0, 0, self._feedback, 0)
        decision = decode_to_engine(self.session.decide(snapshot, parse_policy(policy)))
        self.session.settle(snapshot, float(self._step))
        assert isinstance(decision, Decision)
        length = max(decision.draft_length, 0)
        caps = np.full(self._count, length)
        if decision.caps:
            ids = np.frombuffer(decision.capped, "<u4")
            caps[ids - 1] = np.frombuffer(decision.caps, "u1")
        right = self._rng.random((self._count, 8)) < self._chance
        accepted = np.minimum(right.cumprod(axis=1).sum(axis=1), caps)
        self._totals += [1 + accepted, caps, accepted]
        fixed, per_row, per_token = LINE
        tokens = self._count + int(caps.sum())
        seconds = fixed + per_row * tokens + per_token * 1000 + length * DRAFT_STEP_S
        self._feedback = [
            feedback_of(
                self._step, self._count, 1000, latency_s=seconds, draft_tokens=int(caps.sum()),
                accepted_tokens=int(accepted.sum()), draft_length=length,
            )
        ]  # fmt: skip
        return decision


@pytest.mark.parametrize(("chance", "drafts"), [(0.95, True), (0.03, False)])
def test_it_comes_to_draft_what_pays(chance: float, drafts: bool) -> None:
    engine = Engine(chance, rows=64)
    lengths = [engine.step("turbospec").draft_length for _ in range(120)]
    assert set(lengths) <= set(LENGTHS)
    assert bool(np.mean(lengths[-40:]) > 3) is drafts


def test_what_drafting_costs_is_learnt_and_not_put_down_to_the_rows() -> None:
    engine = Engine(0.6)
    for number in range(200):
        engine.step(f"fixed_draft:{LENGTHS[number % len(LENGTHS)]}")
    state = engine.session._drafts.state(Snapshot(999, engine.rows(), 0, 9, 0, 0, [], 0))
    assert state.drafting_s(7, 16, 7 * 16) == pytest.approx(7 * DRAFT_STEP_S, rel=0.3)
    predicted = engine.session.predictor.predict(16.0, 1000.0, 0.0, 48.0)
    assert predicted == pytest.approx(LINE[0] + LINE[1] * 64 + LINE[2] * 1000, rel=0.1)
    assert np.median(list(engine.session.errors)[-50:]) < 0.05, "the two together are the step"


def test_a_late_decision_keeps_the_newest_length() -> None:
    engine = Engine(0.9)
    decision = engine.step("fixed_draft:5")
    assert decision.draft_length == 5
    assert {band.draft_tokens for band in decision.orders} == {5}
    decision = engine.step("taper")
    assert decision.draft_length == -1
    assert {band.draft_tokens for band in decision.orders} == {-1}


def test_an_engine_that_cannot_be_told_is_told_nothing() -> None:
    plain = msgspec.structs.replace(drafting_hello(), knobs=["branches"])
    for hello in (hello_of(), plain):
        session = EngineSession(hello, fitted_line(*LINE), 4)
        snapshot = Snapshot(1, rows_of([serial(), serial()]), 0, 1 << 20, 0, 0, [], 0)
        decision = decode_to_engine(session.decide(snapshot, parse_policy("turbospec")))
        assert isinstance(decision, Decision)
        assert decision.draft_length == -1
        assert (decision.capped, decision.caps, decision.draft_budget) == (b"", b"", -1)


def test_caps_name_rows_that_have_fewer_and_no_others() -> None:
    engine = Engine(0.9)
    for _ in range(40):
        decision = engine.step("turbospec")
    caps = np.frombuffer(decision.caps, "u1")
    assert np.all(caps < decision.draft_length)
    assert len(caps) == len(np.frombuffer(decision.capped, "<u4"))


def test_a_budget_goes_to_an_engine_that_takes_one() -> None:
    engine = Engine(0.9, width=3, most_tokens=16, takes_budget=True)
    budgets = [engine.step("draft_tree").draft_budget for _ in range(20)]
    assert max(budgets) > 0


def test_held_plans_draft_anew_at_every_step() -> None:
    session = EngineSession(drafting_hello(), fitted_line(*LINE), 4, replan_steps=8)
    rows = rows_of([serial(request_id=n + 1) for n in range(4)])
    for step in range(1, 6):
        snapshot = Snapshot(step, rows, 0, 1 << 20, 0, 0, [], 0)
        decision = decode_to_engine(session.decide(snapshot, parse_policy("taper+fixed_draft:3")))
        assert isinstance(decision, Decision)
        assert decision.draft_length == 3


def test_prefill_is_shared_by_all_tokens_of_a_step() -> None:
    alone, with_drafts = PrefillShare(), PrefillShare()
    for share, accepted in ((alone, 0), (with_drafts, 8)):
        share.add(feedback_of(1, rows=8, accepted_tokens=accepted))
        share.add(feedback_of(2, kind=1, latency_s=0.1))
    assert alone.per_token_s == pytest.approx(2 * with_drafts.per_token_s)


@pytest.mark.parametrize("chance", [0.3, 0.6, 0.9])
def test_a_prior_of_earlier_requests_is_where_acceptance_starts(chance: float) -> None:
    """Its mean is of all draft tokens, of drafts of half the longest length."""
    share = float(np.mean([chance**place for place in (1, 2, 3)]))
    model = AcceptanceModel(50 * share, 50 * (1 - share))
    session = EngineSession(drafting_hello(), fitted_line(*LINE), 4, acceptance=model)
    assert session._drafts.mean_acceptance == pytest.approx(chance, abs=0.02)
