"""Drafts that are looked up: rows in known text are told from the others, and found again."""

from __future__ import annotations

import numpy as np
import pytest
from controller_builders import KnownPredictor, feedback_of, fitted_line, rows_of, serial
from governor_protos import decode_to_engine
from governor_protos.limits import MAX_DURATION_S
from governor_protos.messages import Decision, DraftSource, Outcome, Snapshot, StepFeedback
from hypothesis import given, settings
from hypothesis import strategies as st
from speculation_builders import draft_state, drafting_hello, drafting_state

from controller_service.policies.registry import parse_policy
from controller_service.predictors.base import NO_DRAFTING
from controller_service.session import EngineSession
from controller_service.speculation.estimator import AcceptanceEstimator
from controller_service.speculation.matches import Asked, MatchChances

WIDTH = 7
LINE = (0.016, 2e-4, 5e-8)
"""A token that is verified costs a hundredth of a small step: what is not found should not be."""


class LookedUp:
    """Rows in and out of known text; what an engine counts of them."""

    def __init__(
        self, matches: list[bool], chance: float = 0.8, stays: float = 1.0, seed: int = 1
    ) -> None:
        self.matches = np.array(matches)
        self.ids = np.arange(1, len(matches) + 1, dtype=np.uint32)
        self.totals = np.ones((3, len(matches)), dtype=np.int32) * [[1], [0], [0]]
        self.totals = self.totals.astype(np.int32)
        self._chance, self._stays = chance, stays
        self._rng = np.random.default_rng(seed)

    def step(self, asked: np.ndarray) -> np.ndarray:
        """One step with this many draft tokens asked for; how many were accepted of each row."""
        count = len(self.matches)
        moves = self._rng.random(count) >= self._stays
        self.matches = self.matches ^ moves
        found = np.minimum(self._rng.integers(1, 12, count) * self.matches, asked)
        right = self._rng.random((count, WIDTH)) < self._chance
        accepted = np.minimum(right.cumprod(axis=1).sum(axis=1), found)
        self.totals += np.array([1 + accepted, found, accepted], dtype=np.int32)
        return accepted


def test_what_is_expected_is_what_comes() -> None:
    rows = LookedUp([True, False] * 32, stays=0.97)
    estimator = AcceptanceEstimator(WIDTH, looks_up=True)
    asked = np.full(64, WIDTH)
    estimator.update(rows.ids, *rows.totals, WIDTH, asked)
    expected, came = [], []
    for number in range(300):
        assert estimator.match is not None
        state = draft_state(
            list(estimator.match),
            later_acceptance=estimator.acceptance,
            by_position=np.concatenate([[1.0], estimator.by_position[:-1]]),
        )
        accepted = rows.step(asked)
        if number > 60:
            expected.append(state.survival(WIDTH).sum(axis=1))
            came.append(accepted)
        estimator.update(rows.ids, *rows.totals, WIDTH, asked)
    expected, came = np.concatenate(expected), np.concatenate(came)
    assert expected.mean() == pytest.approx(came.mean(), rel=0.05)
    low, *_, high = np.array_split(expected.argsort(), 3)
    assert came[low].mean() < 0.35 * came[high].mean()
    for part in (low, high):
        assert expected[part].mean() == pytest.approx(came[part].mean(), rel=0.15, abs=0.15)


def test_a_row_that_is_not_asked_is_not_blamed_and_returns_to_what_is_known_of_all() -> None:
    rows = LookedUp([False, *[True] * 15], chance=0.99)
    estimator = AcceptanceEstimator(WIDTH, looks_up=True)
    asked = np.full(16, WIDTH)
    for _ in range(40):
        estimator.update(rows.ids, *rows.totals, WIDTH, asked)
        rows.step(asked)
    assert estimator.match is not None
    blamed, others = estimator.match[0], estimator.match[1:].min()
    assert blamed < 0.25
    assert others > 0.9
    asked[0] = 0
    seen = [blamed]
    for _ in range(200):
        rows.step(asked)
        estimator.update(rows.ids, *rows.totals, WIDTH, asked)
        seen.append(estimator.match[0])
    assert min(seen) > blamed - 0.02
    assert seen[-1] > 0.7


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_order_and_company_do_not_mix_rows_up(data: st.DataObject) -> None:
    rows = LookedUp([True, False] * 6, stays=0.9, seed=data.draw(st.integers(0, 9)))
    straight, shuffled = (AcceptanceEstimator(WIDTH, looks_up=True) for _ in range(2))
    for _ in range(8):
        asked = np.array(data.draw(st.lists(st.integers(0, WIDTH), min_size=12, max_size=12)))
        order = np.array(data.draw(st.permutations(range(12))))
        first = straight.update(rows.ids, *rows.totals, WIDTH, asked)
        second = shuffled.update(rows.ids[order], *rows.totals[:, order], WIDTH, asked[order])
        assert second == pytest.approx(first[order])
        assert shuffled.match == pytest.approx(straight.match[order])
        rows.step(asked)


@given(
    st.lists(
        st.lists(
            st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 3, st.integers(0, 255 * 64)),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_no_numbers_of_a_peer_lead_out_of_bounds(
    snapshots: list[list[tuple[int, int, int, int]]],
) -> None:
    estimator = AcceptanceEstimator(WIDTH, looks_up=True)
    for rows in snapshots:
        output, drafted, accepted, asked = np.array(rows).T
        told = (column.astype(np.int32) for column in (output, drafted, accepted))
        found = estimator.update(np.arange(3, dtype=np.uint32), *told, WIDTH, asked)
        assert estimator.match is not None
        for chances in (found, estimator.match):
            assert np.all((chances > 0) & (chances < 1))
        assert np.all(np.isfinite(estimator.by_position))


@given(
    st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1, max_size=5),
    st.dictionaries(st.integers(1, 6), st.integers(0, 7), max_size=4),
)
def test_caps_count_where_they_were_carried_out(
    steps: list[tuple[int, bool]], caps: dict[int, int]
) -> None:
    asked, ids = Asked(), np.array([5, 2, 6, 1], dtype=np.uint32)
    feedback = []
    for number, (length, applied) in enumerate(steps):
        capped = np.array(list(caps), dtype="<u4")
        asked.decided(number, capped.tobytes(), bytes(caps.values()))
        outcome = Outcome.APPLIED if applied else Outcome.LATE
        feedback.append(feedback_of(number, draft_length=length, outcome=outcome))
    expected = [
        sum(min(length, caps.get(row, length)) if applied else length for length, applied in steps)
        for row in ids.tolist()
    ]
    assert asked.finished(feedback, ids).tolist() == expected
    assert asked.finished([], ids).tolist() == [0] * 4


def test_several_steps_between_two_snapshots_count_as_such() -> None:
    every, some = MatchChances(), MatchChances()
    rng = np.random.default_rng(5)
    for chances in (every, some):
        chances.align(np.zeros(0, dtype=np.intp), np.zeros(8, dtype=np.bool_))
    accepted = (rng.random((200, 8)) < 0.5) * rng.integers(1, WIDTH + 1, (200, 8))
    asked = np.full(8, WIDTH)
    for first, second in zip(accepted[0::2], accepted[1::2], strict=True):
        for one in (first, second):
            every.learn(1 + one, one, asked)
        some.learn(2 + first + second, first + second, 2 * asked)
    assert np.abs(some.chances - every.chances).mean() < 0.12
    assert some.mean == pytest.approx(every.mean, abs=0.1)


@given(st.data(), st.integers(1, WIDTH))
def test_a_right_start_and_what_follows_are_kept_apart(data: st.DataObject, width: int) -> None:
    accepted = np.array(data.draw(st.lists(st.integers(0, width), min_size=6, max_size=6)))
    chances = MatchChances()
    chances.align(np.zeros(0, dtype=np.intp), np.zeros(6, dtype=np.bool_))
    more = chances.learn(1 + accepted, accepted, np.full(6, width))
    started = accepted > 0
    low, high = chances.chances[~started], chances.chances[started]
    assert low.max(initial=0.0) < high.min(initial=1.0)
    assert np.array_equal(more.accepted, np.maximum(accepted - 1, 0))
    assert np.array_equal(more.drafted, started * (width - 1))
    assert np.array_equal(more.gave - more.accepted, started)


class Engine:
    """An engine of n-grams that does as it is told, under a session."""

    def __init__(self, matches: list[bool], *, is_ragged: bool) -> None:
        hello = drafting_hello(source=DraftSource.NGRAM, is_ragged=is_ragged)
        self.session = EngineSession(hello, fitted_line(*LINE), 4)
        self.rows = LookedUp(matches, chance=0.9)
        self.lengths: list[int] = []
        self.caps = np.zeros(len(matches), dtype=int)
        self._is_ragged = is_ragged
        self._feedback: list[StepFeedback] = []

    def step(self) -> None:
        rows, count = self.rows, len(self.rows.ids)
        number = len(self.lengths) + 1
        snapshot = Snapshot(
            number,
            rows_of(
                [
                    serial(
                        request_id=int(name),
                        output_tokens=int(output),
                        draft_tokens=int(drafted),
                        accepted_tokens=int(accepted),
                        tpot_slo_s=MAX_DURATION_S,
                    )
                    for name, output, drafted, accepted in zip(rows.ids, *rows.totals, strict=True)
                ]
            ),
            *(0, 1 << 20, 0, 0, self._feedback, 0),
        )
        decision = decode_to_engine(self.session.decide(snapshot, parse_policy("turbospec")))
        self.session.settle(snapshot, float(number))
        assert isinstance(decision, Decision)
        length = max(decision.draft_length, 0)
        self.caps = np.full(count, length)
        if decision.caps:
            ids = np.frombuffer(decision.capped, "<u4")
            self.caps[ids - 1] = np.frombuffer(decision.caps, "u1")
        accepted = rows.step(self.caps)
        verified = int(self.caps.sum()) if self._is_ragged else length * count
        self._feedback = [
            feedback_of(
                number,
                count,
                1000,
                latency_s=LINE[0] + LINE[1] * (count + verified) + LINE[2] * 1000,
                draft_tokens=verified,
                accepted_tokens=int(accepted.sum()),
                draft_length=length,
            )
        ]
        self.lengths.append(length)


def test_rows_without_a_match_have_nothing_verified_and_are_found_again() -> None:
    engine = Engine([True] * 4 + [False] * 12, is_ragged=True)
    asked = []
    for _ in range(120):
        engine.step()
        asked.append(engine.caps)
    late = np.array(asked[-60:])
    assert late[:, :4].mean() > 2
    assert late[:, 4:].mean() < 0.3
    engine.rows.matches[4:8] = True
    for _ in range(120):
        engine.step()
        asked.append(engine.caps)
    late = np.array(asked[-40:])
    assert late[:, :8].mean() > 2, "they were asked again"
    assert late[:, 8:].mean() < 0.3


def test_one_width_for_all_follows_what_is_found() -> None:
    engine = Engine([False] * 16, is_ragged=False)
    for _ in range(150):
        engine.step()
    assert np.mean(engine.lengths[-100:]) < 0.1
    engine.rows.matches[:] = True
    for _ in range(250):
        engine.step()
    assert np.mean(engine.lengths[-60:]) > 3


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=12),
    st.floats(0.01, 0.99),
    st.booleans(),
)
def test_whose_draft_is_less_likely_to_start_right_never_has_more_verified(
    match: list[float], later: float, is_ragged: bool
) -> None:
    count = len(match)
    known = draft_state(
        match, later_acceptance=np.full(count, later), is_ragged=is_ragged, cost=NO_DRAFTING
    )
    requests = [serial(tpot_slo_s=MAX_DURATION_S, request_id=number + 1) for number in range(count)]
    state = drafting_state(requests, known)
    drafts = parse_policy("turbospec:probe=0,value=sum").plan(state, KnownPredictor(*LINE)).drafts
    assert drafts is not None
    assert drafts.caps is not None
    order = np.argsort(match, kind="stable")
    assert np.all(np.diff(drafts.caps[order].astype(int)) >= 0)
    survival = known.survival(WIDTH)
    assert survival[:, 0] == pytest.approx(match)
    assert survival[:, 1:] == pytest.approx(survival[:, :-1] * later)


def test_an_engine_that_makes_its_drafts_has_no_matches() -> None:
    session = EngineSession(drafting_hello(), fitted_line(*LINE), 4)
    assert session._drafts is not None
    snapshot = Snapshot(1, rows_of([serial(request_id=1)]), 0, 9, 0, 0, [], 0)
    assert session._drafts.state(snapshot).later_acceptance is None
