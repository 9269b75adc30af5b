"""What drafting costs, from batches that went through an engine's draft lengths."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from governor_bench.profiling.build import Measured, build_profile
from governor_bench.profiling.cells import Cell
from governor_bench.profiling.draft_costs import DraftCosts, draft_costs
from governor_bench.profiling.draft_report import drafting_lines
from governor_bench.profiling.engine import DraftFacts, EngineFacts
from governor_bench.profiling.finish import write_results
from governor_bench.profiling.plan import make_plan
from governor_bench.profiling.point import Limits, Point
from governor_bench.profiling.steps import DECODE, Step
from governor_bench.profiling.surface import Surface
from governor_profiles import ProfileError, StepProfile
from hypothesis import given, settings
from hypothesis import strategies as st

KV_TOKENS = 223464
LENGTHS = (0, 1, 2, 3, 5, 7)
TRUTH = StepProfile(
    name="truth",
    source="made up for this test",
    measured=False,
    fixed_s=0.016,
    row_s=7e-5,
    context_token_s=6e-8,
    prefill_token_s=1.2e-4,
    draft_token_s=7e-5,
    draft_step_s=8e-4,
    draft_row_s=1e-5,
    kv_tokens=KV_TOKENS,
)
FACTS = EngineFacts(
    engine_id="engine-dp0",
    model="some/model",
    sglang_version="0.5.17",
    tp_size=1,
    dp_rank=0,
    max_running_requests=256,
    max_total_tokens=KV_TOKENS,
    max_context_tokens=131072,
    page_size=1,
    chunked_prefill_tokens=8192,
    draft_lengths=LENGTHS,
    speculative_algorithm="EAGLE",
    knobs=("branches", "drafts"),
    drafting=DraftFacts(3e-4),
)
SIZES = (1, 4, 16, 64, 128)


def batch(
    truth: StepProfile,
    rows: int,
    *,
    context: int = 64,
    bend: float = 0.0,
    ragged: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
) -> list[Cell]:
    """A batch of ``rows`` through :data:`LENGTHS`.

    Args:
        bend: of verification, per draft token squared, s.
        ragged: share of the length that rows draft on average.
    """
    rng = np.random.Generator(np.random.PCG64([seed, rows]))
    found = []
    for at, length in enumerate(LENGTHS):
        drafts = ragged * length * rows
        tokens = float(rows * (context + 20 * at))
        step_s = truth.step_s(rows, tokens, 0, drafts, length) + bend * drafts**2
        step_s *= 1.0 + noise * rng.standard_normal()
        found.append(Cell(rows, tokens, step_s, 12, length, drafts))
    return found


def surface_of(truth: StepProfile) -> Surface:
    cells = [
        Cell(rows, float(rows * context), truth.step_s(rows, rows * context), 9)
        for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256)
        for context in (64, 256, 512)
    ]
    return Surface(cells, (), KV_TOKENS)


def costs_of(truth: StepProfile, batches: list[list[Cell]]) -> DraftCosts:
    found = draft_costs(batches, surface_of(truth), truth.row_s)
    assert found is not None
    return found


def test_costs_are_those_of_the_engine_and_are_split_like_shipped_profiles() -> None:
    costs = costs_of(TRUTH, [batch(TRUTH, rows) for rows in SIZES])
    assert costs.step_s == pytest.approx(TRUTH.draft_step_s, rel=0.02)
    assert costs.token_s == pytest.approx(TRUTH.draft_token_s, rel=0.02)
    assert costs.row_s == pytest.approx(TRUTH.draft_row_s, rel=0.1)
    assert costs.error is not None
    assert costs.error < 0.005
    assert (costs.cells, costs.sizes) == (len(SIZES) * (len(LENGTHS) - 1), len(SIZES))


def test_a_token_that_costs_less_than_a_row_leaves_nothing_for_rows() -> None:
    cheap = msgspec.structs.replace(TRUTH, draft_token_s=2e-5, draft_row_s=0.0)
    costs = costs_of(cheap, [batch(cheap, rows) for rows in SIZES])
    assert costs.token_s == pytest.approx(2e-5, rel=0.03)
    assert costs.row_s < 1e-6


def test_where_rows_draft_unlike_the_measurements_decide_the_split() -> None:
    truth = msgspec.structs.replace(TRUTH, draft_token_s=3e-5, draft_row_s=4e-5)
    batches = [batch(truth, rows, ragged=share) for rows in SIZES for share in (0.3, 0.6, 1.0)]
    costs = costs_of(truth, batches)
    assert costs.token_s == pytest.approx(3e-5, rel=0.05)
    assert costs.row_s == pytest.approx(4e-5, rel=0.05)


def test_noise_leaves_costs_near_the_truth() -> None:
    batches = [batch(TRUTH, rows, noise=0.01, seed=seed) for seed in (1, 2) for rows in SIZES]
    costs = costs_of(TRUTH, batches)
    assert costs.step_s == pytest.approx(TRUTH.draft_step_s, rel=0.15)
    both_s = TRUTH.draft_token_s + TRUTH.draft_row_s
    assert costs.token_s + costs.row_s == pytest.approx(both_s, rel=0.1)
    assert costs.error is not None
    assert 0.002 < costs.error < 0.03


def test_verification_that_is_not_linear_shows_as_an_error() -> None:
    straight = costs_of(TRUTH, [batch(TRUTH, rows) for rows in SIZES])
    bent = costs_of(TRUTH, [batch(TRUTH, rows, bend=1e-7) for rows in SIZES])
    assert straight.error is not None
    assert bent.error is not None
    assert bent.error > max(10 * straight.error, 0.02)
    assert abs(bent.worst_error) > 0.02


def test_two_batch_sizes_say_nothing_of_a_third() -> None:
    costs = costs_of(TRUTH, [batch(TRUTH, 1), batch(TRUTH, 64)])
    assert costs.error is None
    assert costs.error_text == "unknown"
    assert costs.step_s == pytest.approx(TRUTH.draft_step_s, rel=0.02)


def test_one_batch_size_does_not_tell_steps_from_rows() -> None:
    both = [batch(TRUTH, 16), batch(TRUTH, 16, context=512)]
    assert draft_costs(both, surface_of(TRUTH), TRUTH.row_s) is None
    without_base = [batch(TRUTH, rows)[1:] for rows in SIZES]
    assert draft_costs(without_base, surface_of(TRUTH), TRUTH.row_s) is None
    assert draft_costs([], surface_of(TRUTH), TRUTH.row_s) is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 256), st.lists(st.floats(1e-4, 1), min_size=6, max_size=6)),
        max_size=6,
    ),
    st.floats(0, 1e-2),
)
def test_whatever_was_measured_no_cost_is_negative(
    batches: list[tuple[int, list[float]]], row_s: float
) -> None:
    cells = [
        [
            Cell(rows, 64.0 * rows, slow, 9, length, float(rows * length))
            for length, slow in zip(LENGTHS, times, strict=True)
        ]
        for rows, times in batches
    ]
    costs = draft_costs(cells, surface_of(TRUTH), row_s)
    if costs is None:
        assert len({rows for rows, _ in batches}) < 2
        return
    assert min(costs.token_s, costs.step_s, costs.row_s) >= 0
    assert np.isfinite([costs.error or 0.0, costs.worst_error]).all()


# -- the whole of a profile ----------------------------------------------------------------------


def measured(point: Point) -> Measured:
    """What a sweep would hand back for a point."""
    steps = []
    for rows in point.rows if point.kind != "prefill" else ():
        for length in point.draft_lengths or (0,):
            for step in range(9):
                tokens = rows * (point.context_tokens + 10 + 20 * length + step)
                drafts = rows * length
                latency_s = TRUTH.step_s(rows, tokens, 0, drafts, length)
                steps.append(Step(DECODE, rows, tokens, 0, drafts, latency_s, length))
    return Measured(point, steps, 1.0)


PLAN = make_plan(
    Limits(
        max_rows=256, max_context_tokens=131072, kv_tokens=KV_TOKENS, draft_lengths=LENGTHS
    )
)  # fmt: skip


def test_a_profile_holds_the_costs_and_says_how_good_they_are() -> None:
    built = build_profile(FACTS, [measured(point) for point in PLAN[:24]], "p", "2026-01-01")
    profile = built.profile
    for rows, length in ((1, 3), (8, 7), (100, 2), (256, 5)):
        shape = (rows, 100 * rows, 0, rows * length, length)
        assert profile.step_s(*shape) == pytest.approx(TRUTH.step_s(*shape), rel=0.02)
    assert "Drafting (EAGLE)" in profile.source
    costs, error = drafting_lines(built, FACTS)
    assert f"{1e6 * profile.draft_step_s:.0f} us a draft step" in costs
    assert "300 us" in costs
    assert "% of a step" in error


def test_without_drafts_costs_are_as_they_are_documented() -> None:
    plain = [measured(point) for point in PLAN[:24] if point.kind != "draft"]
    built = build_profile(FACTS, plain, "p", "2026-01-01")
    assert built.drafting is None
    assert built.profile.draft_token_s == built.profile.row_s
    assert (built.profile.draft_step_s, built.profile.draft_row_s) == (0.0, 0.0)
    assert "not measured" in built.profile.source
    (line,) = drafting_lines(built, FACTS)
    assert "raise the budget" in line


def test_samples_hold_what_verifies_and_not_what_drafts(tmp_path: Path) -> None:
    items = [measured(point) for point in PLAN[:24]]
    path = tmp_path / "p.samples.npz"
    built = write_results(tmp_path / "p.json", path, FACTS, items, "p", "2026-01-01")
    with np.load(path, allow_pickle=False) as stored:
        assert (stored["draft_tokens"] > 0).any()
        for rows, context, drafts, latency_s in zip(
            stored["rows"][::7],
            stored["context_tokens"][::7],
            stored["draft_tokens"][::7],
            stored["latency_s"][::7],
            strict=True,
        ):
            plain_s = TRUTH.step_s(rows, context) + built.profile.draft_token_s * drafts
            assert latency_s == pytest.approx(plain_s, rel=0.02)


def test_steps_with_drafts_of_unknown_cost_are_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "p.samples.npz"
    items = [measured(point) for point in PLAN if point.kind == "draft"][:1]
    with pytest.raises(ProfileError, match="budget"):
        write_results(tmp_path / "p.json", path, FACTS, items, "p", "2026-01-01")
    with np.load(path, allow_pickle=False) as stored:
        assert len(stored["rows"]) == 9
        assert not stored["draft_tokens"].any()
