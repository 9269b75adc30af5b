"""Acceptance by request: right on average, not moved by little, and not stuck in the past."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller_service.learning.acceptance import AcceptanceModel
from controller_service.speculation.estimator import AcceptanceEstimator

LENGTH = 5


class Batch:
    """Rows whose drafts are right with chances of their own, and what an engine counts of them."""

    def __init__(self, chances: np.ndarray, seed: int = 1) -> None:
        self.chances = np.asarray(chances, dtype=float)
        self.ids = np.arange(1, len(self.chances) + 1, dtype=np.uint32)
        self._rng = np.random.default_rng(seed)
        self.totals = np.zeros((3, len(self.chances)), dtype=np.int32)

    def step(self, length: int = LENGTH) -> np.ndarray:
        """One step; how many draft tokens of each row were accepted."""
        right = self._rng.random((len(self.chances), length)) < self.chances[:, None]
        accepted = right.cumprod(axis=1).sum(axis=1) if length else np.zeros(len(right), int)
        self.totals[0] += 1 + accepted
        self.totals[1] += length
        self.totals[2] += accepted
        return accepted

    def tell(self, estimator: AcceptanceEstimator) -> np.ndarray:
        found = estimator.update(self.ids, *self.totals)
        estimator.settle()
        return found


def test_expected_tokens_are_those_that_come() -> None:
    rng = np.random.default_rng(3)
    estimator, batch = AcceptanceEstimator(LENGTH), Batch(rng.beta(3, 2, 64))
    batch.tell(estimator)
    expected, given_tokens = [], []
    for number in range(300):
        chance = np.minimum(estimator.acceptance[:, None] * estimator.by_position, 1.0)
        if number > 30:
            expected.append(chance.cumprod(axis=1).sum(axis=1))
            given_tokens.append(batch.step())
        else:
            batch.step()
        batch.tell(estimator)
    expected, given_tokens = np.array(expected).ravel(), np.array(given_tokens).ravel()
    assert expected.mean() == pytest.approx(given_tokens.mean(), rel=0.03)
    for part in np.array_split(expected.argsort(), 4):  # and so they are in every quarter
        assert expected[part].mean() == pytest.approx(given_tokens[part].mean(), rel=0.12, abs=0.05)


def test_nodes_that_an_engine_left_out_count_as_what_they_were_expected_to_give() -> None:
    """The engine verifies a draft only where it is sure: what it verifies is nearly always right,
    and says nothing of the rest."""
    estimator, rng = AcceptanceEstimator(1), np.random.default_rng(5)
    ids = np.arange(1, 33, dtype=np.uint32)
    totals = np.zeros((3, 32), dtype=np.int32)
    estimator.update(ids, *totals)
    for _ in range(300):
        estimator.plan(1.0 + estimator.acceptance)
        sure = rng.random(32) < 0.4
        totals += np.array([1 + sure, sure, sure], dtype=np.int32)
        estimator.update(ids, *totals, 1, ran_planned=True)
    assert estimator.acceptance.mean() == pytest.approx(0.4, abs=0.05)


def test_rows_that_differ_are_told_apart() -> None:
    estimator, batch = AcceptanceEstimator(LENGTH), Batch([0.2, 0.9] * 16)
    for _ in range(80):
        batch.step()
        found = batch.tell(estimator)
    assert abs(found[0::2].mean() - 0.2) < 0.07
    assert abs(found[1::2].mean() - 0.9) < 0.07


def test_one_unlucky_step_does_not_condemn_a_new_row() -> None:
    estimator, batch = AcceptanceEstimator(LENGTH), Batch([0.8] * 32)
    for _ in range(60):
        batch.step()
        batch.tell(estimator)
    ids = np.array([*batch.ids, 99], dtype=np.uint32)
    before = estimator.update(ids, *np.c_[batch.totals, [0, 0, 0]])[-1]
    assert before == pytest.approx(estimator.mean)
    after = estimator.update(ids, *np.c_[batch.totals, [1, LENGTH, 0]])[-1]
    assert after > 0.6 * before


def test_a_row_that_becomes_hard_is_noticed() -> None:
    estimator, batch = AcceptanceEstimator(LENGTH), Batch([0.9] * 8)
    for _ in range(100):
        batch.step()
        batch.tell(estimator)
    batch.chances[:] = 0.2
    for _ in range(160):
        batch.step()
        found = batch.tell(estimator)
    assert found.max() < 0.4


def test_without_drafts_a_row_returns_to_what_is_known_of_all() -> None:
    estimator, batch = AcceptanceEstimator(LENGTH), Batch([0.1, *[0.9] * 15])
    for _ in range(60):
        batch.step()
        low = batch.tell(estimator)[0]
    for _ in range(3000):
        batch.step(0)
        after = batch.tell(estimator)[0]
    assert low < 0.45
    assert after > 0.6


def test_a_fitted_prior_is_where_everything_starts() -> None:
    estimator = AcceptanceEstimator(LENGTH, model=AcceptanceModel(8.0, 2.0))
    batch = Batch([0.5] * 4)
    assert batch.tell(estimator) == pytest.approx(np.full(4, 0.8))
    assert estimator.strength == pytest.approx(10.0)


def test_several_steps_between_two_snapshots_count_as_such() -> None:
    every, some = AcceptanceEstimator(LENGTH), AcceptanceEstimator(LENGTH)
    batch = Batch([0.3, 0.7] * 8)
    for number in range(240):
        batch.step()
        batch.tell(every)
        if number % 4 == 3:
            batch.tell(some)
    assert every.acceptance[0::2].mean() == pytest.approx(some.acceptance[0::2].mean(), abs=0.06)
    assert every.acceptance[1::2].mean() == pytest.approx(some.acceptance[1::2].mean(), abs=0.06)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_order_of_rows_and_who_else_is_there_do_not_mix_rows_up(data: st.DataObject) -> None:
    batch = Batch(np.linspace(0.05, 0.95, 12), seed=data.draw(st.integers(0, 9)))
    straight, shuffled = AcceptanceEstimator(LENGTH), AcceptanceEstimator(LENGTH)
    for _ in range(8):
        batch.step()
        order = np.array(data.draw(st.permutations(range(12))))
        first = straight.update(batch.ids, *batch.totals)
        second = shuffled.update(batch.ids[order], *batch.totals[:, order])
        assert second == pytest.approx(first[order])


@given(
    st.lists(
        st.lists(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 3), min_size=3, max_size=3),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 4),
)
def test_no_numbers_of_a_peer_lead_out_of_bounds(
    snapshots: list[list[tuple[int, int, int]]], width: int
) -> None:
    estimator = AcceptanceEstimator(LENGTH, width)
    for rows in snapshots:
        columns = np.array(rows, dtype=np.int32).T
        found = estimator.update(np.arange(3, dtype=np.uint32), *columns)
        estimator.settle()
        assert np.all((found > 0) & (found < 1))
        assert np.all(np.isfinite(estimator.by_position))
