"""What drafting costs, told from what verifying costs."""

from __future__ import annotations

import numpy as np
import pytest
from controller_builders import KnownPredictor

from controller_service.speculation.cost import MODEL_SHARE, DraftCost

LENGTHS = (0, 1, 3, 7)
PREDICTOR = KnownPredictor(0.016, 6e-5, 5e-8)
ROW_S = 4e-4
SMALL = KnownPredictor(0.007, ROW_S, 0.0)
TOKEN_S = 2e-5
"""Of a draft token that the small model verifies: far less than of a row."""


def step_s(rows: int, context: int, drafts: int, length: int) -> float:
    return 0.016 + 6e-5 * (rows + drafts) + 5e-8 * context + length * (8e-4 + 4e-6 * rows)


def learnt(lengths: tuple[int, ...], *, noise: float = 0.01, steps: int = 400) -> DraftCost:
    cost, rng = DraftCost(LENGTHS, is_model=True), np.random.default_rng(2)
    for _ in range(steps):
        rows = int(rng.integers(1, 128))
        length = int(rng.choice(lengths))
        drafts = int(rng.integers(0, rows * length + 1))
        seconds = step_s(rows, 300 * rows, drafts, length) * rng.normal(1.0, noise)
        cost.observe(rows, 300 * rows, drafts, length, seconds)
        cost.refit(PREDICTOR)
    return cost


def test_draft_steps_get_a_price_of_their_own() -> None:
    cost = learnt(LENGTHS)
    for rows in (4, 64):
        for length in (1, 7):
            true_s = length * (8e-4 + 4e-6 * rows)
            assert cost.known.seconds(length, rows, length * rows) == pytest.approx(true_s, rel=0.2)


def test_a_wider_verification_is_not_put_down_to_looking_text_up() -> None:
    cost, rng = DraftCost(LENGTHS, is_model=False), np.random.default_rng(2)
    for _ in range(200):
        rows, length = int(rng.integers(1, 32)), int(rng.choice(LENGTHS))
        seconds = (0.016 + 2e-4 * rows * (1 + length)) * rng.normal(1.0, 0.01)
        cost.observe(rows, 1000, rows * length, length, seconds)
        cost.refit(PREDICTOR)
    assert cost.known.seconds(7, 16, 0) < 0.05 * 2e-4 * 16 * 7


def test_a_single_length_leaves_it_near_what_is_usual() -> None:
    cost = learnt((3,), noise=0.0)
    assert 0.2 * MODEL_SHARE < cost.known.step_s / 0.016 < 3 * MODEL_SHARE


def small_model_s(rows: int, drafts: int, length: int) -> float:
    """A head that costs half of what its model does, and verification that is nearly free."""
    drafting_s = 1e-3 * (length > 0) + length * (8e-4 + 2e-4 * rows)
    return 0.007 + ROW_S * rows + TOKEN_S * drafts + drafting_s


def step_in(cost: DraftCost, rows: int, drafts: int, length: int) -> float:
    """What a step of the small model is predicted to take."""
    verify_s = SMALL.predict(float(rows), 0.0, 0.0, float(drafts))
    return verify_s + cost.known.seconds(length, rows, drafts)


def test_a_head_of_a_small_model_is_not_taken_for_a_dear_verification() -> None:
    """Steps with fewer draft tokens than were drafted tell the two apart; that is still known after
    many that verify all."""
    cost, rng = DraftCost(LENGTHS, is_model=True), np.random.default_rng(2)

    def run(share: float, steps: int) -> None:
        for _ in range(steps):
            rows, length = int(rng.integers(1, 17)), int(rng.choice(LENGTHS))
            drafts = round(share * rows * length)
            seconds = small_model_s(rows, drafts, length) * rng.normal(1.0, 0.03)
            cost.observe(rows, 40 * rows, drafts, length, seconds)
            cost.refit(SMALL)

    run(0.4, 100)
    run(1.0, 900)
    for rows in (1, 16):
        for length in (1, 7):
            every = length * rows
            step_s = step_in(cost, rows, every, length)
            assert step_s == pytest.approx(small_model_s(rows, every, length), rel=0.05)
    assert ROW_S + cost.known.token_s == pytest.approx(TOKEN_S, abs=0.2 * ROW_S)
    assert cost.known.seconds(0, 16, 0) == 0.0


@pytest.mark.parametrize("is_chain", [True, False])
def test_what_leaving_drafts_out_costs_is_noticed_of_chains(is_chain: bool) -> None:
    cost, rng = DraftCost(LENGTHS, is_model=True, is_chain=is_chain), np.random.default_rng(2)
    for _ in range(600):
        rows, length = int(rng.integers(1, 17)), int(rng.choice(LENGTHS))
        drafts = round(float(rng.choice([0.5, 1.0])) * rows * length)
        partial_s = 1e-3 * (drafts < rows * length)
        seconds = small_model_s(rows, drafts, length) + partial_s
        cost.observe(rows, 40 * rows, drafts, length, seconds)
        cost.refit(SMALL)
    assert cost.known.partial_s == pytest.approx(1e-3 if is_chain else 0.0, rel=0.2)


def test_a_pause_of_the_machine_is_no_price() -> None:
    cost = learnt(LENGTHS)
    before = cost.known.step_s
    for _ in range(32):
        cost.observe(8, 2400, 8, 1, 5.0)
    cost.refit(PREDICTOR)
    assert cost.known.step_s == pytest.approx(before, rel=0.5)


def test_without_samples_nothing_is_claimed() -> None:
    cost = DraftCost(LENGTHS, is_model=False)
    cost.observe(4, 100, 0, 99, 0.01)
    cost.observe(0, 0, 0, 0, 0.01)
    cost.refit(PREDICTOR)
    assert cost.known.seconds(7, 100, 700) == 0.0
